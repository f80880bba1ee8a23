"""Counting the values that a model does not know, without keeping them all.

An unknown category is scored as missing, so it is worth telling. Per column the first `MAX_UNKNOWN`
distinct values in the order of the rows are counted each, all others together under `OTHERS`; that
does not depend on where batches begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MAX_UNKNOWN = 100
OTHERS = "(others)"


class UnknownCounter:
    """Counts of unknown values by column."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    def count(self, column: str, values: pa.Array) -> None:
        """Adds the values of one batch, in the order of its rows; nulls do not count."""
        import pyarrow as pa

        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        values = values.drop_null()
        if len(values):
            for pair in values.value_counts():  # in the order of first appearance
                self._add(column, str(pair["values"]), pair["counts"].as_py())

    def add(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Adds what another counter found in rows that come after this one's."""
        for column, values in counts.items():
            for value, count in values.items():
                self._add(column, value, count)

    def _add(self, column: str, value: str, count: int) -> None:
        values = self._counts.setdefault(column, {})
        if value not in values and len(values) - (OTHERS in values) >= MAX_UNKNOWN:
            value = OTHERS
        values[value] = values.get(value, 0) + count

    def counts(self) -> dict[str, dict[str, int]]:
        """{column: {value: rows}}."""
        return {column: dict(values) for column, values in self._counts.items()}


def merged(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The counts of several shards, in their order, as one."""
    counter = UnknownCounter()
    for each in counts:
        counter.add(each)
    return counter.counts()
