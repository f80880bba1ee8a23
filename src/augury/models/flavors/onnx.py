"""ONNX graphs, through onnxruntime (the extra `augury[onnx]`).

The graph says what it takes: one matrix of numbers, or one input for each column. It does not say
what its columns mean, so names come from a sample if there is one matrix, and classes are numbered.
Nothing in a graph is code: operators of others are not loaded.

Bits must not depend on the batch, and the runtime may choose another way for another number of
rows. So every call gets the same number of rows, the last one padded, on one thread; a probe when
loading checks that a row's place does not matter either. Input and output are bound to the
matrix's own memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from augury.errors import ContractError, CorruptError, Fault, InvalidError, UnsupportedError
from augury.models.inputs import check_names, named_inputs, reconcile
from augury.models.signature import Dtype, InputColumn, Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.port import Kernel

_BLOCK_ROWS = 768  # divisible by the row tiles of the runtime's kernels
_SHIFTS = (1, 5, 129, _BLOCK_ROWS - 1)
# numpy's types and ours, by the runtime's names
_TYPES = {
    "tensor(float)": ("float32", "float"),
    "tensor(double)": ("float64", "double"),
    "tensor(int64)": ("int64", "int64"),
    "tensor(int32)": ("int32", "int32"),
    "tensor(bool)": ("bool", "bool"),
}
_FLOATS = ("tensor(float)", "tensor(double)")
# what float32 does not hold exactly
_WIDE = ("tensor(double)", "tensor(int64)", "tensor(int32)")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a graph takes and gives.

    Attributes:
        session: the runtime's.
        inputs: (name, numpy type), one for each column, or a single one for the matrix.
        columns: our columns; None: it takes a matrix and knows no names.
        num_features: columns of the matrix.
        output: name of the output that is used.
        output_type: numpy's.
        output_shape: of a block.
        dtype: of the matrix.
        block_rows: rows of one call.
    """

    session: Any
    inputs: tuple[tuple[str, str], ...]
    columns: tuple[InputColumn, ...] | None
    num_features: int
    output: str
    output_type: str
    output_shape: tuple[int, ...]
    dtype: Dtype
    block_rows: int

    @property
    def num_outputs(self) -> int:
        """Numbers a row."""
        return self.output_shape[1] if len(self.output_shape) > 1 else 1

    @property
    def task(self) -> Task:
        """What it says of itself; one number a row may be a probability for all it knows."""
        if self.num_outputs > 2:
            return Task.MULTICLASS
        return Task.BINARY if self.num_outputs == 2 else Task.REGRESSION


