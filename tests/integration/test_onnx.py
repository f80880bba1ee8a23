"""ONNX graphs of every form that is taken, against onnxruntime itself; and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from augury.errors import ContractError, CorruptError, InvalidError
from augury.models import backends
from augury.models.flavors import get_flavor
from augury.models.signature import InputColumn, Signature, Task

FLAVOR = get_flavor("onnx")
ROWS = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
FLOAT = TensorProto.FLOAT


def _save(folder: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = ()) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    versions = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _summed(folder: Path, *, width: int = 1, rows: Any = None, kind: int = FLOAT) -> Path:
    dtype = np.float64 if kind == TensorProto.DOUBLE else np.float32
    weights = np.arange(1, 3 * width + 1, dtype=dtype).reshape(3, width)
    return _save(
        folder,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", kind, [rows, 3])],
        [("y", kind, [rows, width])],
        [("w", weights)],
    )


def _columns(folder: Path, kind: int = TensorProto.INT64) -> Path:
    """a + n, from two columns."""
    nodes = [
        helper.make_node("Cast", ["n"], ["m"], to=FLOAT),
        helper.make_node("Add", ["a", "m"], ["y"]),
    ]
    inputs = [("a", FLOAT, [None, 1]), ("n", kind, [None, 1])]
    return _save(folder, nodes, inputs, [("y", FLOAT, [None, 1])])


def _load(path: Path) -> Any:
    return FLAVOR.load(path, FLAVOR.infer(path), num_threads=1)


@pytest.mark.parametrize("kind", [FLOAT, TensorProto.DOUBLE])
@pytest.mark.parametrize("rows", [None, 7])
@pytest.mark.parametrize(("width", "task"), [(1, Task.REGRESSION), (2, Task.BINARY),
                                            (3, Task.MULTICLASS)])  # fmt: skip
def test_a_matrix(tmp_path: Path, width: int, task: Task, rows: Any, kind: int) -> None:
    path = _summed(tmp_path, width=width, rows=rows, kind=kind)
    signature = FLAVOR.infer(path)
    assert signature.task is task
    assert signature.names == ("f0", "f1", "f2")
    assert signature.dtype == ("float64" if kind == TensorProto.DOUBLE else "float32")
    matrix = ROWS.astype(signature.dtype)
    expected = matrix @ np.arange(1, 3 * width + 1, dtype=matrix.dtype).reshape(3, width)
    for num_rows in (1, 7, 768, 2000):
        found = _load(path).predict(matrix[:num_rows])
        wanted = expected[:num_rows] if width == 3 else expected[:num_rows, -1]
        assert found.dtype == matrix.dtype
        assert np.allclose(found, wanted, rtol=1e-5)


def test_names_come_from_a_sample(tmp_path: Path) -> None:
    sample = {name: InputColumn(name=name, type="float") for name in "abc"}
    assert FLAVOR.infer(_summed(tmp_path), sample).names == ("a", "b", "c")


def test_one_number_may_be_a_probability_if_the_signature_says_so(tmp_path: Path) -> None:
    path = _summed(tmp_path)
    document = FLAVOR.infer(path).to_json() | {"task": "binary", "classes": ["no", "yes"]}
    model = FLAVOR.load(path, Signature.from_json(document), num_threads=1)
    assert model.predict(ROWS[:5]).shape == (5,)


def test_columns_by_name_and_type(tmp_path: Path) -> None:
    path = _columns(tmp_path)
    signature = FLAVOR.infer(path)
    assert [(each.name, each.type) for each in signature.inputs] == [("a", "float"), ("n", "int64")]
    assert signature.dtype == "float64"
    matrix = np.array([[0.5, 3.0], [1.5, -4.0]])
    assert _load(path).predict(matrix).tolist() == [3.5, -2.5]
    with pytest.raises(ContractError, match="n: has missing or infinite values"):
        _load(path).predict(np.array([[0.5, np.nan]]))


def test_the_library_scores_it_and_the_run_says_so(tmp_path: Path) -> None:
    path = _summed(tmp_path)
    verdict = backends.judge(FLAVOR, path, FLAVOR.infer(path))
    assert verdict.backend == f"onnxruntime {onnxruntime.__version__}" == backends.library("onnx")
    assert "it is an ONNX graph" in verdict.reason


def test_a_graph_whose_rows_depend_on_each_other_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["s"], axis=0),
             helper.make_node("MatMul", ["s", "w"], ["y"]),
             helper.make_node("CumSum", ["y", "zero"], ["z"])]  # fmt: skip
    constants = [("w", np.ones((3, 1), np.float32)), ("zero", np.array(0))]
    path = _save(tmp_path, nodes, [("x", FLOAT, [None, 3])], [("z", FLOAT, [None, 1])], constants)
    with pytest.raises(InvalidError, match="depends on the rows beside it"):
        _load(path)


def test_what_is_not_taken_says_why(tmp_path: Path) -> None:
    copy = [helper.make_node("Identity", ["x"], ["y"])]
    for inputs, outputs, why in (
        ([("x", TensorProto.STRING, [None, 1])], [("y", TensorProto.STRING, [None, 1])],
         "its input x takes tensor.string."),
        ([("x", FLOAT, [None, "n"])], [("y", FLOAT, [None, "n"])], "expected one matrix"),
        ([("x", TensorProto.INT64, [None, 3])], [("y", TensorProto.INT64, [None, 3])],
         "expected one output of floats"),
    ):  # fmt: skip
        with pytest.raises(InvalidError, match=why):
            FLAVOR.infer(_save(tmp_path, copy, inputs, outputs))
    total = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    path = _save(tmp_path, total, [("x", FLOAT, [None, 3])], [("y", FLOAT, [])])
    with pytest.raises(InvalidError, match="expected an output of numbers for each row"):
        FLAVOR.infer(path)


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    raw = bytearray(_summed(tmp_path, width=3).read_bytes())
    path, rng = tmp_path / "damaged.onnx", np.random.default_rng(0)
    for _ in range(60):
        broken = raw.copy()
        for place in rng.integers(0, len(raw), 2):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        with contextlib.suppress(CorruptError, InvalidError):
            _load(path)
    for length in range(0, len(raw), 5):
        path.write_bytes(raw[:length])
        with pytest.raises((CorruptError, InvalidError)):
            _load(path)
    assert onnx.checker.check_model(bytes(raw)) is None
