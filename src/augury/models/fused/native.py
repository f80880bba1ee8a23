"""The compiled passes: a small C library, loaded with ctypes, which releases the GIL.

It is built when Augury is installed (`scripts/build_native.py`). Where that was not possible the
package works without it: `available()` is False, `reason()` says why, and models are scored by
scikit-learn itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import LimitError
from augury.models.compiled import CompiledLibrary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.columns import Columns

#: what `fused_instructions` answers
INSTRUCTIONS = ("baseline", "AVX2")
_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_int64
# enum column_type
_TYPES = {
    name: number
    for number, name in enumerate(
        ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
         "uint64")
    )
}  # fmt: skip
_TYPES["bool"] = _TYPES["uint8"]


class Column(ctypes.Structure):
    """`column` of native/fused.h, field for field."""

    _fields_ = (("data", _POINTER), ("stride", _SIZE), ("missing", _POINTER), ("type", _SIZE))


class Step(ctypes.Structure):
    """`operation` of native/fused.h."""

    _fields_ = (("a", ctypes.c_double), ("b", ctypes.c_double), ("kind", _SIZE))


class Term(ctypes.Structure):
    """`term` of native/fused.h."""

    _fields_ = tuple(
        (name, _SIZE)
        for name in (
            "source", "first_operation", "num_operations", "first_key", "num_keys", "direct",
            "first_number", "first_flag", "output",
        )
    )  # fmt: skip


class ProgramStruct(ctypes.Structure):
    """`program` of native/fused.h."""

    _fields_ = (
        ("num_terms", _SIZE), ("num_outputs", _SIZE), ("num_sources", _SIZE), ("terms", _POINTER),
        ("operations", _POINTER), ("keys", _POINTER), ("numbers", _POINTER), ("flags", _POINTER),
        ("offset", _POINTER),
    )  # fmt: skip


def _declare(library: ctypes.CDLL) -> None:
    arguments = (_POINTER, _POINTER, _SIZE, _POINTER, _POINTER, ctypes.c_int)
    library.fused_margins.argtypes = arguments
    library.fused_features.argtypes = arguments
    library.fused_features.restype = None


_COMPILED = CompiledLibrary(Path(__file__).with_name("_fused.so"), "fused", _declare)
available = _COMPILED.available
reason = _COMPILED.reason
library = _COMPILED.get


def instructions() -> str:
    """The instruction set that this machine uses: `AVX2`."""
    return INSTRUCTIONS[library().fused_instructions()]


def margins(
    program: Any, columns: Columns, out: NDArray[np.float64], *, instructions: str
) -> NDArray[np.uint8]:
    """Writes the sums into `out`; what was refused, by column.

    Args:
        program: a `ProgramStruct`, whose arrays outlive the call.
        columns: as many as the program's sources.
        out: `(num_rows, num_outputs)`, C-contiguous.
        instructions: use no better instruction set than this one.
    """
    given, refused = _given(columns)
    failed = library().fused_margins(
        ctypes.addressof(program), ctypes.addressof(given), len(columns), out.ctypes.data,
        refused.ctypes.data, INSTRUCTIONS.index(instructions),
    )  # fmt: skip
    if failed:
        raise LimitError("no memory is left to score with")
    return refused


def features(
    program: Any, columns: Columns, out: NDArray[np.float64], *, instructions: str
) -> NDArray[np.uint8]:
    """Writes the features into `out`, `(num_outputs, num_rows)`; what was refused, by column."""
    given, refused = _given(columns)
    library().fused_features(
        ctypes.addressof(program), ctypes.addressof(given), len(columns), out.ctypes.data,
        refused.ctypes.data, INSTRUCTIONS.index(instructions),
    )  # fmt: skip
    return refused


def _given(columns: Columns) -> tuple[Any, NDArray[np.uint8]]:
    import numpy as np

    pairs: Sequence[Any] = list(zip(columns.values, columns.missing, strict=True))
    given = (Column * len(pairs))(
        *(
            Column(
                data=values.ctypes.data,
                stride=values.strides[0],
                missing=None if missing is None else missing.ctypes.data,
                type=_TYPES[values.dtype.name],
            )
            for values, missing in pairs
        )
    )
    return given, np.zeros(len(pairs), dtype=np.uint8)