class OnnxModel:
    """A graph ready to predict."""

    def __init__(self, graph: Graph, signature: Signature) -> None:
        import onnxruntime

        self.signature = signature
        self.backend = f"onnxruntime {onnxruntime.__version__}"
        self._graph = graph

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`. The native code releases the GIL."""
        import numpy as np

        graph, rows = self._graph, self._graph.block_rows
        num_blocks = -(-len(matrix) // rows)
        found = np.empty((num_blocks * rows, *graph.output_shape[1:]), graph.output_type)
        for start in range(0, num_blocks * rows, rows):
            block = matrix[start : start + rows]
            if len(block) < rows:  # padded with a row of the batch, which it can take
                block = np.concatenate([block, np.repeat(block[-1:], rows - len(block), axis=0)])
            self._run(block, found[start : start + rows])
        found = found[: len(matrix)].reshape(len(matrix), graph.num_outputs)
        if self.signature.task is Task.MULTICLASS:
            return found
        return np.ascontiguousarray(found[:, -1])

    def _run(self, block: NDArray[Any], out: NDArray[Any]) -> None:
        graph = self._graph
        binding = graph.session.io_binding()
        given = self._inputs(block)
        for name, values in given.items():
            binding.bind_cpu_input(name, values)
        binding.bind_output(
            graph.output, "cpu", 0, out.dtype.type, list(out.shape), out.ctypes.data
        )
        graph.session.run_with_iobinding(binding)

    def _inputs(self, block: NDArray[Any]) -> dict[str, NDArray[Any]]:
        import numpy as np

        graph = self._graph
        if graph.columns is None:
            (name, dtype) = graph.inputs[0]
            return {name: np.ascontiguousarray(block, dtype)}
        return {
            name: self._column(block[:, number], number, dtype)
            for number, (name, dtype) in enumerate(graph.inputs)
        }

    def _column(self, values: NDArray[Any], number: int, dtype: str) -> NDArray[Any]:
        import numpy as np

        if dtype in {"int64", "int32", "bool"} and not np.isfinite(values).all():
            fault = Fault(
                path=self.signature.names[number],
                message=f"has missing or infinite values, and the model takes {dtype}",
            )
            raise ContractError("the model refuses the rows", [fault])
        rank = self._graph.session.get_inputs()[number].shape
        column = np.ascontiguousarray(values, dtype)
        return column[:, None] if len(rank) > 1 else column

    def probe(self, path: Path) -> None:
        """Checks that a row's bits depend neither on its place nor on its neighbours.

        Raises:
            InvalidError: they do; the model cannot be used.
        """
        import numpy as np

        rng = np.random.default_rng(0)
        rows = self._graph.block_rows
        base = np.round(rng.normal(size=(rows, self.signature.num_features)), 2)
        if any(dtype in {"int64", "int32", "bool"} for _, dtype in self._graph.inputs):
            base = np.abs(np.round(base))
        base = base.astype(self.signature.dtype)
        expected = self.predict(base)
        for shift in _SHIFTS:
            moved = self.predict(np.roll(base, shift, axis=0))
            if not np.array_equal(moved, np.roll(expected, shift, axis=0), equal_nan=True):
                raise InvalidError(
                    f"model {path}: a row's prediction depends on the rows beside it in the batch, "
                    "so a result would depend on how the data is cut; such graphs are not scored"
                )


class OnnxFlavor:
    """The format; see `Flavor`."""

    name = "onnx"
    trusted_only = False
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    def native_dtype(self, path: Path) -> Dtype:
        """See `Flavor.native_dtype`."""
        return _graph(path).dtype

    def load(self, path: Path, signature: Signature, *, num_threads: int) -> OnnxModel:
        """Loads a graph; it computes on the calling thread, whatever `num_threads` says."""
        graph = _graph(path)
        _check(graph, signature, path)
        model = OnnxModel(graph, signature)
        model.probe(path)
        return model

    def kernel(self, path: Path, signature: Signature) -> Kernel:
        """None scores graphs."""
        raise UnsupportedError("it is an ONNX graph, which onnxruntime scores")

    def infer(self, path: Path, sample: Mapping[str, InputColumn] | None = None) -> Signature:
        """Columns as the graph has them, or the sample; classes are numbered."""
        graph = _graph(path)
        inputs = named_inputs(graph.columns, graph.num_features, sample, path)
        classes = graph.num_outputs if graph.task is not Task.REGRESSION else 0
        signature = Signature(
            inputs=reconcile(inputs, sample, path),
            task=graph.task,
            classes=tuple(range(classes)),
            dtype=graph.dtype,
        )
        signature.check()
        return signature


FLAVOR = OnnxFlavor()


def _check(graph: Graph, signature: Signature, path: Path) -> None:
    """An explicit signature must fit the graph; one number a row may be a probability."""
    names = tuple(column.name for column in graph.columns or ())
    check_names(names, graph.num_features, signature, path)
    found = (signature.task, len(signature.classes))
    expected = (graph.task, graph.num_outputs if graph.task is not Task.REGRESSION else 0)
    allowed = {expected, (Task.BINARY, 2)} if graph.num_outputs == 1 else {expected}
    if found not in allowed:
        raise InvalidError(
            f"model {path}: the signature says {found[0]} with {found[1]} classes, the graph "
            f"is {expected[0]} with {expected[1]}"
        )


# --- the graph ------------------------------------------------------------------------------------


def _graph(path: Path) -> Graph:
    session = _session(path)
    given = session.get_inputs()
    for each in given:
        if each.type not in _TYPES:
            raise InvalidError(
                f"model {path}: its input {each.name} takes {each.type}; expected numbers "
                f"({', '.join(_TYPES)}): encode text before the graph"
            )
    output = _output(session, path)
    matrix = _matrix_columns(given)
    rows = _rows(given[0].shape)
    inputs = tuple((each.name, _TYPES[each.type][0]) for each in given)
    graph = Graph(
        session=session,
        inputs=inputs,
        columns=None if matrix else _columns(given, path),
        num_features=matrix or len(given),
        output=output.name,
        output_type=_TYPES[output.type][0],
        output_shape=(rows,),
        dtype="float64" if any(each.type in _WIDE for each in given) else "float32",
        block_rows=rows,
    )
    return _with_shape(graph, path)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InvalidError(
            f"model {path}: expected the package onnxruntime, which is not installed; install it "
            "with `pip install 'augury[onnx]'`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it has to say is in the error
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except OSError:
        raise
    except Exception as error:  # the runtime's errors have no root of their own
        raise CorruptError(
            f"model {path} cannot be loaded by onnxruntime: {str(error)[:300]}"
        ) from error


def _matrix_columns(given: list[Any]) -> int:
    """Columns of the one matrix that a graph takes; 0: it takes columns one by one."""
    shape = given[0].shape
    if len(given) == 1 and len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 1:
        return int(shape[1])
    return 0


def _columns(given: list[Any], path: Path) -> tuple[InputColumn, ...]:
    for each in given:
        if len(each.shape) not in {1, 2} or (len(each.shape) == 2 and each.shape[1] != 1):
            raise InvalidError(
                f"model {path}: its input {each.name} has the shape {each.shape}; expected one "
                "matrix [rows, features] with the number of features, or columns [rows, 1]"
            )
    return tuple(InputColumn(name=each.name, type=_TYPES[each.type][1]) for each in given)


def _rows(shape: list[Any]) -> int:
    """Rows of a call: as many as the graph was made for, if it says."""
    return shape[0] if isinstance(shape[0], int) and shape[0] > 0 else _BLOCK_ROWS


def _output(session: Any, path: Path) -> Any:
    """The output with the numbers; labels beside are not asked for."""
    outputs = session.get_outputs()
    floats = [each for each in outputs if each.type in _FLOATS]
    named = [each for each in floats if "prob" in each.name.lower()]
    chosen = named if len(named) == 1 else floats
    if len(chosen) == 1:
        return chosen[0]
    found = ", ".join(f"{each.name} ({each.type})" for each in outputs)
    hint = ""
    if any(each.type.startswith("seq(map") for each in outputs):
        hint = "; convert it with the option zipmap=False"
    raise InvalidError(
        f"model {path}: expected one output of floats, or one named probabilities, found "
        f"{found}{hint}"
    )


def _with_shape(graph: Graph, path: Path) -> Graph:
    """The graph with its output's shape, from one call: shapes in the file may be left open."""
    import numpy as np

    zeros = np.zeros((graph.block_rows, graph.num_features))
    names = graph.session.get_inputs()
    feed = {}
    for number, (name, dtype) in enumerate(graph.inputs):
        column = zeros if graph.columns is None else zeros[:, number : number + 1]
        column = column[:, 0] if len(names[number].shape) == 1 else column
        feed[name] = np.ascontiguousarray(column, dtype)
    try:
        shape = graph.session.run([graph.output], feed)[0].shape
    except Exception as error:  # the runtime's errors have no root of their own
        raise InvalidError(f"model {path} fails on a row of zeros: {str(error)[:300]}") from error
    if len(shape) not in {1, 2} or shape[0] != graph.block_rows or 0 in shape:
        raise InvalidError(
            f"model {path}: expected an output of numbers for each row, found the shape {shape} "
            f"for {graph.block_rows} rows"
        )
    return replace(graph, output_shape=tuple(shape))
