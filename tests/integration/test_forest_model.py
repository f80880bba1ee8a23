"""Forests as models, compared with the flavors as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import forest_world as world
import joblib
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from threadpoolctl import threadpool_limits

from augury.errors import ContractError
from augury.models.flavors import get_flavor
from augury.models.forest import (
    ForestKernel,
    ForestModel,
    available,
    from_sklearn,
    load_xgboost,
)
from augury.models.port import Model

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")


def _boosted(folder: Path, kind: str) -> Path:
    features = world.features(missing=True)
    objective = {"two": "binary:logistic", "real": "reg:squarederror"}.get(kind, "multi:softmax")
    settings = {"objective": objective, "nthread": 1, "max_depth": 5}
    if objective.startswith("multi"):
        settings["num_class"] = int(kind)
    matrix = xgboost.DMatrix(features, world.target(kind, features))
    path = folder / "model.ubj"
    xgboost.train(settings, matrix, 8).save_model(path)
    return path


def _native(flavor: str, path: Path) -> Model:
    found = get_flavor(flavor)
    names = [f"f{number}" for number in range(world.NUM_FEATURES)]
    return found.load(path, found.infer(path, _sample(names)), num_threads=1)


def _sample(names: list[str]) -> Any:
    from augury.models.signature import InputColumn

    return {name: InputColumn(name=name, type="double") for name in names}


@pytest.mark.parametrize("kind", ["two", "real", "4"])
def test_the_kernel_predicts_as_the_flavor_does(kind: str, tmp_path: Path) -> None:
    path = _boosted(tmp_path, kind)
    native = _native("xgboost", path)
    kernel = ForestKernel(load_xgboost(path))
    assert kernel.difference(native) == ""
    model = kernel.ready(native.signature, num_threads=2)
    matrix = world.features(missing=True, seed=9).astype(native.signature.dtype)
    for rows in (matrix, matrix[:1], matrix[:0]):
        found, expected = model.predict(rows), native.predict(rows)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.tobytes() == expected.tobytes()


def test_scikit_learn_models_are_scored_by_the_kernel_too(tmp_path: Path) -> None:
    features = world.features(missing=False)
    features[:, 7] = 0
    with threadpool_limits(1):
        estimator = RandomForestClassifier(9, random_state=0).fit(
            features, world.target("two", features)
        )
        joblib.dump(estimator, tmp_path / "model.joblib")
        native = _native("sklearn", tmp_path / "model.joblib")
        assert ForestKernel(from_sklearn(estimator)).difference(native) == ""


def test_a_forest_that_differs_says_how(tmp_path: Path) -> None:
    native = _native("xgboost", _boosted(tmp_path, "two"))
    (tmp_path / "other").mkdir()
    other = _boosted(tmp_path / "other", "real")
    difference = ForestKernel(load_xgboost(other)).difference(native)
    assert "rows differ from the library's predictions" in difference


def test_refused_values_are_told_by_the_column_s_name(tmp_path: Path) -> None:
    features = world.features(missing=False)
    estimator = GradientBoostingClassifier(n_estimators=2).fit(
        features, world.target("two", features)
    )
    joblib.dump(estimator, tmp_path / "model.joblib")
    native = _native("sklearn", tmp_path / "model.joblib")
    model = ForestModel(from_sklearn(estimator), native.signature)
    matrix = features.astype(np.float32)
    matrix[7, 4] = np.nan
    with pytest.raises(ContractError, match="f4: has missing or infinite values"):
        model.predict(matrix)
