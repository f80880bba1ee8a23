"""Columns to matrix: against a slow and obvious oracle."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.data.batches import BATCH_ROWS, BLOCK_ROWS, batch_rows, carried, fill
from augury.data.contract import bind
from augury.data.unknown import MAX_UNKNOWN, OTHERS, UnknownCounter, merged
from augury.models.signature import InputColumn, Signature, Task

CATEGORIES = ("a", "b", "ü")


def converted(table: pa.Table, inputs: list[InputColumn], dtype: Any = "float32") -> Any:
    """The matrix, filled batch by batch, and the unknown values."""
    signature = Signature(inputs=tuple(inputs), task=Task.REGRESSION, dtype=dtype)
    unknown = UnknownCounter()
    binding = bind(table.schema, signature)
    matrices = [np.empty((0, len(inputs)), dtype)]
    for batch in table.to_batches():
        matrix = np.full((batch.num_rows, len(inputs)), 77, dtype)
        fill(matrix, batch, binding, unknown)
        matrices.append(matrix)
    return np.concatenate(matrices), unknown.counts()


def number(name: str = "x") -> InputColumn:
    return InputColumn(name=name, type="double")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -3], pa.int8()),
        ([1, 2, 255], pa.uint8()),
        ([2**53 + 1, None, -(2**62)], pa.int64()),
        ([2**64 - 1, 1, 2], pa.uint64()),
        ([1.5, None, float("nan")], pa.float32()),
        ([0.1, -0.0, float("inf")], pa.float64()),
        ([1.5, None, 2.0], pa.float16()),
        ([True, None, False], pa.bool_()),
        ([True, True, False], pa.bool_()),
        ([Decimal("1.25"), None, Decimal("-3.50")], pa.decimal128(10, 2)),
        ([None, None, None], pa.null()),
        ([None, None, None], pa.int32()),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_rounded_once(values: list[Any], kind: pa.DataType, dtype: Any) -> None:
    matrix, _ = converted(pa.table({"x": pa.array(values, kind)}), [number()], dtype)
    expected = np.array(
        [np.nan if value is None else np.array(value).astype(dtype) for value in values], dtype
    )
    np.testing.assert_array_equal(matrix[:, 0], expected)
    assert np.array_equal(np.signbit(matrix[:, 0]), np.signbit(expected))


def test_a_long_integer_does_not_depend_on_a_null_beside_it() -> None:
    # through double and then single precision it would be rounded twice, to another number
    value = 2**60 + 2**36 + 1
    alone, _ = converted(pa.table({"x": pa.array([value])}), [number()])
    beside, _ = converted(pa.table({"x": pa.array([value, None])}), [number()])
    once = np.array([value]).astype(np.float32)[0]
    assert alone[0, 0] == beside[0, 0] == once
    assert np.float32(np.float64(value)) != once


def test_a_double_beyond_float32_is_infinite() -> None:
    matrix, _ = converted(pa.table({"x": [1e300, -1e300]}), [number()])
    assert matrix[:, 0].tolist() == [math.inf, -math.inf]


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An array of any type, dictionaries too (Arrow casts to few of them)."""
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    encoded = pa.array(values, kind.value_type).dictionary_encode()
    indices = encoded.indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, encoded.dictionary)


TEXT_KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


@settings(deadline=None)  # time says nothing on a busy machine
@given(
    values=st.lists(st.sampled_from([None, *CATEGORIES, "c", "A", ""]), max_size=30),
    kind=st.sampled_from(TEXT_KINDS),
    cut=st.integers(0, 30),
)
def test_text_becomes_codes_and_what_is_unknown_is_counted(
    values: list[str | None], kind: pa.DataType, cut: int
) -> None:
    column = pa.chunked_array([array(part, kind) for part in (values[:cut], values[cut:])])
    inputs = [InputColumn(name="s", type="string", categories=CATEGORIES)]
    matrix, unknown = converted(pa.table({"s": column}), inputs)
    expected = [CATEGORIES.index(v) if v in CATEGORIES else np.nan for v in values]
    np.testing.assert_array_equal(matrix[:, 0], np.array(expected, np.float32))
    lost = [value for value in values if value is not None and value not in CATEGORIES]
    assert unknown.get("s", {}) == {value: lost.count(value) for value in lost}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_unknown_categories_may_be_others_beside_missing_ones(kind: pa.DataType) -> None:
    column = pa.array(["ü", "never", None, "a", "x"]).cast(kind)
    inputs = [InputColumn(name="s", type="string", categories=CATEGORIES, unknown="other")]
    matrix, unknown = converted(pa.table({"s": column}), inputs, "float64")
    assert np.array_equal(matrix[:, 0], [2, 3, np.nan, 0, 3], equal_nan=True)
    assert unknown == {"s": {"never": 1, "x": 1}}


