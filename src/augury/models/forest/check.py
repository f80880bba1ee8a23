"""Comparing a forest with the library's own predictor, on the rows where they could differ.

A wrong comparison shows only at the threshold. So the sample is made from the model's thresholds:
each value is one of them, or one unit in the last place beside it, in the matrix's own precision;
besides signed zeros, subnormal and infinite values, missing ones, and values of all magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.models.forest.ensemble import CATEGORICAL
from augury.models.forest.forest import Forest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SPECIAL = (0.0, -0.0, 1e-40, -1e-40, 1e-310, 3e38, -3e38, 1.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """How a forest differs from its library.

    Attributes:
        num_rows: rows compared.
        num_different: rows of which any bit differs.
        row: the first such row.
        expected: what the library predicts for it.
        found: what the forest predicts.
    """

    num_rows: int
    num_different: int
    row: tuple[float, ...]
    expected: Any
    found: Any

    def __str__(self) -> str:
        return (
            f"{self.num_different} of {self.num_rows} rows differ from the library's predictions; "
            f"the first: expected {self.expected}, found {self.found} for {self.row}"
        )


def verify(
    forest: Forest,
    reference: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    dtype: str = "float32",
    num_rows: int = 4096,
    seed: int = 0,
) -> Mismatch | None:
    """Compares predictions bit by bit; None if all are equal.

    Args:
        forest: what is checked.
        reference: the library's predictions for a matrix, in the form of `Model.predict`.
        dtype: of the matrices, `float32` or `float64`.
        num_rows: rows of each of the samples.
        seed: makes other samples.
    """
    import numpy as np

    for matrix in samples(forest, dtype=dtype, num_rows=num_rows, seed=seed):
        with np.errstate(all="ignore"):  # extreme values overflow in sums and in exp
            expected, found = reference(matrix), forest.predict(matrix)
        mismatch = _compare(matrix, expected, found)
        if mismatch is not None:
            return mismatch
    return None


def samples(
    forest: Forest, *, dtype: str = "float32", num_rows: int = 4096, seed: int = 0
) -> list[NDArray[Any]]:
    """Matrices that hold the values at which a forest could go wrong.

    The first has finite values only; the second has missing and infinite ones too, as far as the
    model takes them.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    values = _values(forest, rng)
    finite = np.empty((num_rows, forest.num_features), dtype=dtype)
    with np.errstate(over="ignore", under="ignore"):
        for column, known in enumerate(values):
            picked = rng.choice(known, num_rows).astype(dtype)
            finite[:, column] = _beside(picked, rng.integers(-1, 2, num_rows))
    finite[~np.isfinite(finite)] = 0
    wild = finite.copy()
    if not forest.refuses & 2:
        wild[rng.random(wild.shape) < 0.02] = np.inf
        wild[rng.random(wild.shape) < 0.02] = -np.inf
    if not forest.refuses & 1:
        wild[rng.random(wild.shape) < 0.15] = np.nan
        wild[: num_rows // 16] = np.nan
    return [finite, wild]


def _values(forest: Forest, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """For each feature: its thresholds, categories, and values anywhere."""
    import numpy as np

    by_feature: list[list[NDArray[np.float64]]] = [[] for _ in range(forest.num_features)]
    categorical = np.zeros(forest.num_features, dtype=bool)
    for tree in forest.ensemble.trees:
        inner = tree.left >= 0
        categorical[tree.feature[inner & (tree.flags & CATEGORICAL > 0)]] = True
        for feature in np.unique(tree.feature[inner]):
            by_feature[feature].append(tree.threshold[inner & (tree.feature == feature)])
    special = np.array(_SPECIAL)
    result = []
    for feature, found in enumerate(by_feature):
        known = np.unique(np.concatenate([*found, np.zeros(1)]))
        known = known[np.isfinite(known)]
        spread = max(float(np.ptp(known)), 1.0)
        anywhere = rng.normal(known.mean(), spread, len(known) // 4 + 16)
        if categorical[feature]:
            known, anywhere = np.arange(-2.0, 260.0), anywhere + 0.5
        # the special values must not be rare among many thresholds
        result.append(np.concatenate([known, anywhere, np.repeat(special, len(known) // 50 + 1)]))
    return result


def _beside(values: NDArray[Any], steps: NDArray[Any]) -> NDArray[Any]:
    """The values, or the next greater or smaller ones."""
    import numpy as np

    infinity = values.dtype.type(np.inf)
    up = np.where(steps > 0, np.nextafter(values, infinity), values)
    return np.where(steps < 0, np.nextafter(values, -infinity), up)


def _compare(matrix: NDArray[Any], expected: NDArray[Any], found: NDArray[Any]) -> Mismatch | None:
    import numpy as np

    expected = np.asarray(expected)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        different = np.ones(len(matrix), dtype=bool)
    else:
        same = _bits(expected) == _bits(found)
        different = ~(same if same.ndim == 1 else same.all(axis=1))
    if not different.any():
        return None
    first = int(np.flatnonzero(different)[0])
    return Mismatch(
        num_rows=len(matrix),
        num_different=int(different.sum()),
        row=tuple(float(value) for value in matrix[first]),
        expected=expected[first] if len(expected) else expected,
        found=found[first],
    )


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(values).view(f"uint{8 * values.itemsize}")
