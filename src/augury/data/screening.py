"""Finding the bad rows of decoded batches, and setting them aside with their reasons.

Checks are vectorised over whole columns, and only columns of which a job expects something are
looked at, so a job that expects nothing pays nothing. A row's fate does not depend on the batch it
is in: each check is of one value. A row that breaks several expectations is rejected once, for the
first in the order of the model's inputs.

Rejected rows keep their values, in the input's own columns, behind five columns that say which row
it was and why: `_file`, `_row` (number in the file, from 0), `_column`, `_reason`, `_detail`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.data.batches import Decoded, carried, encoded, mask, numeric, plain, without_views
from augury.data.contract import REJECT_COLUMNS, Feature
from augury.data.output import from_numpy, texts
from augury.data.policy import (
    ColumnPolicy,
    OnBadRow,
    Reason,
    RejectedRow,
    RowPolicy,
    UnknownCategory,
)
from augury.errors import BadRowError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

#: columns by which a rejected row says which one it is
ORIGIN = REJECT_COLUMNS[:2]

type _Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RejectedRows:
    """Rows with a reject part's columns, in the order of the input.

    Attributes:
        positions: of each in the file that was read.
    """

    batch: pa.RecordBatch
    positions: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """A batch without its bad rows.

    Attributes:
        batch: the rows to be predicted.
        rows: the number of each in its file.
        rejected: the others, with the reject part's columns; None if there are none.
    """

    batch: pa.RecordBatch
    rows: Sequence[int] | NDArray[np.int64]
    rejected: RejectedRows | None


@dataclass(frozen=True)
class _Fault:
    """Rows of one batch that break one expectation."""

    bad: _Mask
    column: ColumnPolicy
    reason: Reason


def reject_fields() -> list[pa.Field]:
    """The columns that say which row was rejected, and why."""
    import pyarrow as pa

    kinds = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.string())
    return [pa.field(name, kind) for name, kind in zip(REJECT_COLUMNS, kinds, strict=True)]


class Screen:
    """Sifts the batches of a run.

    Args:
        policy: of its plan.
        schema: of its reject parts; None if no row can be rejected.
        again: True if what is read are reject parts: each row says itself which one it is.
    """

    def __init__(self, policy: RowPolicy, schema: pa.Schema | None, *, again: bool = False) -> None:
        self._again = again
        self._policy = policy
        self._schema = schema

    def sift(self, decoded: Decoded, uri: str) -> Sifted:
        """Parts good rows from bad ones.

        Raises:
            BadRowError: a bad row that may not be rejected: the first one of the batch.
        """
        batch = decoded.batch
        known = {feature.name: feature for feature in decoded.binding.features}
        faults = [
            fault
            for column in self._policy.columns
            for fault in _faults(batch.column(column.name), known[column.name], column)
        ]
        if not faults:
            rows = range(decoded.first_row, decoded.first_row + batch.num_rows)
            return Sifted(batch=batch, rows=rows, rejected=None)
        self._refuse(faults, decoded, uri)
        return self._parted(faults, decoded, uri)

    def _refuse(self, faults: Sequence[_Fault], decoded: Decoded, uri: str) -> None:
        failing = [fault for fault in faults if self._is_fatal(fault)]
        if not failing:
            return
        first = min(failing, key=lambda fault: int(fault.bad.argmax()))
        index = int(first.bad.argmax())
        name, row = first.column.name, decoded.first_row + index
        value = decoded.batch.column(name)[index].as_py()
        if self._again:
            uri = decoded.batch.column("_file")[index].as_py()
            row = decoded.batch.column("_row")[index].as_py()
        raise BadRowError(
            f"row {row} of {uri}, column {name!r}: {first.column.expected(first.reason)}, found "
            f"{value!r:.80}; correct the data, or let the job reject such rows "
            f"({_remedy(first.reason)})",
            uri=uri,
            row=row,
            column=name,
            reason=first.reason,
        )

    def _is_fatal(self, fault: _Fault) -> bool:
        if fault.reason is Reason.UNKNOWN_CATEGORY:
            return fault.column.unknown_category is UnknownCategory.FAIL
        return self._policy.on_bad_row is OnBadRow.FAIL

    def _parted(self, faults: Sequence[_Fault], decoded: Decoded, uri: str) -> Sifted:
        import numpy as np

        why = np.full(decoded.batch.num_rows, -1, np.int32)
        for number, fault in reversed(list(enumerate(faults))):
            why[fault.bad] = number
        bad, good = np.flatnonzero(why >= 0), np.flatnonzero(why < 0)
        which = from_numpy(why[bad])
        said = (
            texts([fault.column.name for fault in faults]).take(which),
            texts([fault.reason for fault in faults]).take(which),
            texts([fault.column.expected(fault.reason) for fault in faults]).take(which),
        )
        return Sifted(
            batch=_taken(decoded.batch, good),
            rows=good + decoded.first_row,
            rejected=self._rejected(decoded.batch, bad, bad + decoded.first_row, uri, said),
        )

    def failed(self, sifted: Sifted, failures: dict[int, str], uri: str) -> RejectedRows:
        """The rows on which the model failed.

        Args:
            sifted: the batch that was predicted.
            failures: what the model said, by index in the batch, in order.
            uri: of the file.
        """
        import numpy as np
        import pyarrow as pa

        indices = np.fromiter(failures, np.int64)
        rows = np.fromiter((sifted.rows[index] for index in failures), np.int64)
        said = (
            pa.nulls(len(indices), pa.string()),
            texts([Reason.MODEL] * len(indices)),
            texts(list(failures.values())),
        )
        return self._rejected(sifted.batch, indices, rows, uri, said)

    def _rejected(
        self,
        batch: pa.RecordBatch,
        indices: NDArray[Any],
        rows: NDArray[Any],
        uri: str,
        said: Sequence[pa.Array],
    ) -> RejectedRows:
        import numpy as np
        import pyarrow as pa

        assert self._schema is not None  # rows are rejected only where the plan says how
        values = _taken(batch, indices)
        originals = carried(values, list(self._schema)[len(REJECT_COLUMNS) :])
        positions = rows.astype(np.int64)
        files = texts([uri]).take(from_numpy(np.zeros(len(indices), np.int32)))
        numbers = from_numpy(positions)
        if self._again:
            files, numbers = carried(values, list(self._schema)[:2])
        columns = [files, numbers, *said, *originals]
        batch = pa.record_batch(columns, schema=self._schema)
        return RejectedRows(batch=batch, positions=positions)


def in_order(first: RejectedRows | None, second: RejectedRows) -> RejectedRows:
    """Rejected rows of one batch, found in two ways, in the order of the file."""
    import numpy as np
    import pyarrow as pa

    if first is None:
        return second
    positions = np.concatenate([first.positions, second.positions])
    order = positions.argsort(kind="stable")
    both = pa.Table.from_batches([first.batch, second.batch]).combine_chunks()
    batch = both.take(from_numpy(order)).combine_chunks().to_batches()[0]
    return RejectedRows(batch=batch, positions=positions[order])


def named_rows(rejected: pa.RecordBatch, most: int) -> list[RejectedRow]:
    """The first of some rejected rows, for messages."""
    rows = rejected.slice(0, most).select(list(REJECT_COLUMNS)).to_pylist()
    return [
        RejectedRow(
            uri=row["_file"],
            row=row["_row"],
            column=row["_column"] or "",
            reason=row["_reason"],
            detail=row["_detail"],
        )
        for row in rows
    ]


def _taken(batch: pa.RecordBatch, indices: NDArray[Any]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [without_views(column) for column in batch.columns]
    return pa.record_batch(columns, names=batch.schema.names).take(from_numpy(indices))


def _remedy(reason: Reason) -> str:
    return (
        "`unknown_category: reject`"
        if reason is Reason.UNKNOWN_CATEGORY
        else ("`on_bad_row: reject`")
    )


# --- one column -----------------------------------------------------------------------------------


def _faults(column: pa.Array, feature: Feature, policy: ColumnPolicy) -> Iterator[_Fault]:
    for reason, bad in _found(_without_nulls_inside(column), feature, policy):
        if bad is not None and bad.any():
            yield _Fault(bad, policy, reason)


def _found(
    column: pa.Array, feature: Feature, policy: ColumnPolicy
) -> Iterator[tuple[Reason, _Mask | None]]:
    if feature.categories and isinstance(feature.categories[0], str):
        if not policy.nullable and column.null_count:
            yield Reason.NULL, mask(column.is_null())
    elif not policy.nullable or policy.finite or policy.has_range:
        yield from _number_faults(column, policy)
    if policy.unknown_category is not UnknownCategory.MISSING:
        lost = encoded(column, feature)[1]
        yield Reason.UNKNOWN_CATEGORY, None if lost is None else mask(lost)


def _number_faults(column: pa.Array, policy: ColumnPolicy) -> Iterator[tuple[Reason, _Mask | None]]:
    import numpy as np

    values, missing = plain(numeric(column))
    if missing is None and _are_fine(values, policy):
        return
    present: Any = True if missing is None else ~missing  # what stands for a null is anything
    is_floating = values.dtype.kind == "f"
    if not policy.nullable:
        yield Reason.NULL, missing
        yield Reason.NULL, np.isnan(values) & present if is_floating else None
    if policy.finite and is_floating:
        yield Reason.NOT_FINITE, ~np.isfinite(values) & present
    for outside in _outside(values, policy):
        yield Reason.RANGE, outside & present


def _are_fine(values: NDArray[Any], policy: ColumnPolicy) -> bool:
    """True if no value can be bad, by the least and the greatest alone; a NaN makes both NaN."""
    import numpy as np

    if not len(values):
        return True
    low, high = values.min(), values.max()
    if not (math.isfinite(low) and math.isfinite(high)):
        return False
    ends = np.array([low, high], values.dtype)
    return not any(outside.any() for outside in _outside(ends, policy))


def _outside(values: NDArray[Any], policy: ColumnPolicy) -> Iterator[_Mask]:
    """Bounds are compared in the column's own precision; a long integer is not rounded."""
    whole = values.dtype.kind != "f"
    if policy.low is not None:
        yield values < (math.ceil(policy.low) if whole else policy.low)
    if policy.high is not None:
        yield values > (math.floor(policy.high) if whole else policy.high)


def _without_nulls_inside(column: pa.Array) -> pa.Array:
    """A dictionary may hold a null among its values: then decoded, so that it looks like one."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) and column.dictionary.null_count:
        return column.dictionary_decode()
    return column
