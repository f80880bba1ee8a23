"""Data and models for the tests of the forest kernel against the libraries themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

NUM_ROWS = 2500
NUM_FEATURES = 9

Reference = Callable[[Any], Any]


def features(*, missing: bool, seed: int = 0) -> Any:
    """`(NUM_ROWS, NUM_FEATURES)` float64: normal, log-normal, coarse, constant and huge columns."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(NUM_ROWS, NUM_FEATURES))
    matrix[:, 3] = np.exp(3 * matrix[:, 3])
    matrix[:, 4] = rng.integers(0, 4, NUM_ROWS)
    matrix[:, 5] = np.round(matrix[:, 5], 1)
    matrix[:, 6] = 1.0
    matrix[:, 7] *= 1e30
    if missing:
        matrix[rng.random(matrix.shape) < 0.06] = np.nan
    return matrix


def score(matrix: Any, seed: int = 1) -> Any:
    """Something that depends on the features."""
    rng = np.random.default_rng(seed)
    clean = np.nan_to_num(matrix)
    interaction = clean[:, 1] * clean[:, 2] + np.sin(3 * clean[:, 5])
    return clean[:, 0] + interaction + 0.3 * clean[:, 4] + 0.3 * rng.normal(size=len(matrix))


def target(kind: str, matrix: Any) -> Any:
    """Labels of a kind: `real`, `positive`, `unit`, `two`, or a number of classes."""
    values = score(matrix)
    if kind == "real":
        return values
    if kind == "positive":
        return np.exp(values / 2)
    if kind == "unit":
        return 1 / (1 + np.exp(-values))
    if kind == "two":
        return (values > 0).astype(int)
    return np.digitize(values, np.linspace(-2, 2, int(kind) - 1))


def quietly(reference: Reference) -> Reference:
    """The libraries' own sums overflow on extreme values, and they warn."""

    def predict(matrix: Any) -> Any:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return reference(matrix)

    return predict