def test_a_null_within_a_dictionary_is_no_other_category() -> None:
    codes = pa.array([0, 1, 2, None], pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["a", None, "never"]))
    inputs = [InputColumn(name="s", type="string", categories=CATEGORIES, unknown="other")]
    matrix, _ = converted(pa.table({"s": column}), inputs, "float64")
    assert np.array_equal(matrix[:, 0], [0, np.nan, 3, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int64(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())]
)
def test_integer_categories(kind: pa.DataType) -> None:
    values = array([5, 3, None, 4], kind)
    inputs = [InputColumn(name="k", type="int64", categories=(3, 5))]
    matrix, unknown = converted(pa.table({"k": values}), inputs)
    np.testing.assert_array_equal(matrix[:, 0], np.array([1, 0, np.nan, np.nan], np.float32))
    assert unknown == {"k": {"4": 1}}


def test_an_integer_beyond_int64_is_an_unknown_category() -> None:
    inputs = [InputColumn(name="k", type="int64", categories=(-1, 5))]
    values = pa.array([2**64 - 1, 5], pa.uint64())  # all ones are -1, read as signed
    matrix, _ = converted(pa.table({"k": values}), inputs)
    np.testing.assert_array_equal(matrix[:, 0], np.array([np.nan, 1], np.float32))


def test_a_null_within_a_dictionary_is_missing_and_not_unknown() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    inputs = [InputColumn(name="s", type="string", categories=CATEGORIES)]
    matrix, unknown = converted(pa.table({"s": values}), inputs)
    np.testing.assert_array_equal(matrix[:, 0], np.array([0, np.nan, np.nan], np.float32))
    assert unknown == {}


def test_numbers_in_a_dictionary() -> None:
    values = pa.array([2.5, None, 2.5, 1.0]).dictionary_encode()
    matrix, _ = converted(pa.table({"x": values}), [number()])
    np.testing.assert_array_equal(matrix[:, 0], np.array([2.5, np.nan, 2.5, 1.0], np.float32))


def test_many_rows_and_columns_keep_their_places() -> None:
    num_rows = 2 * BLOCK_ROWS + 17
    rng = np.random.default_rng(0)
    data = rng.normal(size=(num_rows, 5))
    table = pa.table({f"c{index}": data[:, index] for index in range(5)})
    inputs = [number(f"c{index}") for index in (3, 0, 4)]
    matrix, _ = converted(table.slice(5), inputs, "float64")
    np.testing.assert_array_equal(matrix, data[5:][:, [3, 0, 4]])


def test_batches_are_bounded_by_matrix_and_decoded_bytes() -> None:
    assert batch_rows(28, 4) == BATCH_ROWS
    assert batch_rows(5_000, 8) * 5_000 * 8 <= 16 * 2**20
    assert batch_rows(1, 4, row_bytes=2**20) == 32
    assert batch_rows(10**9, 8, row_bytes=1e12) == 1


def test_carried_columns_get_the_output_s_types() -> None:
    batch = pa.record_batch({"a": pa.array(["x", None]).dictionary_encode(), "b": [1, 2]})
    fields = [pa.field("b", pa.int64()), pa.field("a", pa.string())]
    columns = carried(batch, fields)
    assert [column.to_pylist() for column in columns] == [[1, 2], ["x", None]]
    assert columns[1].type == pa.string()


def test_unknown_values_are_bounded_wherever_batches_begin() -> None:
    values = [f"v{index % 150}" for index in range(1000)]
    whole, pieces = UnknownCounter(), UnknownCounter()
    whole.count("c", pa.array(values))
    for start in range(0, 1000, 7):
        pieces.count("c", pa.array(values[start : start + 7]))
    counts = whole.counts()["c"]
    assert counts == pieces.counts()["c"]
    assert len(counts) == MAX_UNKNOWN + 1
    assert sum(counts.values()) == 1000
    assert counts["v0"] == 7
    again = merged([whole.counts(), whole.counts()])["c"]
    assert again[OTHERS] == 2 * counts[OTHERS]
