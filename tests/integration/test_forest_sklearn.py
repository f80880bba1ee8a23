"""The forest kernel against scikit-learn itself: every bit of the predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import forest_world as world
import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from augury.errors import ContractError, UnsupportedError
from augury.models.forest import available, from_sklearn, verify

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")

CASES = {
    "hist two": (HistGradientBoostingClassifier(max_iter=20), "two", True),
    "hist twelve": (HistGradientBoostingClassifier(max_iter=4), "12", True),
    "hist real": (HistGradientBoostingRegressor(max_iter=20), "real", True),
    "hist gamma": (HistGradientBoostingRegressor(loss="gamma", max_iter=8), "positive", False),
    "hist large": (
        HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=None, min_samples_leaf=1),
        "real",
        True,
    ),
    "forest two": (RandomForestClassifier(15, max_depth=7), "two", False),
    "forest two missing": (RandomForestClassifier(15), "two", True),
    "forest twelve": (RandomForestClassifier(8), "12", False),
    "forest real": (RandomForestRegressor(8), "real", False),
    "forest real missing": (RandomForestRegressor(8, max_depth=12), "real", True),
    "extra two": (ExtraTreesClassifier(15), "two", False),
    "extra five": (ExtraTreesClassifier(8, max_depth=6), "5", True),
    "extra real": (ExtraTreesRegressor(8), "real", False),
    "tree two missing": (DecisionTreeClassifier(max_depth=9), "two", True),
    "tree five": (DecisionTreeClassifier(), "5", False),
    "tree real": (DecisionTreeRegressor(), "real", True),
    "extra tree real": (ExtraTreeRegressor(), "real", False),
    "boosting two": (GradientBoostingClassifier(n_estimators=20), "two", False),
    "boosting exponential": (
        GradientBoostingClassifier(loss="exponential", n_estimators=10),
        "two",
        False,
    ),
    "boosting twelve": (GradientBoostingClassifier(n_estimators=3), "12", False),
    "boosting zero": (GradientBoostingClassifier(n_estimators=3, init="zero"), "5", False),
    "boosting real": (GradientBoostingRegressor(n_estimators=20, max_depth=6), "real", False),
    "boosting huber": (GradientBoostingRegressor(loss="huber", n_estimators=9), "real", False),
    "boosting dummy": (
        GradientBoostingRegressor(init=DummyRegressor(strategy="median"), n_estimators=9),
        "real",
        False,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow on a busy machine."""
    with threadpool_limits(1):
        yield


def _fit(name: str) -> Any:
    estimator, kind, missing = CASES[name]
    features = world.features(missing=missing)
    features[:, 7] /= 1e30  # a random forest squares what it was given
    return estimator.set_params(random_state=0).fit(features, world.target(kind, features))


def _predict(estimator: Any) -> Any:
    def predict(matrix: Any) -> Any:
        if not hasattr(estimator, "predict_proba"):
            return estimator.predict(matrix)
        found = estimator.predict_proba(matrix)
        return found[:, 1] if found.shape[1] == 2 else found

    return world.quietly(predict)


@pytest.mark.parametrize("name", CASES)
def test_every_estimator(name: str) -> None:
    estimator = _fit(name)
    forest = from_sklearn(estimator)
    assert verify(forest, _predict(estimator), dtype="float32") is None
    assert verify(forest, _predict(estimator), dtype="float64") is None


def test_doubles_one_unit_beside_a_threshold_are_decided_alike() -> None:
    estimator = _fit("hist real")
    forest = from_sklearn(estimator)
    thresholds = np.concatenate(
        [stage[0].nodes["num_threshold"] for stage in estimator._predictors]
    )
    for values in (thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)):
        matrix = np.repeat(values[:, None], world.NUM_FEATURES, axis=1)
        assert forest.predict(matrix).tobytes() == estimator.predict(matrix).tobytes()


def test_integers_are_taken_as_doubles() -> None:
    estimator = _fit("hist real")
    matrix = np.random.default_rng(0).integers(-(2**60), 2**60, (500, world.NUM_FEATURES))
    matrix[:, :4] %= 5
    assert from_sklearn(estimator).predict(matrix).tobytes() == estimator.predict(matrix).tobytes()


@pytest.mark.parametrize("name", ["forest two", "boosting two", "extra two"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_the_estimator_refuses_is_refused(name: str, value: float) -> None:
    estimator = _fit(name)
    matrix = world.features(missing=False)
    matrix[100, 3] = value
    try:
        expected = _predict(estimator)(matrix)
    except ValueError:
        with pytest.raises(ContractError, match="column 3"):
            from_sklearn(estimator).predict(matrix)
    else:
        assert from_sklearn(estimator).predict(matrix).tobytes() == expected.tobytes()


def test_what_is_not_supported_says_why() -> None:
    features = world.features(missing=False)
    labels = world.target("real", features)
    categorical = np.round(np.abs(features[:, 4])).astype(int)
    mixed = np.column_stack([features, categorical])
    for estimator, matrix, targets, why in (
        (AdaBoostRegressor(n_estimators=2), features, labels, "AdaBoostRegressor"),
        (GradientBoostingRegressor(init=LinearRegression(), n_estimators=2), features, labels,
         "starts from a LinearRegression"),
        (RandomForestRegressor(2), features, np.stack([labels, labels], 1), "2 targets"),
        (HistGradientBoostingRegressor(max_iter=2, categorical_features=[9]), mixed, labels,
         "categorical features"),
    ):  # fmt: skip
        estimator.fit(matrix, targets)
        with pytest.raises(UnsupportedError, match=f"not supported .* because .*{why}"):
            from_sklearn(estimator)
    with pytest.raises(UnsupportedError, match="is not fitted"):
        from_sklearn(RandomForestClassifier())
