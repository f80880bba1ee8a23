"""Rejecting rows while a shard is scored: bisecting what a model fails on, and the reject part.

A model that fails on a batch says nothing about rows. So the batch is halved, and the half that
fails again, until single rows are left that fail alone: a bad row among n costs about 2 log2(n)
calls. Models are row-independent, so which rows fail does not depend on where batches begin.

The reject part is written like a part, to bytes that follow from its rows alone; it is begun with
the first rejected row, so a shard that rejects none has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from augury.data import output, screening
from augury.data.policy import RejectedRow, RowPolicy
from augury.errors import InvalidError, RejectLimitError

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from augury.inference.plan import Plan, WriterSettings

FIRST_REJECTS = 5
_LONGEST_DETAIL = 500
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


class RowsFailedError(InvalidError):
    """The model failed on some rows. Only ever seen by the pipeline, or as an `InvalidError`."""


def bisected[T](
    predict: Callable[[int, int], T], start: int, stop: int
) -> Iterator[tuple[int, T | RowsFailedError]]:
    """Predicts a range of rows piece by piece, so that only rows that fail alone fail.

    Args:
        predict: predicts the rows from `start` to `stop` (exclusive).
        start: first row; there is at least one.
        stop: behind the last row.

    Yields:
        In order: the first row of each piece, and its predictions, or the error of this one row.
    """
    open_ranges = [(start, stop)]
    while open_ranges:
        first, last = open_ranges.pop()
        try:
            yield first, predict(first, last)
        except RowsFailedError as error:
            if last - first == 1:
                yield first, error
            else:
                middle = (first + last) // 2
                open_ranges += [(middle, last), (first, middle)]


def detail(error: RowsFailedError) -> str:
    """What the model said, the same whenever it says it: no addresses, bounded."""
    cause = error.__cause__
    return _ADDRESS.sub("0x…", str(cause or error))[:_LONGEST_DETAIL]


class RejectCount:
    """Rows that one shard has rejected so far, within what the run may reject.

    Args:
        policy: of the run's plan.
    """

    def __init__(self, policy: RowPolicy) -> None:
        self._policy = policy
        self.num_rows = 0
        self.first: list[RejectedRow] = []
        self.by_file: Counter[str] = Counter()

    def add(self, rejected: pa.RecordBatch) -> None:
        """Counts some.

        Raises:
            RejectLimitError: this shard alone rejects more than the whole run may.
        """
        self.num_rows += rejected.num_rows
        for pair in rejected.column("_file").value_counts():
            self.by_file[pair["values"].as_py()] += pair["counts"].as_py()
        self.first += screening.named_rows(rejected, FIRST_REJECTS - len(self.first))
        allowed = self._policy.max_rejected
        if allowed is not None and self.num_rows > allowed:
            raise RejectLimitError(
                over_limit(self.num_rows, allowed, self.first), allowed=allowed, found=self.num_rows
            )


def over_limit(found: int, allowed: int, first: list[RejectedRow]) -> str:
    """The message that says so, naming the first rejects."""
    named = "; ".join(str(row) for row in first)
    return (
        f"expected at most {allowed} rejected rows (max_rejected), found {found} so far, the first "
        f"ones: {named}; correct the data or the job's `expect`, or allow more"
    )


class RejectPart:
    """Writes a shard's reject part, if it rejects a row. A context manager, for one thread.

    Args:
        plan: of the run.
        stage: gives the local path to write to.
    """

    def __init__(self, plan: Plan, stage: Callable[[], Path]) -> None:
        self.path: Path | None = None
        self.num_rows = 0
        self._plan = plan
        self._stage = stage
        self._writer: output.PartWriter | None = None

    def write(self, rejected: pa.RecordBatch) -> None:
        """Appends rejected rows.

        Raises:
            LimitError: no space left.
        """
        if self._writer is None:
            self.path = self._stage()
            self._writer = _writer(self.path, rejected.schema, self._plan.pins.writer)
        self._writer.write(rejected.columns)
        self.num_rows += rejected.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)


def _writer(path: Path, schema: pa.Schema, settings: WriterSettings) -> output.PartWriter:
    return output.PartWriter(
        path,
        schema,
        codec=settings.codec,
        row_group_rows=settings.row_group_rows,
        data_page_version=settings.data_page_version,
        dictionary_columns=output.dictionary_columns(schema),
    )
