"""Features as operations: the native passes against the same operations in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augury.models.columns import Columns
from augury.models.fused import available
from augury.models.fused.features import INFINITE, NAN, UNKNOWN, Feature, Kind, Lookup, Operation
from augury.models.fused.native import INSTRUCTIONS
from augury.models.fused.program import columns_of, sums

needs_kernel = pytest.mark.skipif(not available(), reason="the fused kernel was not built")
SUBTRACT, DIVIDE = Operation(Kind.SUBTRACT, 3.0), Operation(Kind.DIVIDE, 7.0)
INFINITE_CHECK, ANY_CHECK = Operation(Kind.REFUSE, INFINITE), Operation(Kind.REFUSE, NAN | INFINITE)
SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-310, 1e300, -3.0, 3.0, 2.5]


def _lookup(keys: list[float], unknown: int = 0) -> Lookup:
    rng = np.random.default_rng(len(keys))
    flags = np.zeros(len(keys) + 2, dtype=np.uint8)
    flags[-2] = unknown
    return Lookup(keys=np.array(keys), values=rng.normal(size=len(keys) + 2), flags=flags)


FEATURES = {
    "itself": Feature(source=0),
    "standardized": Feature(source=0).then(SUBTRACT, DIVIDE),
    "rescaled": Feature(source=0).then(Operation(Kind.MULTIPLY, 0.1), Operation(Kind.ADD, 0.7)),
    "multiplied": Feature(source=0).then(Operation(Kind.MULTIPLY, 0.3)),
    "added": Feature(source=0).then(Operation(Kind.ADD, 0.3)),
    "subtracted": Feature(source=0).then(SUBTRACT),
    "divided": Feature(source=0).then(DIVIDE),
    "clipped": Feature(source=0).then(Operation(Kind.CLIP, -0.5, 0.25)),
    "filled": Feature(source=0).then(Operation(Kind.FILL, 4.5)),
    "replaced": Feature(source=0).then(Operation(Kind.REPLACE, 2.5, -1.0)),
    "missing": Feature(source=0).then(Operation(Kind.IS_MISSING)),
    "equal": Feature(source=0).then(Operation(Kind.IS_EQUAL, 2.5)),
    "magnitude": Feature(source=0).then(Operation(Kind.MAGNITUDE)),
    "refused": Feature(source=0).then(ANY_CHECK),
    "looked up": Feature(source=0).looked_up(_lookup([-3.0, 1e-310, 2.5, 3.0])),
    "direct": Feature(source=0).then(SUBTRACT).looked_up(_lookup([0.0, 1.0, 2.0])),
    "one key": Feature(source=0).looked_up(_lookup([2.5])),
    "no key": Feature(source=0).looked_up(_lookup([])),
    "scaled after": Feature(source=0).looked_up(_lookup([2.5, 3.0])).then(SUBTRACT, DIVIDE),
    "twice": Feature(source=0)
    .looked_up(Lookup(keys=np.array([2.5]), values=np.array([7.0, 8.0, np.nan]),
                      flags=np.zeros(3, np.uint8)))
    .looked_up(_lookup([7.0, 9.0])),
}  # fmt: skip


def _values() -> Any:
    rng = np.random.default_rng(1)
    return rng.permutation(np.concatenate([SPECIAL * 40, rng.normal(size=2100) * 3]))


@needs_kernel
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("name", FEATURES)
def test_the_passes_compute_what_numpy_computes(name: str, instructions: str) -> None:
    feature, values = FEATURES[name], _values()
    expected, flags = feature.of(values)
    program = columns_of([feature], num_sources=1)
    matrix, refused = program.features(
        Columns(values=(values,), missing=(None,)), instructions=instructions
    )
    assert np.array_equal(matrix[:, 0] + 0.0, expected + 0.0, equal_nan=True)
    assert refused[0] == np.bitwise_or.reduce(flags)


@needs_kernel
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
def test_every_type_is_read_as_numpy_reads_it(dtype: str, step: int) -> None:
    raw = np.random.default_rng(2).integers(0, 256, 3 * 1500 * 8, dtype=np.uint8)
    values = (raw & 1).view("?") if dtype == "?" else raw.view(dtype)
    values = values[: 1500 * step : step]
    missing = np.random.default_rng(3).random(1500) < 0.1
    program = columns_of([Feature(source=0)], num_sources=1)
    matrix, _ = program.features(
        Columns(values=(values,), missing=(missing,)), instructions=INSTRUCTIONS[-1]
    )
    with np.errstate(invalid="ignore"):
        expected = np.where(missing, np.nan, values.astype(np.float64))
    assert np.array_equal(matrix[:, 0], expected, equal_nan=True)


@needs_kernel
def test_instruction_sets_and_blocks_leave_no_trace_in_a_sum() -> None:
    rng = np.random.default_rng(4)
    features = [
        Feature(source=number).then(SUBTRACT, DIVIDE) if number % 3 else
        Feature(source=number).looked_up(_lookup([0.0, 1.0, 2.0]))
        for number in range(11)
    ]  # fmt: skip
    for num_outputs in (1, 3, 40):
        weights = rng.normal(size=(11, num_outputs))
        program = sums(features, weights, rng.normal(size=num_outputs), num_sources=11)
        matrix = rng.integers(-1, 4, (3000, 11)) + 0.0
        found = {
            program.margins(Columns.of(np.array(matrix, order=order)), instructions=each)[
                0
            ].tobytes()
            for order in "CF"
            for each in INSTRUCTIONS
        }
        assert len(found) == 1
        made = np.column_stack(
            [feature.of(column)[0] for feature, column in zip(features, matrix.T, strict=True)]
        )
        margins, _ = program.margins(Columns.of(matrix), instructions=INSTRUCTIONS[-1])
        assert np.allclose(margins - program._offset, made @ weights, atol=1e-12)


@needs_kernel
def test_unknown_values_that_are_refused_are_told() -> None:
    feature = Feature(source=0).looked_up(_lookup([1.0, 2.0], unknown=UNKNOWN))
    program = sums([feature], np.ones((1, 1)), np.zeros(1), num_sources=1)
    for value, expected in ((1.0, 0), (1.5, UNKNOWN), (np.nan, 0)):
        columns = Columns(values=(np.array([1.0, value]),), missing=(None,))
        _, refused = program.margins(columns, instructions=INSTRUCTIONS[-1])
        assert refused[0] == expected


def test_a_check_for_all_values_makes_an_earlier_one_of_infinite_ones_needless() -> None:
    filled = Operation(Kind.FILL, 1.0)
    feature = Feature(source=0).then(INFINITE_CHECK, filled, INFINITE_CHECK, SUBTRACT, ANY_CHECK)
    assert feature.operations == (filled, SUBTRACT, ANY_CHECK)
    clipped = Operation(Kind.CLIP, 0.0, 1.0)
    feature = Feature(source=0).then(INFINITE_CHECK, clipped, ANY_CHECK)
    assert feature.operations == (INFINITE_CHECK, clipped, ANY_CHECK)
