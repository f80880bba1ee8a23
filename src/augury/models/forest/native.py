"""The compiled kernel: a small C library, loaded with ctypes, which releases the GIL.

It is built when Augury is installed (`scripts/build_native.py`). Where that was not possible the
package works without it: `available()` is False, `reason()` says why, and models are scored by
their own library.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import CorruptError, LimitError, UnsupportedError
from augury.models.compiled import CompiledLibrary
from augury.models.forest.ensemble import CATEGORICAL, Ensemble, Tree, joined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: what `forest_instructions` answers
INSTRUCTIONS = ("baseline", "AVX2", "AVX-512")
_REAL = {"float32": 0, "float64": 1}
_NUM_FACTS = 8
_POINTER = ctypes.c_void_p


class _Spec(ctypes.Structure):
    """`forest_spec` of native/forest.h, field for field."""

    _fields_ = (
        ("num_trees", ctypes.c_int32),
        ("num_features", ctypes.c_int32),
        ("num_outputs", ctypes.c_int32),
        ("compare", ctypes.c_int32),
        ("accumulate", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("tree_begin", _POINTER),
        ("left", _POINTER),
        ("right", _POINTER),
        ("feature", _POINTER),
        ("threshold", _POINTER),
        ("flags", _POINTER),
        ("category_begin", _POINTER),
        ("category_bits", _POINTER),
        ("value", _POINTER),
        ("output", _POINTER),
        ("initial", _POINTER),
        ("weight", _POINTER),
        ("category_above", ctypes.c_double),
    )


def _declare(library: ctypes.CDLL) -> None:
    size, real = ctypes.c_int64, ctypes.c_float
    library.forest_build.restype = _POINTER
    library.forest_build.argtypes = (
        ctypes.POINTER(_Spec), ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t,
    )  # fmt: skip
    library.forest_free.argtypes = (_POINTER,)
    library.forest_free.restype = None
    library.forest_predict.argtypes = (_POINTER, _POINTER, ctypes.c_int, size, size, size, _POINTER)
    library.forest_describe.argtypes = (_POINTER, _POINTER)
    library.forest_describe.restype = None
    for name, arguments in (
        ("forest_sigmoid", (_POINTER, size)),
        ("forest_exp", (_POINTER, size)),
        ("forest_softmax", (_POINTER, size, size)),
        ("forest_sigmoid_double", (_POINTER, size, ctypes.c_double)),
        ("forest_softmax_double", (_POINTER, size, size)),
        ("forest_exp_double", (_POINTER, size)),
        ("forest_log1p_exp_double", (_POINTER, size)),
    ):
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = None
    for name in ("forest_logit", "forest_log"):
        getattr(library, name).argtypes = (real,)
        getattr(library, name).restype = real
    for name in ("forest_find_float", "forest_find_double"):
        getattr(library, name).argtypes = (_POINTER, size)


_COMPILED = CompiledLibrary(Path(__file__).with_name("_forest.so"), "forest", _declare)
available = _COMPILED.available
reason = _COMPILED.reason
library = _COMPILED.get


def instructions() -> str:
    """The instruction set that this machine's forests use: `AVX2`."""
    return INSTRUCTIONS[library().forest_instructions()]


