"""What the native code is given: features as terms over flat arrays, all indices within them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from augury.models.fused import native
from augury.models.fused.features import Feature, Kind, Operation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.columns import Columns


class Program:
    """Terms, ready to run; threads may run it at once.

    Args:
        num_sources: columns of the input.
        num_outputs: sums, or features.
        offset: `(num_outputs,)`, added last to sums.
    """

    def __init__(self, num_sources: int, num_outputs: int, offset: NDArray[np.float64]) -> None:
        self.num_sources = num_sources
        self.num_outputs = num_outputs
        self._offset = offset
        self._terms: list[native.Term] = []
        self._operations: list[native.Step] = []
        self._keys: list[NDArray[np.float64]] = []
        self._numbers: list[NDArray[np.float64]] = []
        self._flags: list[NDArray[np.uint8]] = []
        self._kept: tuple[Any, ...] = ()
        self._struct = native.ProgramStruct()

    def add(self, feature: Feature, numbers: NDArray[np.float64], *, output: int = 0) -> None:
        """Adds a term.

        Args:
            feature: where its value comes from; of a lookup, keys and flags only count.
            numbers: `(num_outputs,)` weights, or with a lookup `(len(keys) + 2, num_outputs)`; for
                features one number instead of `num_outputs`.
            output: column of the features.
        """
        assert 0 <= feature.source < self.num_sources
        table = feature.lookup
        self._terms.append(
            native.Term(
                source=feature.source,
                first_operation=len(self._operations),
                num_operations=len(feature.operations),
                first_key=_length(self._keys),
                num_keys=-1 if table is None else len(table.keys),
                direct=table is not None and _is_direct(table.keys),
                first_number=_length(self._numbers),
                first_flag=_length(self._flags),
                output=output,
            )
        )
        self._operations += [native.Step(o.a, o.b, o.kind) for o in feature.operations]
        self._numbers.append(numbers.ravel())
        if table is not None:
            self._keys.append(table.keys)
            self._flags.append(table.flags)

    def finish(self) -> Program:
        """Lays the arrays out; call it once, after the last `add`."""
        import numpy as np

        arrays = [
            np.ascontiguousarray(np.concatenate([np.zeros(0), *parts]), dtype=dtype)
            for parts, dtype in (
                (self._keys, np.float64), (self._numbers, np.float64), (self._flags, np.uint8)
            )
        ]  # fmt: skip
        terms = (native.Term * len(self._terms))(*self._terms)
        operations = (native.Step * len(self._operations))(*self._operations)
        offset = np.ascontiguousarray(self._offset, dtype=np.float64)
        self._kept = (*arrays, terms, operations, offset)
        self._struct = native.ProgramStruct(
            len(self._terms), self.num_outputs, self.num_sources, ctypes.addressof(terms),
            ctypes.addressof(operations), *(each.ctypes.data for each in arrays),
            offset.ctypes.data,
        )  # fmt: skip
        return self

    def margins(
        self, columns: Columns, *, instructions: str
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Sums, `(num_rows, num_outputs)`, and what was refused, by column of the input."""
        import numpy as np

        out = np.empty((len(columns), self.num_outputs))
        return out, native.margins(self._struct, columns, out, instructions=instructions)

    def features(
        self, columns: Columns, *, instructions: str
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Features, `(num_rows, num_outputs)` column by column, and what was refused."""
        import numpy as np

        out = np.empty((self.num_outputs, len(columns)))
        return out.T, native.features(self._struct, columns, out, instructions=instructions)


def sums(
    features: Sequence[Feature], weights: NDArray[np.float64], offset: NDArray[np.float64], *,
    num_sources: int,
) -> Program:  # fmt: skip
    """The program of a weighted sum; `weights`: `(num_features, num_outputs)`."""
    program = Program(num_sources, weights.shape[1], offset)
    for feature, numbers in _merged(features, weights):
        program.add(feature, numbers)
    return program.finish()


def magnitudes(
    features: Sequence[Feature], weights: NDArray[np.float64], offset: NDArray[np.float64], *,
    num_sources: int,
) -> Program:  # fmt: skip
    """The program of |z_1 w_1| + ... + |z_n w_n| + |b|."""
    import numpy as np

    positive = [feature.then(Operation(Kind.MAGNITUDE)) for feature in features]
    return sums(positive, np.abs(weights), np.abs(offset), num_sources=num_sources)


def columns_of(features: Sequence[Feature], *, num_sources: int) -> Program:
    """The program that makes the features themselves."""
    import numpy as np

    program = Program(num_sources, len(features), np.zeros(len(features)))
    for output, feature in enumerate(features):
        table = feature.lookup
        program.add(feature, np.zeros(0) if table is None else table.values, output=output)
    return program.finish()


_Term = tuple[Feature, "NDArray[np.float64]"]


def _merged(features: Sequence[Feature], weights: NDArray[np.float64]) -> Iterator[_Term]:
    """Terms of a sum: what one lookup gives to several features is added up in its table."""
    import numpy as np

    tables: dict[Any, _Term] = {}
    for feature, weight in zip(features, weights, strict=True):
        table = feature.lookup
        if table is None:
            yield feature, weight
            continue
        key = (feature.source, feature.operations, table.keys.tobytes())
        if key not in tables:
            empty = np.zeros((len(table.values), weights.shape[1]))
            tables[key] = (replace(feature, lookup=replace(table, flags=table.flags * 0)), empty)
        merged, numbers = tables[key]
        numbers += table.values[:, None] * weight
        assert merged.lookup is not None
        np.bitwise_or(merged.lookup.flags, table.flags, out=merged.lookup.flags)
    yield from tables.values()


def _length(arrays: Sequence[NDArray[Any]]) -> int:
    return sum(len(array) for array in arrays)


def _is_direct(keys: NDArray[np.float64]) -> bool:
    """True for 0, 1, 2, ..."""
    import numpy as np

    return 0 < len(keys) < 2**31 and bool(np.array_equal(keys, np.arange(len(keys))))
