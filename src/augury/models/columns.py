"""Rows as columns: each in its own type, as it was decoded, where a model takes them so.

A matrix costs a pass over the data that computes nothing; a model that is a few multiplications a
row would spend most of its time on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The features of some rows, column by column.

    Attributes:
        values: one-dimensional arrays of equal length, of integers, floats or bools; strides may
            be any. NaN is missing.
        missing: where the values are missing besides, contiguous; None: nowhere.
    """

    values: tuple[NDArray[Any], ...]
    missing: tuple[NDArray[np.bool_] | None, ...]

    def __len__(self) -> int:
        return len(self.values[0])

    def rows(self, start: int, stop: int) -> Columns:
        """Some of the rows; nothing is copied."""
        return Columns(
            values=tuple(values[start:stop] for values in self.values),
            missing=tuple(None if mask is None else mask[start:stop] for mask in self.missing),
        )

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Columns:
        """The columns of a matrix; nothing is copied."""
        count = matrix.shape[1]
        return cls(values=tuple(matrix.T), missing=(None,) * count)
