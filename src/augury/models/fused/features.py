"""Features as elementwise operations on single columns: what fused pipelines are made of; pure.

A feature starts as a column of the input and takes the pipeline's steps one by one. Once its values
have been looked up among categories, there are only as many of them as there are categories, so
all later steps are applied to the table that the lookup gives, and cost nothing a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: what of its values a feature refuses; `refused` of native/fused.h
NAN, INFINITE, UNKNOWN = 1, 2, 4


class Kind(IntEnum):
    """`operation_kind` of native/fused.h, in its order."""

    SUBTRACT = 0
    DIVIDE = 1
    STANDARDIZE = 2  #: (z - a) / b
    MULTIPLY = 3
    ADD = 4
    RESCALE = 5  #: z * a + b
    CLIP = 6
    FILL = 7  #: a where z is missing
    REPLACE = 8  #: b where z is a
    IS_MISSING = 9
    IS_EQUAL = 10
    REFUSE = 11  #: notes what there is of `NAN | INFINITE` in a
    MAGNITUDE = 12


def _computed(kind: Kind) -> Any:
    """What a step computes: a function of numpy, the values, a and b."""
    return {
        Kind.SUBTRACT: lambda _, z, a, __: z - a,
        Kind.DIVIDE: lambda _, z, a, __: z / a,
        Kind.STANDARDIZE: lambda _, z, a, b: (z - a) / b,
        Kind.MULTIPLY: lambda _, z, a, __: z * a,
        Kind.ADD: lambda _, z, a, __: z + a,
        Kind.RESCALE: lambda _, z, a, b: z * a + b,
        Kind.CLIP: lambda np, z, a, b: np.clip(z, a, b),
        Kind.FILL: lambda np, z, a, __: np.where(np.isnan(z), a, z),
        Kind.REPLACE: lambda np, z, a, b: np.where(z == a, b, z),
        Kind.IS_MISSING: lambda np, z, _, __: np.isnan(z).astype(float),
        Kind.IS_EQUAL: lambda _, z, a, __: (z == a).astype(float),
        Kind.REFUSE: lambda _, z, __, ___: z,
        Kind.MAGNITUDE: lambda np, z, _, __: np.abs(z),
    }[kind]


@dataclass(frozen=True)
class Operation:
    """One elementwise step."""

    kind: Kind
    a: float = 0.0
    b: float = 0.0

    def on(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The step on an array, rounded as the native code rounds it."""
        import numpy as np

        with np.errstate(all="ignore"):
            found: NDArray[np.float64] = _computed(self.kind)(np, values, self.a, self.b)
        return found

    def refusals(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """What of the values the step refuses, one by one; only `REFUSE` refuses any."""
        import numpy as np

        if self.kind is not Kind.REFUSE:
            return np.zeros(len(values), dtype=np.uint8)
        found = np.where(np.isnan(values), NAN, np.where(np.isinf(values), INFINITE, 0))
        return (found & int(self.a)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """What a value gives: by the key that it equals, or as an unknown or a missing one.

    Attributes:
        keys: increasing.
        values: `(len(keys) + 2,)`: of each key, of unknown values, of missing ones.
        flags: the same: what of them is refused.
    """

    keys: NDArray[np.float64]
    values: NDArray[np.float64]
    flags: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of what a pipeline's step gives.

    Attributes:
        source: column of the input.
        operations: in their order, before the lookup.
        lookup: of what the operations gave; None: it is the feature itself.
    """

    source: int
    operations: tuple[Operation, ...] = ()
    lookup: Lookup | None = None

    def then(self, *operations: Operation) -> Feature:
        """The feature after further steps."""
        feature = self
        for operation in operations:
            feature = feature._after(operation)
        return feature

    def _after(self, operation: Operation) -> Feature:
        table = self.lookup
        if table is None:
            return replace(self, operations=_joined(self.operations, operation))
        flags = table.flags | operation.refusals(table.values)
        return replace(self, lookup=replace(table, values=operation.on(table.values), flags=flags))

    def of(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """The feature of each value of its source, and what of it is refused."""
        import numpy as np

        flags = np.zeros(len(values), dtype=np.uint8)
        for operation in self.operations:
            flags |= operation.refusals(values)
            values = operation.on(values)
        if self.lookup is None:
            return values, flags
        rows = places(self.lookup.keys, values)
        return self.lookup.values[rows], flags | self.lookup.flags[rows]

    def looked_up(self, lookup: Lookup) -> Feature:
        """The feature after a lookup; of a lookup, the table of both."""
        if self.lookup is None:
            return replace(self, lookup=lookup)
        rows = places(lookup.keys, self.lookup.values)
        return replace(
            self,
            lookup=replace(
                self.lookup,
                values=lookup.values[rows],
                flags=self.lookup.flags | lookup.flags[rows],
            ),
        )


# what leaves infinite values infinite, or makes them missing
_KEEPS_INFINITE = frozenset(
    {Kind.SUBTRACT, Kind.DIVIDE, Kind.STANDARDIZE, Kind.MULTIPLY, Kind.ADD, Kind.RESCALE,
     Kind.FILL}
)  # fmt: skip
_PAIRS = {(Kind.SUBTRACT, Kind.DIVIDE): Kind.STANDARDIZE, (Kind.MULTIPLY, Kind.ADD): Kind.RESCALE}


def _joined(before: tuple[Operation, ...], operation: Operation) -> tuple[Operation, ...]:
    """Two operations in one pass where there is one for both; no check that a later one makes."""
    if operation.kind is Kind.REFUSE:
        return (*_without_checks(before, int(operation.a)), operation)
    pair = _PAIRS.get((before[-1].kind, operation.kind)) if before else None
    if pair is not None:
        return (*before[:-1], Operation(pair, before[-1].a, operation.a))
    return (*before, operation)


def _without_checks(before: tuple[Operation, ...], refused: int) -> tuple[Operation, ...]:
    """Without checks for infinite values that one at the end, of all values, makes as well."""
    if refused != NAN | INFINITE:
        return before
    kept: list[Operation] = []
    for place in reversed(range(len(before))):
        operation = before[place]
        if operation.kind is Kind.REFUSE:
            if operation.a != INFINITE:
                return (*before[: place + 1], *kept)
        elif operation.kind in _KEEPS_INFINITE:
            kept.insert(0, operation)
        else:
            return (*before[: place + 1], *kept)
    return tuple(kept)


def places(keys: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """The row of a lookup's table for each value."""
    import numpy as np

    if not len(keys):
        return np.where(np.isnan(values), 1, 0)
    near = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    known = np.where(keys[near] == values, near, len(keys))
    return np.where(np.isnan(values), len(keys) + 1, known)
