"""Parts: their columns, and that their bytes follow from their rows alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from augury.data.output import (
    PartWriter,
    decode_schema,
    dictionary_columns,
    encode_schema,
    prediction_columns,
    prediction_fields,
    prediction_names,
)
from augury.errors import LimitError, UnavailableError
from augury.models.signature import InputColumn, Signature, Task

TABLE = pa.table(
    {
        "id": pa.array([None if n % 11 == 0 else n for n in range(500)], pa.int64()),
        "text": pa.array([None if n % 7 == 0 else f"t{n % 13}" for n in range(500)]),
        "nested": pa.array([[n] * (n % 3) for n in range(500)]),
        "at": pa.array(range(500), pa.timestamp("us", "UTC")),
        "prediction": pa.array(np.arange(500) / 3),
    }
)
SETTINGS: dict[str, Any] = {
    "codec": "snappy",
    "row_group_rows": 128,
    "data_page_version": "1.0",
    "dictionary_columns": ("text",),
}


def written(path: Path, cuts: list[int], table: pa.Table = TABLE) -> str:
    """Writes the table in batches that end at `cuts`; returns the file's digest."""
    with PartWriter(path, table.schema, **SETTINGS) as writer:
        start = 0
        for cut in [*sorted(cuts), table.num_rows]:
            piece = table.slice(start, cut - start).combine_chunks()
            writer.write([column.combine_chunks() for column in piece.columns])
            start = cut
    assert writer.num_rows == table.num_rows
    return hashlib.sha256(path.read_bytes()).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=20))
def test_no_byte_depends_on_where_batches_end(tmp_path: Path, cuts: list[int]) -> None:
    assert written(tmp_path / "a", cuts) == written(tmp_path / "b", [])


def test_rows_come_back_in_row_groups_of_fixed_size(tmp_path: Path) -> None:
    written(tmp_path / "a", [3, 200, 201])
    metadata = pq.read_metadata(tmp_path / "a")
    assert [metadata.row_group(n).num_rows for n in range(4)] == [128, 128, 128, 116]
    assert pq.read_table(tmp_path / "a").equals(TABLE)
    column = metadata.row_group(0).column
    assert column(0).has_dictionary_page is False
    assert column(1).has_dictionary_page is True


def test_a_part_without_rows_has_the_schema(tmp_path: Path) -> None:
    written(tmp_path / "a", [], TABLE.slice(0, 0))
    assert pq.read_table(tmp_path / "a").equals(TABLE.slice(0, 0))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(LimitError, match=r"no space left while writing .*full"),
        PartWriter(full, TABLE.schema, **SETTINGS) as writer,
    ):
        for _ in range(1000):
            writer.write([column.combine_chunks() for column in TABLE.columns])


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot write"):
        PartWriter(tmp_path / "none" / "a", TABLE.schema, **SETTINGS)


def test_schemas_survive_as_text() -> None:
    schema = TABLE.schema.with_metadata({"pandas": "x"})
    assert decode_schema(encode_schema(schema)).equals(TABLE.schema, check_metadata=True)


def test_dictionaries_are_for_text_and_bytes() -> None:
    schema = pa.schema(
        [("a", pa.int64()), ("b", pa.string()), ("c", pa.large_binary()), ("d", pa.float32())]
    )
    assert dictionary_columns(schema) == ("b", "c")


# --- prediction columns ---------------------------------------------------------------------------


def columns(task: Task, predictions: Any, *classes: Any, kind: Any = None) -> Any:
    signature = Signature(
        inputs=(InputColumn(name="a", type="float"),), task=task, classes=tuple(classes)
    )
    names = prediction_names(task, "prediction", "probability", "probabilities")
    fields = prediction_fields(signature, names, kind or pa.float32())
    arrays = prediction_columns(predictions, signature, fields)
    return pa.table(arrays, schema=pa.schema(fields))


def test_a_regression_has_one_column() -> None:
    table = columns(Task.REGRESSION, np.array([1.5, 2.5], np.float32))
    assert table.to_pydict() == {"prediction": [1.5, 2.5]}
    wide = columns(Task.REGRESSION, np.array([1.5], np.float32), kind=pa.float64())
    assert wide.schema.field("prediction").type == pa.float64()


@pytest.mark.parametrize("classes", [(0, 1), ("no", "yes"), (False, True), (1.5, 2.5)])
def test_a_binary_model_gives_the_class_and_the_probability_of_the_second(classes: Any) -> None:
    table = columns(Task.BINARY, np.array([0.25, 0.5, 0.75, np.nan], np.float32), *classes)
    first, second = classes
    assert table["prediction"].to_pylist() == [first, first, second, first]
    assert table["probability"].to_pylist()[:3] == [0.25, 0.5, 0.75]


def test_a_multiclass_model_gives_the_class_and_all_probabilities() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    table = columns(Task.MULTICLASS, scores, "x", "y", "z", kind=pa.float64())
    assert table["prediction"].to_pylist() == ["y", "x"]
    assert table["probabilities"].to_pylist() == scores.tolist()
    assert table.schema.field("probabilities").type.list_size == 3
    assert columns(Task.MULTICLASS, np.empty((0, 3)), "x", "y", "z").num_rows == 0


@pytest.mark.parametrize("num_rows", [5, 5_000])
def test_a_full_disk_leaves_no_file_open(tmp_path: Path, num_rows: int) -> None:
    """Whether the rows fill a row group (written at once) or wait for the close."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    table = pa.table({"x": [float(number) for number in range(num_rows)]})
    with (
        pytest.raises(LimitError),
        PartWriter(full, table.schema, **{**SETTINGS, "row_group_rows": 1_000}) as writer,
    ):
        for batch in table.to_batches():
            writer.write(batch.columns)
    opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert "/dev/full" not in opened
