"""Data against signature, from schemas alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from augury.data.contract import Encoding, bind, casts, check_all
from augury.errors import ContractError
from augury.models.signature import InputColumn, Signature, Task

NUMBER = InputColumn(name="x", type="float")
TEXT = InputColumn(name="s", type="string", categories=("a", "b"))
CODE = InputColumn(name="k", type="int64", categories=(3, 5))


def signature(*inputs: InputColumn) -> Signature:
    return Signature(inputs=inputs, task=Task.REGRESSION)


def dictionary(kind: pa.DataType) -> pa.DataType:
    return pa.dictionary(pa.int32(), kind)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint16(),
        pa.int64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.bool_(),
        pa.decimal128(10, 2),
        pa.null(),
        dictionary(pa.int32()),
    ],
)
def test_numbers_of_every_kind_fit_a_number(kind: pa.DataType) -> None:
    binding = bind(pa.schema([("x", kind)]), signature(NUMBER))
    assert [feature.encoding for feature in binding.features] == [Encoding.NUMBER]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.timestamp("us"),
        pa.date32(),
        pa.duration("s"),
        pa.list_(pa.float32()),
        pa.struct([("x", pa.float32())]),
        pa.binary(),
        dictionary(pa.string()),
    ],
)
def test_what_is_no_number_is_refused_for_one(kind: pa.DataType) -> None:
    with pytest.raises(ContractError) as caught:
        bind(pa.schema([("x", kind)]), signature(NUMBER))
    (fault,) = caught.value.faults
    assert fault.path == "x"
    assert str(kind) in fault.message
    assert "expected a number" in fault.message


@pytest.mark.parametrize(
    ("column", "kind", "fits"),
    [
        (TEXT, pa.string(), True),
        (TEXT, pa.large_string(), True),
        (TEXT, pa.string_view(), True),
        (TEXT, dictionary(pa.string()), True),
        (TEXT, pa.null(), True),
        (TEXT, pa.int64(), False),
        (TEXT, pa.binary(), False),
        (TEXT, dictionary(pa.int8()), False),
        (CODE, pa.int8(), True),
        (CODE, pa.uint64(), True),
        (CODE, dictionary(pa.int16()), True),
        (CODE, pa.float64(), False),
        (CODE, pa.string(), False),
    ],
)
def test_categories_need_their_own_kind(column: InputColumn, kind: pa.DataType, fits: bool) -> None:
    schema = pa.schema([(column.name, kind)])
    if fits:
        assert bind(schema, signature(column)).features[0].categories == column.categories
    else:
        with pytest.raises(ContractError, match="it has categories"):
            bind(schema, signature(column))


def test_all_faults_are_told_at_once() -> None:
    first = pa.schema([("x", pa.string()), ("id", pa.int64()), ("id", pa.int64())])
    second = pa.schema([("x", pa.float32()), ("s", pa.string())])
    with pytest.raises(ContractError) as caught:
        check_all(
            {"f1": first, "f2": second},
            signature(NUMBER, TEXT),
            ["id", "prediction", "more", "more"],
            ("prediction", "probability"),
        )
    faults = [(fault.path, fault.message) for fault in caught.value.faults]
    paths = [path for path, _ in faults]
    assert paths == [
        "more",
        "prediction",
        "f1: x",
        "f1: s",
        "f1: id",
        "f1: prediction",
        "f1: more",
        "f2: id",
        "f2: prediction",
        "f2: more",
    ]
    told = dict(faults)
    assert "carried twice" in told["more"]
    assert "rename" in told["prediction"]
    assert "expected a string column, found none; there are x, id" in told["f1: s"]
    assert "found 2" in told["f1: id"]


def test_two_prediction_columns_of_one_name_are_a_fault() -> None:
    with pytest.raises(ContractError, match="two prediction columns"):
        check_all({}, signature(NUMBER), [], ("p", "p"))


def test_a_column_is_read_once_and_only_what_is_needed() -> None:
    schema = pa.schema([("a", pa.int8()), ("s", pa.string()), ("x", pa.int8()), ("z", pa.int8())])
    binding = bind(schema, signature(NUMBER, TEXT), ["z", "x"])
    assert binding.names == ["x", "s", "z"]
    assert binding.dictionaries == ["s"]
    assert bind(schema, signature(NUMBER, TEXT), ["s"]).dictionaries == []


@pytest.mark.parametrize(
    ("kinds", "common"),
    [
        ([pa.int32()], pa.int32()),
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.null(), pa.string()], pa.string()),
        ([pa.string(), dictionary(pa.string())], pa.string()),
        ([pa.float32(), pa.float64()], pa.float64()),
        ([pa.int32(), pa.float64()], pa.float64()),
        ([pa.int64(), pa.float64()], None),
        ([pa.int64(), pa.string()], None),
        ([], pa.null()),
    ],
)
def test_carried_columns_get_a_type_that_holds_all_values(
    kinds: list[pa.DataType], common: Any
) -> None:
    schemas = {
        f"f{number}": pa.schema([("x", pa.float32()), ("c", kind)])
        for number, kind in enumerate(kinds)
    }
    if common is None:
        with pytest.raises(ContractError, match="expected one type in all files") as caught:
            check_all(schemas, signature(NUMBER), ["c"], ("prediction",))
        assert "in f0" in str(caught.value)
        assert "in f1" in str(caught.value)
    else:
        (field,) = check_all(schemas, signature(NUMBER), ["c"], ("prediction",))
        assert field.type == common


def test_casts_are_listed_with_what_becomes_of_the_values() -> None:
    signature = Signature(
        inputs=(
            InputColumn(name="a", type="double"),
            InputColumn(name="b", type="float"),
            InputColumn(name="c", type="bool"),
            InputColumn(name="k", type="string", categories=("x",)),
            InputColumn(name="n", type="double"),
        ),
        task=Task.REGRESSION,
        dtype="float32",
    )
    schemas = {
        "one": pa.schema(
            [
                ("a", pa.int64()),
                ("b", pa.int16()),
                ("c", pa.uint8()),
                ("k", pa.dictionary(pa.int8(), pa.string())),
                ("n", pa.null()),
            ]
        ),
        "two": pa.schema(
            [
                ("a", pa.float64()),
                ("b", pa.decimal128(9, 2)),
                ("c", pa.bool_()),
                ("k", pa.large_string()),
                ("n", pa.float64()),
            ]
        ),
    }
    assert casts(schemas, signature) == (
        "a: int64 for double, rounded once, to the nearest float32",
        "b: int16 for float, exact",
        "b: decimal128(9, 2) for float, rounded once, to the nearest float32",
        "c: uint8 for bool, exact",
    )
