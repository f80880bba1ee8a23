"""Fused pipelines against scikit-learn itself: bits of trees, sums within their bound."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from threadpoolctl import threadpool_limits

from augury.errors import ContractError, UnsupportedError
from augury.models import backends
from augury.models.columns import Columns
from augury.models.flavors import get_flavor
from augury.models.forest import FOREST
from augury.models.fused import LINEAR, FusedKernel, FusedLinear, available, fuse
from augury.models.fused.features import Kind, Operation
from augury.models.fused.finals import read_linear
from augury.models.fused.program import columns_of, sums

pytestmark = pytest.mark.skipif(not available(), reason="the fused kernel was not built")

NUM_ROWS = 1500


def _encoded(*, rest: Any = "passthrough", **options: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    parts = [("numbers", numbers, [0, 1, 2]), ("codes", OneHotEncoder(**options), [4, 5])]
    return ColumnTransformer(parts, remainder=rest)


def _ordinal() -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return ColumnTransformer([("codes", encoder, [4, 5])], remainder=StandardScaler())


CASES: dict[str, tuple[Any, str, bool]] = {
    "linear": (LinearRegression(), "real", False),
    "ridge": (make_pipeline(StandardScaler(), Ridge()), "real", False),
    "lasso": (make_pipeline(RobustScaler(), Lasso(alpha=0.01)), "real", False),
    "elastic": (make_pipeline(MinMaxScaler(clip=True), ElasticNet(alpha=0.01)), "real", False),
    "sgd real": (make_pipeline(MaxAbsScaler(), SGDRegressor()), "real", False),
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), "two", False),
    "softmax": (make_pipeline(StandardScaler(), LogisticRegression()), "three", False),
    "sgd": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), "two", False),
    "sgd three": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), "three", False),
    "imputed": (
        make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()),
        "two", True,
    ),
    "one-hot": (
        make_pipeline(_encoded(handle_unknown="ignore"), LogisticRegression()), "two", False
    ),
    "dropped": (make_pipeline(_encoded(drop="first"), LogisticRegression()), "two", False),
    "infrequent": (
        make_pipeline(
            _encoded(min_frequency=350, handle_unknown="infrequent_if_exist", rest="drop"),
            LogisticRegression(),
        ),
        "three", False,
    ),
    "sparse scaled": (
        make_pipeline(
            ColumnTransformer(
                [("codes", OneHotEncoder(handle_unknown="ignore"), [4, 5])],
                remainder=SimpleImputer(), sparse_threshold=1.0,
            ),
            StandardScaler(with_mean=False), LogisticRegression(),
        ),
        "two", True,
    ),
    "weighted": (
        make_pipeline(
            FeatureUnion(
                [("same", FunctionTransformer()), ("scaled", MinMaxScaler())],
                transformer_weights={"scaled": 0.3},
            ),
            Ridge(),
        ),
        "real", False,
    ),
    "tree ordinal": (
        make_pipeline(_ordinal(), HistGradientBoostingClassifier(max_iter=15)), "two", True
    ),
    "tree categories": (
        HistGradientBoostingClassifier(max_iter=12, categorical_features=[4, 5]), "two", True
    ),
    "tree categories three": (
        make_pipeline(
            StandardScaler().set_output(transform="default"),
            HistGradientBoostingClassifier(max_iter=5, categorical_features=[5]),
        ),
        "three", True,
    ),
    "tree forest": (
        make_pipeline(SimpleImputer(), StandardScaler(), RandomForestClassifier(12)), "three", True
    ),
    "tree boosting": (
        make_pipeline(MinMaxScaler(), GradientBoostingRegressor(n_estimators=15)), "real", False
    ),
    "tree union": (
        make_pipeline(
            FeatureUnion([("a", StandardScaler()), ("b", MaxAbsScaler())]), ExtraTreesRegressor(8)
        ),
        "real", False,
    ),
}  # fmt: skip
SUMS = [name for name in CASES if not name.startswith("tree")]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow on a busy machine."""
    with threadpool_limits(1):
        yield


