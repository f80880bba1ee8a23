"""`verify` must find a comparison that is wrong by one unit in the last place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from augury.models.forest import Forest, available, verify
from augury.models.forest.ensemble import MISSING_RIGHT, Ensemble, Tree

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")


def _stumps(num_trees: int = 300) -> Ensemble:
    rng = np.random.default_rng(0)
    trees = [
        Tree(
            left=np.array([1, -1, -1], dtype=np.int32),
            right=np.array([2, -1, -1], dtype=np.int32),
            feature=np.array([number % 5, 0, 0], dtype=np.int32),
            threshold=np.array([np.float32(rng.normal()), 0, 0], dtype=np.float64),
            flags=np.array([MISSING_RIGHT * (number % 2), 0, 0], dtype=np.uint8),
            value=np.float32(rng.normal(size=(3, 1))).astype(np.float64),
        )
        for number in range(num_trees)
    ]
    return Ensemble(
        trees=trees, num_features=5, num_outputs=1, compare="float32", accumulate="float32",
        initial=np.zeros(1),
    )  # fmt: skip


def _forest(ensemble: Ensemble) -> Forest:
    return Forest(ensemble, lambda margins: margins[:, 0])


def _with(ensemble: Ensemble, number: int, **changes: Any) -> Ensemble:
    trees = list(ensemble.trees)
    trees[number] = replace(trees[number], **changes)
    return replace(ensemble, trees=trees)


def test_the_same_forest_is_the_same() -> None:
    ensemble = _stumps()
    assert verify(_forest(ensemble), _forest(ensemble).predict) is None
    assert verify(_forest(ensemble), _forest(ensemble).predict, dtype="float64") is None


@pytest.mark.parametrize("number", [0, 123, 299])
def test_one_threshold_of_300_moved_by_one_unit_is_found(number: int) -> None:
    ensemble = _stumps()
    threshold = ensemble.trees[number].threshold.copy()
    threshold[0] = np.nextafter(np.float32(threshold[0]), np.float32(np.inf))
    other = _forest(_with(ensemble, number, threshold=threshold))
    mismatch = verify(_forest(ensemble), other.predict)
    assert mismatch is not None
    assert "rows differ from the library's predictions" in str(mismatch)


def test_one_default_direction_is_found() -> None:
    ensemble = _stumps()
    flags = ensemble.trees[50].flags ^ np.uint8(MISSING_RIGHT)
    assert verify(_forest(ensemble), _forest(_with(ensemble, 50, flags=flags)).predict) is not None


def test_another_order_of_the_sum_is_found() -> None:
    ensemble = _stumps()
    other = _forest(replace(ensemble, trees=list(reversed(ensemble.trees))))
    assert verify(_forest(ensemble), other.predict) is not None


def test_another_form_is_found() -> None:
    ensemble = _stumps()
    assert verify(_forest(ensemble), _forest(ensemble).predict_margin) is not None
