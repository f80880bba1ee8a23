"""The forest kernel against LightGBM itself: every bit of the predictions."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import forest_world as world
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest

from augury.errors import InvalidError, UnsupportedError
from augury.models import backends
from augury.models.flavors import get_flavor
from augury.models.forest import FOREST, available, from_lightgbm, verify
from augury.models.lightgbm_file import read_file
from augury.models.signature import Signature

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "binary": ("two", {"objective": "binary"}),
    "binary scaled": ("two", {"objective": "binary", "sigmoid": 0.7}),
    "multiclass": ("5", {"objective": "multiclass", "num_class": 5}),
    "one against rest": ("5", {"objective": "multiclassova", "num_class": 5}),
    "regression": ("real", {}),
    "square roots": ("positive", {"reg_sqrt": True}),
    "l1": ("real", {"objective": "l1"}),
    "huber": ("real", {"objective": "huber"}),
    "fair": ("real", {"objective": "fair"}),
    "quantile": ("real", {"objective": "quantile"}),
    "mape": ("real", {"objective": "mape"}),
    "poisson": ("positive", {"objective": "poisson"}),
    "gamma": ("positive", {"objective": "gamma"}),
    "tweedie": ("positive", {"objective": "tweedie"}),
    "cross entropy": ("unit", {"objective": "cross_entropy"}),
    "cross entropy lambda": ("unit", {"objective": "cross_entropy_lambda"}),
    "forest": (
        "two", {"objective": "binary", "boosting": "rf", "bagging_freq": 1,
                "bagging_fraction": 0.6},
    ),
    "dart": ("two", {"objective": "binary", "boosting": "dart"}),
    "no missing values": ("two", {"objective": "binary", "use_missing": False}),
    "large": ("real", {"num_leaves": 600, "min_data_in_leaf": 1}),
    "stumps": ("real", {"num_leaves": 2}),
}  # fmt: skip


def _train(kind: str, parameters: dict[str, Any], *, zeros: bool = True, **data: Any) -> Any:
    features = world.features(missing=True)
    if zeros:
        features[::3, 1] = 0
    settings = {"num_threads": 1, "verbosity": -1, **parameters}
    dataset = lightgbm.Dataset(features, world.target(kind, features), **data)
    return lightgbm.train(settings, dataset, 8)


def _same(booster: Any) -> None:
    forest = from_lightgbm(read_file(booster.model_to_string().encode()))
    predict = world.quietly(lambda matrix: booster.predict(matrix, num_threads=1))
    assert verify(forest, predict, dtype="float64") is None
    rows = world.features(missing=True, seed=4)
    # what LightGBM takes for zero, and what it just does not
    near = [0.0, -0.0, 1e-35, -1e-35, np.float64(np.float32(1e-35)), 1.1e-35, -1.1e-35, 1e-36]
    rows[:800, 1] = np.tile(near, 100)
    assert forest.predict(rows).tobytes() == predict(rows).tobytes()


@pytest.mark.parametrize("name", CASES)
def test_every_objective_and_booster(name: str) -> None:
    _same(_train(*CASES[name]))


def test_ranking() -> None:
    group = [100] * (world.NUM_ROWS // 100)
    _same(_train("two", {"objective": "lambdarank"}, group=group))


@pytest.mark.parametrize("max_cat_to_onehot", [1, 100])
def test_categorical_splits(max_cat_to_onehot: int) -> None:
    features = world.features(missing=True)
    features[:, 2] = np.random.default_rng(3).integers(0, 40, len(features))
    labels = (np.nan_to_num(features[:, 2]) % 7 > 3) ^ (world.score(features) > 0)
    booster = lightgbm.train(
        {"objective": "binary", "max_cat_to_onehot": max_cat_to_onehot, "cat_smooth": 1,
         "min_data_per_group": 5, "num_threads": 1, "verbosity": -1, "num_leaves": 63},
        lightgbm.Dataset(features, labels, categorical_feature=[2]), 10,
    )  # fmt: skip
    assert "num_cat=0" not in booster.model_to_string().partition("Tree=1")[0]
    _same(booster)
    forest = from_lightgbm(read_file(booster.model_to_string().encode()))
    rows = np.repeat(world.features(missing=False)[:20], 100, axis=0)
    rows[:, 2] = np.tile([-1.5, -1, -0.999, -0.3, -1e-300, 3.7, 254.9, 255, 1e9, 3e9], 200)
    assert forest.predict(rows).tobytes() == booster.predict(rows).tobytes()


def test_what_is_not_supported_says_why() -> None:
    for parameters, why in (
        ({"linear_tree": True}, "its leaves are linear models"),
        ({"zero_as_missing": True}, "takes zeros for missing values"),
    ):
        booster = _train("real", parameters)
        with pytest.raises(UnsupportedError, match=why):
            from_lightgbm(read_file(booster.model_to_string().encode()))


def test_linear_leaves_are_refused(tmp_path: Path) -> None:
    _train("real", {"linear_tree": True}).save_model(tmp_path / "model.txt")
    with pytest.raises(InvalidError, match="its leaves are linear models"):
        get_flavor("lightgbm").infer(tmp_path / "model.txt")


@cache
def _frame() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    rows = 2000
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=rows),
            "word": pd.Categorical(rng.choice(["z", "a", "ü"], rows), categories=["z", "ü", "a"]),
            "code": pd.Categorical(rng.choice([3, 1, 7], rows)),
            "n": rng.integers(0, 9, rows),
        }
    )
    return frame, ((frame["word"] == "a") ^ (frame["a"] > 0)).astype(int)


def _on_frame(folder: Path) -> Path:
    frame, labels = _frame()
    settings = {"objective": "binary", "min_data_per_group": 5, "cat_smooth": 1, "verbosity": -1}
    booster = lightgbm.train({**settings, "num_threads": 1}, lightgbm.Dataset(frame, labels), 10)
    booster.save_model(folder / "model.lgb")
    return folder / "model.lgb"


def test_categories_of_a_data_frame_are_the_signature_s(tmp_path: Path) -> None:
    path, flavor = _on_frame(tmp_path), get_flavor("lightgbm")
    signature = flavor.infer(path)
    assert signature.names == ("a", "word", "code", "n")
    assert signature.inputs[1].categories == ("z", "ü", "a")
    assert signature.inputs[2].categories == (1, 3, 7)
    assert backends.judge(flavor, path, signature).backend == FOREST
    frame, _ = _frame()
    matrix = frame.assign(word=frame["word"].cat.codes, code=frame["code"].cat.codes).to_numpy(
        float
    )
    found = flavor.kernel(path, signature).ready(signature, num_threads=1).predict(matrix)
    expected = lightgbm.Booster(model_file=path).predict(frame)
    assert found.tobytes() == expected.tobytes()
    document = signature.to_json()
    document["inputs"][1]["categories"] = ["a", "z", "ü"]
    with pytest.raises(InvalidError, match=r"categories of word are not the model's .* z, ü, a"):
        flavor.load(path, Signature.from_json(document, dtype="float64"), num_threads=1)


def test_a_pickled_wrapper_with_categories_is_refused_with_the_way_out(tmp_path: Path) -> None:
    frame, labels = _frame()
    wrapper = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbosity=-1).fit(frame, labels)
    joblib.dump(wrapper, tmp_path / "model.joblib")
    with pytest.raises(InvalidError, match=r"save its booster as text"):
        get_flavor("sklearn").infer(tmp_path / "model.joblib")


def test_an_early_stopped_wrapper_uses_its_best_trees(tmp_path: Path) -> None:
    features = world.features(missing=True)
    labels = world.target("two", features)
    wrapper = lightgbm.LGBMClassifier(n_estimators=80, learning_rate=0.9, n_jobs=1, verbosity=-1)
    wrapper.fit(
        features[:1000], labels[:1000], eval_X=features[1000:], eval_y=labels[1000:],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )  # fmt: skip
    assert wrapper.best_iteration_ < 80
    joblib.dump(wrapper, tmp_path / "model.joblib")
    flavor = get_flavor("sklearn")
    signature = flavor.infer(tmp_path / "model.joblib")
    verdict = backends.judge(flavor, tmp_path / "model.joblib", signature)
    assert (verdict.backend, verdict.reason) == (FOREST, "")