def _rows(seed: int = 0, *, missing: bool = False) -> Any:
    """`(NUM_ROWS, 6)`: of several magnitudes, far from 0; the last two are few whole numbers."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(NUM_ROWS, 6)) * [1, 10, 1e3, 1, 1, 1] + [0, 5, 1e4, 0, 0, 0]
    rows[:, 4] = rng.integers(0, 5, NUM_ROWS)
    rows[:, 5] = rng.integers(10, 14, NUM_ROWS)
    if missing:
        rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


@cache
def _fitted(name: str) -> Any:
    estimator, kind, missing = CASES[name]
    score = (_rows()[:, 0] + _rows()[:, 4] - 2) + np.random.default_rng(9).normal(size=NUM_ROWS)
    labels = {"real": score, "two": score > 0, "three": np.digitize(score, [-1, 1])}[kind]
    for part in (estimator, getattr(estimator, "_final_estimator", estimator)):
        if "random_state" in part.get_params():
            part.set_params(random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(_rows(missing=missing), labels)


def _margins(estimator: Any, rows: Any) -> Any:
    found = getattr(estimator, "decision_function", estimator.predict)(rows)
    return found.reshape(len(rows), -1)


@pytest.mark.parametrize("name", CASES)
def test_the_self_check_finds_it_as_promised(name: str, tmp_path: Path) -> None:
    joblib.dump(_fitted(name), tmp_path / "model.joblib")
    flavor = get_flavor("sklearn")
    signature = flavor.infer(tmp_path / "model.joblib")
    verdict = backends.judge(flavor, tmp_path / "model.joblib", signature)
    assert verdict.backend == (LINEAR if name in SUMS else FOREST), verdict.reason
    assert ("not equal in every bit" in verdict.reason) == (name in SUMS)


@pytest.mark.parametrize("name", SUMS)
def test_sums_lie_within_their_bound_and_decisions_differ_only_there(name: str) -> None:
    estimator = _fitted(name)
    fused = fuse(estimator)
    assert isinstance(fused, FusedLinear)
    for scale in (1.0, 1e-30, 1e12):
        rows = _rows(5, missing=CASES[name][2])
        rows[:, :4] *= scale
        expected = _margins(estimator, rows)
        found, bound = fused.margins(Columns.of(rows)), fused.bound(Columns.of(rows))
        apart = np.abs(found - expected)
        assert (apart <= bound).all()
        assert (bound <= 1e-12 * np.abs(expected).max() + 1e-12 * scale + 1e-9).all()
        decided = (found > 0) == (expected > 0)
        assert (decided | (np.abs(expected) <= bound)).all()


@pytest.mark.parametrize("name", ["dropped", "logistic", "imputed"])
def test_what_scikit_learn_refuses_is_refused(name: str) -> None:
    estimator = _fitted(name)
    fused = fuse(estimator)
    for column, value in ((0, np.inf), (1, np.nan), (4, 2.5), (4, np.nan)):
        rows = _rows(3)
        rows[7, column] = value
        try:
            estimator.predict(rows)
        except ValueError:
            with pytest.raises(ContractError, match=f"column {column}: has"):
                fused.predict(Columns.of(rows))
        else:
            fused.predict(Columns.of(rows))


@pytest.mark.parametrize("name", ["logistic", "one-hot", "tree forest"])
def test_a_step_that_was_read_wrong_is_found(name: str) -> None:
    estimator = _fitted(name)
    native = _native(estimator)
    assert FusedKernel(fuse(estimator)).difference(native) == ""
    for number in (0, -1):
        wrong = fuse(estimator)
        changed = Operation(Kind.MULTIPLY, 1 + 1e-9)
        wrong.features[number] = wrong.features[number].then(changed)
        if isinstance(wrong, FusedLinear):
            linear = read_linear(estimator[-1])
            wrong._sums = sums(wrong.features, linear.weights, linear.offset, num_sources=6)
        else:
            wrong._program = columns_of(wrong.features, num_sources=6)
        assert "differ from the library's" in FusedKernel(wrong).difference(native)


def _native(estimator: Any) -> Any:
    from augury.models.flavors.sklearn import SklearnModel
    from augury.models.signature import InputColumn, Signature, Task

    inputs = tuple(InputColumn(name=f"f{number}", type="double") for number in range(6))
    task, classes = Task.REGRESSION, ()
    if hasattr(estimator, "classes_"):
        classes = tuple(range(len(estimator.classes_)))
        task = Task.BINARY if len(classes) == 2 else Task.MULTICLASS
    signature = Signature(inputs=inputs, task=task, classes=classes, dtype="float64")
    return SklearnModel(estimator, signature, num_threads=1)


def test_categories_of_a_data_frame_are_those_of_its_trees(tmp_path: Path) -> None:
    rows, rng = _rows(missing=True), np.random.default_rng(2)
    words = rng.choice(["z", "a", "ü"], NUM_ROWS)
    frame = pd.DataFrame({"a": rows[:, 0], "word": pd.Categorical(words), "b": rows[:, 1]})
    estimator = HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype")
    estimator.fit(frame, (words == "a") ^ (rows[:, 0] > 0))
    joblib.dump(estimator, tmp_path / "model.joblib")
    flavor = get_flavor("sklearn")
    signature = flavor.infer(tmp_path / "model.joblib")
    assert signature.inputs[1].categories == ("a", "z", "ü")
    verdict = backends.judge(flavor, tmp_path / "model.joblib", signature)
    assert (verdict.backend, verdict.reason) == (FOREST, "")
    kernel = flavor.kernel(tmp_path / "model.joblib", signature)
    codes = np.array([["a", "z", "ü"].index(word) for word in words], dtype=float)
    found = kernel.ready(signature, num_threads=1).predict(
        np.column_stack([rows[:, 0], codes, rows[:, 1]])
    )
    assert found.tobytes() == estimator.predict_proba(frame)[:, 1].tobytes()


def test_what_is_not_fused_says_why() -> None:
    rows, labels = _rows(), _rows()[:, 0]
    for estimator, targets, why in (
        (make_pipeline(PowerTransformer(), Ridge()), labels, "PowerTransformer is no step"),
        (make_pipeline(FunctionTransformer(np.tanh), Ridge()), labels, "calls a function"),
        (LinearRegression(), np.stack([labels, labels], 1), "several targets"),
        (make_pipeline(SimpleImputer(), SGDClassifier(loss="modified_huber")), labels > 0,
         "it is a sklearn.linear_model.*SGDClassifier"),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(rows, targets)
        with pytest.raises(UnsupportedError, match=why):
            fuse(estimator)
