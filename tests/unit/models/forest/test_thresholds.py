"""`value > threshold` as `value >= above(threshold)`, in either precision."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from augury.models.forest.sklearn_trees import above

FLOATS = st.floats(allow_nan=False, width=64)


@given(threshold=FLOATS, value=FLOATS)
@example(threshold=float("inf"), value=float("inf"))
@example(threshold=float(np.finfo(np.float32).max), value=float("inf"))
@example(threshold=1e300, value=float("inf"))
@example(threshold=-1e300, value=float("-inf"))
@example(threshold=-0.0, value=0.0)
def test_doubles_and_floats_decide_alike(threshold: float, value: float) -> None:
    one = np.array([threshold])
    assert (value >= above(one, "float64")[0]) == (value > threshold)
    bound = above(one, "float32")[0]
    with np.errstate(over="ignore", under="ignore"):
        assert np.isnan(bound) or np.float32(bound) == bound
        single, rounded = np.float32(value), np.float32(threshold)
        beside = [np.nextafter(rounded, np.float32(end)) for end in (-np.inf, np.inf)]
    for near in (single, rounded, *beside):
        assert (float(near) >= bound) == (float(near) > threshold)
