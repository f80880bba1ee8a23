"""The forest kernel against XGBoost itself: every bit of margins and predictions."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import forest_world as world
import numpy as np
import pytest
import xgboost

from augury.errors import CorruptError, UnsupportedError
from augury.models.forest import available, load_xgboost, verify

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")

OBJECTIVES = {
    "binary:logistic": "two", "binary:logitraw": "two", "binary:hinge": "two",
    "multi:softprob": "5", "multi:softmax": "5", "reg:logistic": "unit",
    "reg:squarederror": "real", "reg:squaredlogerror": "positive", "reg:absoluteerror": "real",
    "reg:pseudohubererror": "real", "reg:quantileerror": "real", "count:poisson": "positive",
    "reg:gamma": "positive", "reg:tweedie": "positive", "survival:aft": "positive",
    "survival:cox": "positive", "rank:ndcg": "two", "rank:map": "two", "rank:pairwise": "two",
}  # fmt: skip


def _train(objective: str, rounds: int = 6, *, missing: bool = True, **parameters: Any) -> Any:
    features = world.features(missing=missing).astype(np.float32)
    labels = world.target(OBJECTIVES[objective], features)
    matrix = xgboost.DMatrix(features, labels)
    if objective.startswith("rank:"):
        matrix.set_group([100] * (world.NUM_ROWS // 100))
    if objective == "survival:aft":
        matrix.set_float_info("label_lower_bound", labels)
        matrix.set_float_info("label_upper_bound", 1.5 * labels)
    if objective.startswith("multi:"):
        parameters["num_class"] = 5
    if objective == "reg:quantileerror":
        parameters.setdefault("quantile_alpha", 0.3)
    settings = {"objective": objective, "nthread": 1, "max_depth": 5, **parameters}
    return xgboost.train(settings, matrix, rounds)


def _predict(booster: Any, matrix: Any, kind: str = "value") -> Any:
    found = booster.inplace_predict(
        matrix, validate_features=False, strict_shape=True, predict_type=kind
    )
    return found[:, 0] if kind == "value" and found.shape[1] == 1 else found


def _check(booster: Any, *, dtype: str = "float32", form: str = "ubj") -> None:
    forest = load_xgboost(bytes(booster.save_raw(form)))
    reference = world.quietly(lambda matrix: _predict(booster, matrix))
    assert verify(forest, reference, dtype=dtype) is None
    features = world.features(missing=True, seed=5).astype(np.float32)
    margins = _predict(booster, features, "margin")
    assert forest.predict_margin(features).tobytes() == margins.tobytes()


@pytest.mark.parametrize("base_score", [None, 0.3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(objective: str, base_score: float | None) -> None:
    parameters = {} if base_score is None else {"base_score": base_score}
    booster = _train(objective, **parameters)
    if objective == "multi:softmax":
        booster.set_param({"objective": "multi:softprob"})
    _check(booster, form="json" if base_score else "ubj")


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 7, 8, 9, 12, 16])
def test_every_depth(depth: int, missing: bool) -> None:
    parameters = {"grow_policy": "lossguide", "max_leaves": 40} if depth == 0 else {}
    booster = _train(
        "binary:logistic", missing=missing, max_depth=depth, min_child_weight=0, **parameters
    )
    _check(booster)
    _check(booster, dtype="float64")


@pytest.mark.parametrize("method", ["exact", "approx", "hist"])
def test_every_way_of_choosing_thresholds(method: str) -> None:
    _check(_train("reg:squarederror", rounds=30, tree_method=method, max_bin=1024))


def test_forests_and_samples() -> None:
    _check(_train("multi:softprob", rounds=3, num_parallel_tree=4, subsample=0.6))


def test_leaf_wise_trees_of_many_leaves() -> None:
    _check(_train(
        "reg:squarederror", grow_policy="lossguide", max_leaves=900, max_depth=0, min_child_weight=0
    ))  # fmt: skip


def test_many_rows_of_ordinary_data() -> None:
    booster = _train("binary:logistic", rounds=40, max_depth=6)
    forest = load_xgboost(bytes(booster.save_raw("ubj")))
    matrix = np.concatenate([world.features(missing=True, seed=seed) for seed in range(40)])
    matrix = matrix.astype(np.float32)
    assert forest.predict(matrix).tobytes() == _predict(booster, matrix).tobytes()
    assert forest.predict(matrix, num_threads=2).tobytes() == forest.predict(matrix).tobytes()


@cache
def _categorical(max_cat_to_onehot: int) -> Any:
    features = world.features(missing=True).astype(np.float32)
    rng = np.random.default_rng(3)
    features[:, 2] = rng.integers(0, 40, len(features))
    features[:, 4] = rng.integers(0, 3, len(features))
    features[rng.random(features.shape) < 0.05] = np.nan
    labels = (np.nan_to_num(features[:, 2]) % 7 > 3) ^ (world.score(features) > 0)
    kinds = ["c" if column in (2, 4) else "q" for column in range(world.NUM_FEATURES)]
    matrix = xgboost.DMatrix(features, labels, feature_types=kinds, enable_categorical=True)
    return xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "max_depth": 10,
         "max_cat_to_onehot": max_cat_to_onehot}, matrix, 10,
    )  # fmt: skip


@pytest.mark.parametrize("max_cat_to_onehot", [1, 100])
def test_categorical_splits(max_cat_to_onehot: int) -> None:
    booster = _categorical(max_cat_to_onehot)
    forest = load_xgboost(bytes(booster.save_raw("ubj")))
    reference = world.quietly(lambda matrix: _predict(booster, matrix))
    assert verify(forest, reference) is None
    matrix = world.features(missing=True, seed=8).astype(np.float32)
    matrix[:, 2] = np.random.default_rng(1).integers(-2, 300, len(matrix))
    assert forest.predict(matrix).tobytes() == reference(matrix).tobytes()


def test_an_early_stopped_scikit_learn_model_uses_its_best_trees(tmp_path: Path) -> None:
    features = world.features(missing=True)
    labels = world.target("two", features)
    model = xgboost.XGBClassifier(
        n_estimators=60, early_stopping_rounds=2, learning_rate=1.0, n_jobs=1
    )
    model.fit(
        features[:1000], labels[:1000], eval_set=[(features[1000:], labels[1000:])], verbose=False
    )
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    model.save_model(tmp_path / "model.ubj")
    found = load_xgboost(tmp_path / "model.ubj").predict(features.astype(np.float32))
    assert found.tobytes() == model.predict_proba(features)[:, 1].tobytes()


def test_trees_that_dart_scaled() -> None:
    booster = _train("binary:logistic", rounds=12, rate_drop=0.4, one_drop=1)
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    assert len(set(model["weight_drop"])) > 3
    _check(booster)


def test_what_is_not_supported_says_why() -> None:
    quantiles = _train("reg:quantileerror", rounds=1, quantile_alpha=[0.2, 0.7])
    document = json.loads(quantiles.save_raw("json"))
    with pytest.raises(UnsupportedError, match=r"not supported .* because .* several"):
        load_xgboost(json.dumps(document).encode())
    document["learner"]["objective"]["name"] = "reg:novel"
    with pytest.raises(UnsupportedError, match="because its objective is reg:novel"):
        load_xgboost(json.dumps(document).encode())
    document["learner"]["gradient_booster"]["name"] = "gblinear"
    with pytest.raises(UnsupportedError, match="because its booster is gblinear"):
        load_xgboost(json.dumps(document).encode())


def test_leaves_of_several_outputs_are_not_supported() -> None:
    features = world.features(missing=False)
    labels = np.stack([world.score(features, seed) for seed in (1, 2)], axis=1)
    booster = xgboost.train(
        {"multi_strategy": "multi_output_tree", "nthread": 1}, xgboost.DMatrix(features, labels), 2
    )
    with pytest.raises(UnsupportedError, match="leaves hold several outputs"):
        load_xgboost(bytes(booster.save_raw("ubj")))


def test_damaged_files_are_errors() -> None:
    raw = bytes(_train("binary:logistic", rounds=2).save_raw("json"))
    for broken in (b"", b"{}", b"nothing", raw[:-100], b'{"learner": 3}'):
        with pytest.raises(CorruptError):
            load_xgboost(broken)
    document = json.loads(raw)
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    for name, value in (("left_children", 99999), ("split_indices", 12345), ("right_children", 0)):
        kept = tree[name][0]
        tree[name][0] = value
        with pytest.raises(CorruptError):
            load_xgboost(json.dumps(document).encode())
        tree[name][0] = kept
    load_xgboost(json.dumps(document).encode())
    del tree["default_left"][-1]
    with pytest.raises(CorruptError):
        load_xgboost(json.dumps(document).encode())
