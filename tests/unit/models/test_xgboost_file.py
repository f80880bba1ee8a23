"""What an XGBoost file says about itself, for files of every make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augury.errors import CorruptError, InvalidError
from augury.models.flavors.xgboost import FLAVOR
from augury.models.flavors.xgboost_file import describe
from augury.models.signature import InputColumn, Signature, Task

ROWS = 300


def _frame() -> Any:
    import pandas as pd

    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "number": rng.normal(size=ROWS),
            "count": rng.integers(0, 9, ROWS),
            "flag": rng.random(ROWS) > 0.5,
            "word": pd.Categorical(rng.choice(["z", "a", "ü"], ROWS), categories=["z", "ü", "a"]),
            "code": pd.Categorical(rng.choice([30, 10], ROWS), categories=[30, 10]),
        }
    )


def _train(path: Path, target: Any = None, **parameters: Any) -> Path:
    import xgboost

    frame = _frame()
    target = frame["number"] + frame["flag"] if target is None else target
    matrix = xgboost.DMatrix(frame, target, enable_categorical=True)
    xgboost.train({"nthread": 1, **parameters}, matrix, 4).save_model(path)
    return path


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_names_types_and_categories_are_read_from_the_model(tmp_path: Path, suffix: str) -> None:
    signature = FLAVOR.infer(_train(tmp_path / f"m.{suffix}"))
    assert signature.inputs == (
        InputColumn(name="number", type="double"),
        InputColumn(name="count", type="int64"),
        InputColumn(name="flag", type="bool"),
        InputColumn(name="word", type="string", categories=("z", "ü", "a")),
        InputColumn(name="code", type="int64", categories=(30, 10)),
    )


def test_codes_predict_what_the_data_frame_predicts(tmp_path: Path) -> None:
    import xgboost

    path = _train(tmp_path / "m.ubj")
    signature = FLAVOR.infer(path)
    frame = _frame()
    columns = []
    for column in signature.inputs:
        values = frame[column.name].tolist()
        known = {value: code for code, value in enumerate(column.categories or ())}
        columns.append([known[value] for value in values] if known else values)
    matrix = np.ascontiguousarray(np.array(columns, dtype=np.float32).T)
    matrix[5, 3] = np.nan
    frame.loc[5, "word"] = None
    expected = xgboost.Booster(model_file=path).predict(
        xgboost.DMatrix(frame, enable_categorical=True)
    )
    found = FLAVOR.load(path, signature, num_threads=1).predict(matrix)
    assert found.tobytes() == expected.tobytes()


def test_a_model_without_names_gets_them_from_the_sample(tmp_path: Path) -> None:
    import xgboost

    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, 2))
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(features, features[:, 0]), 2)
    booster.save_model(tmp_path / "m.ubj")
    assert FLAVOR.infer(tmp_path / "m.ubj").names == ("f0", "f1")
    sample = {name: InputColumn(name=name, type="float") for name in ("x", "y")}
    assert FLAVOR.infer(tmp_path / "m.ubj", sample).inputs == tuple(sample.values())


def _trained_on_codes(path: Path) -> Path:
    import xgboost

    rng = np.random.default_rng(0)
    features = rng.integers(0, 4, (ROWS, 1)).astype(np.float32)
    matrix = xgboost.DMatrix(
        features, features[:, 0] == 2, feature_names=["c"], feature_types=["c"],
        enable_categorical=True,
    )  # fmt: skip
    xgboost.train({"nthread": 1}, matrix, 2).save_model(path)
    return path


def test_a_model_trained_on_bare_codes_takes_codes(tmp_path: Path) -> None:
    signature = FLAVOR.infer(_trained_on_codes(tmp_path / "m.ubj"))
    assert signature.inputs == (InputColumn(name="c", type="int64"),)


def test_an_older_model_may_have_lost_its_categories_so_somebody_must_say(tmp_path: Path) -> None:
    path = _trained_on_codes(tmp_path / "m.json")
    document = json.loads(path.read_bytes())
    document["version"] = [3, 0, 0]
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidError, match="c: a categorical input, and the model does not store"):
        FLAVOR.infer(path)
    seen = InputColumn(name="c", type="string", categories=("w", "x", "y", "z"))
    assert FLAVOR.infer(path, {"c": seen}).inputs == (seen,)


def test_early_stopping_counts_as_in_the_interface_that_saved_the_model(tmp_path: Path) -> None:
    import xgboost

    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, 3)).astype(np.float32)
    target = rng.normal(size=ROWS)
    model = xgboost.XGBRegressor(n_estimators=40, early_stopping_rounds=5, n_jobs=1)
    model.fit(
        features[:200], target[:200], eval_set=[(features[200:], target[200:])], verbose=False
    )
    model.save_model(tmp_path / "sk.ubj")
    assert model.best_iteration < 39
    found = _predict(tmp_path / "sk.ubj", features)
    assert found.tobytes() == model.predict(features).tobytes()

    native = model.get_booster()
    native.set_attr(scikit_learn=None)
    native.save_model(tmp_path / "native.ubj")
    expected = native.predict(xgboost.DMatrix(features))
    assert _predict(tmp_path / "native.ubj", features).tobytes() == expected.tobytes()
    assert found.tobytes() != expected.tobytes()


def _predict(path: Path, features: Any) -> Any:
    return FLAVOR.load(path, FLAVOR.infer(path), num_threads=1).predict(features)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"objective": "binary:logitraw"}, "gives no probability; train with binary:logistic"),
        ({"objective": "binary:hinge"}, "gives no probability"),
        (
            {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]},
            "expected one output a row, found 2",
        ),
    ],
)
def test_what_is_not_scored_is_refused_with_the_reason(
    tmp_path: Path, parameters: dict[str, Any], expected: str
) -> None:
    target = _frame()["flag"].astype(int)
    path = _train(tmp_path / "m.ubj", target, **parameters)
    with pytest.raises(InvalidError, match=expected):
        FLAVOR.infer(path)


def test_raw_output_can_be_asked_for_as_a_regression(tmp_path: Path) -> None:
    path = _train(tmp_path / "m.ubj", _frame()["flag"].astype(int), objective="binary:logitraw")
    inputs = FLAVOR.infer(_train(tmp_path / "other.ubj")).inputs
    signature = Signature(inputs=inputs, task=Task.REGRESSION)
    output = FLAVOR.load(path, signature, num_threads=1).predict(np.zeros((2, 5), np.float32))
    assert output.shape == (2,)


def test_a_signature_with_other_categories_is_refused(tmp_path: Path) -> None:
    path = _train(tmp_path / "m.ubj")
    document = FLAVOR.infer(path).to_json()
    document["inputs"][3]["categories"] = ["a", "z", "ü"]
    with pytest.raises(InvalidError, match=r"categories of word are not the model's .*: z, ü, a"):
        FLAVOR.load(path, Signature.from_json(document), num_threads=1)


def _node_points_outside(learner: dict[str, Any]) -> None:
    learner["gradient_booster"]["model"]["trees"][1]["left_children"][0] = 10_000


def _feature_is_none(learner: dict[str, Any]) -> None:
    learner["gradient_booster"]["model"]["trees"][0]["split_indices"][0] = 77


def _a_tree_is_short(learner: dict[str, Any]) -> None:
    learner["gradient_booster"]["model"]["trees"][0]["right_children"].pop()


def _a_tree_belongs_nowhere(learner: dict[str, Any]) -> None:
    learner["gradient_booster"]["model"]["tree_info"][0] = 9


def _no_objective(learner: dict[str, Any]) -> None:
    del learner["objective"]


def _a_name_too_few(learner: dict[str, Any]) -> None:
    learner["feature_names"].pop()


@pytest.mark.parametrize(
    "damage",
    [
        _node_points_outside,
        _feature_is_none,
        _a_tree_is_short,
        _a_tree_belongs_nowhere,
        _no_objective,
        _a_name_too_few,
    ],
)
def test_damage_inside_the_model_is_found_before_the_library_reads_it(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    path = _train(tmp_path / "m.json")
    document = json.loads(path.read_bytes())
    describe(json.dumps(document).encode(), path)
    damage(document["learner"])
    with pytest.raises(CorruptError, match=r"damaged|found none"):
        describe(json.dumps(document).encode(), path)


def test_a_booster_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = _train(tmp_path / "m.json")
    document = json.loads(path.read_bytes())
    document["learner"]["gradient_booster"]["name"] = "gblinear"
    with pytest.raises(InvalidError, match="found gblinear"):
        describe(json.dumps(document).encode(), path)
