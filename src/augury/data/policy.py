"""What makes a row bad, and what becomes of it. Plain data, part of the plan.

A job says per input column what it expects (`expect`), and once what becomes of a row that breaks
it (`on_bad_row`). Nothing is expected unless the job says so: a model that takes missing values
gets them. The policy is pinned in the plan, so the rows that a shard rejects follow from the plan,
as its part does.

| expectation | a row is bad if the column's value | reason |
|---|---|---|
| `nullable: false` | is null or NaN (both are missing to a model) | `null` |
| `finite: true` | is NaN or infinite | `not_finite` |
| `range: [low, high]` | is below or above (a bound is allowed; so is missing) | `range` |
| `unknown_category` | is not among the model's categories | `unknown_category` |
| (the model itself) | makes the model fail, alone | `model` |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class OnBadRow(StrEnum):
    """What becomes of a bad row."""

    FAIL = "fail"  #: the run fails and names it
    REJECT = "reject"  #: it goes to `_rejected/`, the others are predicted


class OnCorruptFile(StrEnum):
    """What becomes of a file or a row group that cannot be read."""

    FAIL = "fail"  #: the run fails and names it
    QUARANTINE = "quarantine"  #: it is left out, listed in the manifest, and the result is partial


class UnknownCategory(StrEnum):
    """What becomes of a row with a category that the model does not know."""

    MISSING = "missing"  #: predicted, as if the value were missing; counted in the manifest
    REJECT = "reject"  #: it goes to `_rejected/`
    FAIL = "fail"  #: the run fails and names it


class Reason(StrEnum):
    """Why a row is bad."""

    NULL = "null"  #: null or NaN where the job says `nullable: false`
    NOT_FINITE = "not_finite"  #: NaN or infinite where the job says `finite: true`
    RANGE = "range"  #: outside the job's `range`
    UNKNOWN_CATEGORY = "unknown_category"  #: not among the model's categories
    MODEL = "model"  #: the model fails on this row alone


@dataclass(frozen=True, kw_only=True)
class ColumnPolicy:
    """What is expected of one input column.

    Attributes:
        nullable: False: neither null nor NaN.
        finite: True: neither NaN nor infinite.
        low: least allowed value, inclusive; None: any.
        high: greatest allowed value, inclusive; None: any.
        unknown_category: what becomes of values that are not among the categories.
    """

    name: str
    nullable: bool = True
    finite: bool = False
    low: int | float | None = None
    high: int | float | None = None
    unknown_category: UnknownCategory = UnknownCategory.MISSING

    @property
    def has_range(self) -> bool:
        """True if a bound is given."""
        return self.low is not None or self.high is not None

    def expected(self, reason: Reason) -> str:
        """What was expected where a value is bad for this reason."""
        match reason:
            case Reason.NULL:
                return "expected a value, found null or NaN"
            case Reason.NOT_FINITE:
                return "expected a finite number"
            case Reason.UNKNOWN_CATEGORY:
                return "expected one of the model's categories"
            case _:
                return f"expected a number {_between(self.low, self.high)}"


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"of at most {high}"
    return f"of at least {low}" if high is None else f"from {low} to {high}"


@dataclass(frozen=True, kw_only=True)
class RowPolicy:
    """What a plan says about bad rows.

    Attributes:
        on_bad_row: what becomes of them.
        columns: those of which something is expected, in the order of the model's inputs.
        reject_schema: Arrow schema of reject parts, serialised, in base 64; empty if no row can
            be rejected.
        max_rejected: the run fails as soon as it rejects more rows than this; None: any number.
    """

    on_bad_row: OnBadRow = OnBadRow.FAIL
    columns: tuple[ColumnPolicy, ...] = ()
    reject_schema: str = ""
    max_rejected: int | None = None

    @property
    def rejects(self) -> bool:
        """True if rows can be rejected, by whatever policy."""
        return may_reject(self.on_bad_row, self.columns)


def may_reject(on_bad_row: OnBadRow, columns: Sequence[ColumnPolicy]) -> bool:
    """True if rows can be rejected under these policies."""
    return on_bad_row is OnBadRow.REJECT or any(
        column.unknown_category is UnknownCategory.REJECT for column in columns
    )


@dataclass(frozen=True, kw_only=True)
class RejectedRow:
    """One rejected row, as messages name it.

    Attributes:
        row: its number in the file, from 0.
        column: whose value is bad; empty if only the model knows.
        detail: what was expected.
    """

    uri: str
    row: int
    column: str
    reason: str
    detail: str

    def __str__(self) -> str:
        where = f", column {self.column!r}" if self.column else ""
        return f"row {self.row} of {self.uri}{where}: {self.detail} ({self.reason})"


def allowed_rejects(
    rows_in: int, *, share: float | None = None, count: int | None = None
) -> int | None:
    """Most rows that a run may reject.

    Args:
        rows_in: rows of the run.
        share: of `rows_in`, 0 to 1; None: any.
        count: None: any.

    Returns:
        The smaller of both bounds; None if there is none.
    """
    bounds = [] if count is None else [count]
    if share is not None:
        bounds.append(int(share * rows_in))
    return min(bounds, default=None)