class Compiled:
    """An ensemble compiled for this machine; threads may predict with it at once."""

    def __init__(self, ensemble: Ensemble, *, instructions: str = INSTRUCTIONS[-1]) -> None:
        """Compiles.

        Args:
            ensemble: what to compile; not needed afterwards.
            instructions: use no better instruction set than this one.

        Raises:
            UnsupportedError: the kernel is not there, or the ensemble is not for it.
            CorruptError: the ensemble's arrays are no trees.
        """
        ensemble.check()
        self._library = library()
        self._handle: Any = None
        self.num_features = ensemble.num_features
        self.num_outputs = ensemble.num_outputs
        self.dtype = ensemble.accumulate
        arrays = _arrays(ensemble)
        spec = _spec(ensemble, arrays)
        error = ctypes.create_string_buffer(256)
        level = INSTRUCTIONS.index(instructions)
        self._handle = self._library.forest_build(ctypes.byref(spec), level, error, len(error))
        if not self._handle:
            raise _refusal(error.value.decode())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.forest_free(self._handle)

    def predict(self, matrix: NDArray[Any], out: NDArray[Any]) -> None:
        """Writes the margins of a float32 or float64 `matrix` into the contiguous `out`."""
        rows, columns = (stride // matrix.itemsize for stride in matrix.strides)
        failed = self._library.forest_predict(
            self._handle, matrix.ctypes.data, _REAL[matrix.dtype.name], rows, columns, len(matrix),
            out.ctypes.data,
        )  # fmt: skip
        if failed:
            raise LimitError("no memory is left to score with")

    def describe(self) -> dict[str, int]:
        """Numbers about the compiled form, for people and tests."""
        facts = (ctypes.c_int64 * _NUM_FACTS)()
        self._library.forest_describe(self._handle, facts)
        names = (
            "num_groups", "size_bytes", "scratch_bytes", "num_complete", "num_programs",
            "num_tails", "num_lanes", "num_masks",
        )  # fmt: skip
        return dict(zip(names, facts, strict=True))


def _refusal(message: str) -> Exception:
    """What `forest_build` meant: some trees are whole, but too large for it."""
    kind, _, reason = message.partition(": ")
    if kind == "unsupported":
        return UnsupportedError(reason)
    if kind == "memory":
        return LimitError(f"a model's trees cannot be compiled: {reason}")
    return CorruptError(f"the model's trees cannot be compiled: {message}")


def _arrays(ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    import numpy as np

    trees = ensemble.trees
    sizes = [_size(tree) for tree in trees]
    begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    arrays = {
        "tree_begin": begin,
        "left": joined(trees, "left", np.int32),
        "right": joined(trees, "right", np.int32),
        "feature": joined(trees, "feature", np.int32),
        "threshold": joined(trees, "threshold", np.float64),
        "flags": joined(trees, "flags", np.uint8),
        "value": joined(trees, "value", np.float64),
        "output": np.array([tree.output for tree in trees], dtype=np.int32),
        "initial": np.ascontiguousarray(ensemble.initial, dtype=np.float64),
    }
    if all(tree.weight is not None for tree in trees):
        arrays["weight"] = joined(trees, "weight", np.float64)
    if (arrays["flags"] & CATEGORICAL).any():
        arrays |= _categories(ensemble, begin)
    return arrays


def _size(tree: Tree) -> int:
    """Nodes of a tree.

    Raises:
        CorruptError: its arrays have different lengths.
    """
    lengths = {len(tree.left), len(tree.right), len(tree.feature), len(tree.threshold)}
    lengths |= {len(tree.flags), len(tree.value)}
    if tree.weight is not None:
        lengths.add(len(tree.weight))
    if len(lengths) != 1:
        raise CorruptError(f"a tree's arrays have different lengths: {sorted(lengths)}")
    return lengths.pop()


def _categories(ensemble: Ensemble, begin: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    import numpy as np

    first = np.zeros(begin[-1], dtype=np.int32)
    words: list[int] = []
    for start, tree in zip(begin, ensemble.trees, strict=False):
        for node, bits in (tree.categories or {}).items():
            first[start + node] = len(words)
            words.extend(bits)
    return {"category_begin": first, "category_bits": np.array(words, dtype=np.uint32)}


def _spec(ensemble: Ensemble, arrays: dict[str, NDArray[Any]]) -> _Spec:
    """Pointers into `arrays`, which must outlive it."""
    return _Spec(
        num_trees=len(ensemble.trees),
        num_features=ensemble.num_features,
        num_outputs=ensemble.num_outputs,
        compare=_REAL[ensemble.compare],
        accumulate=_REAL[ensemble.accumulate],
        width=ensemble.width,
        category_above=ensemble.category_above,
        **{name: array.ctypes.data for name, array in arrays.items()},
    )
