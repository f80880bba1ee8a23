from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from augury.errors import CorruptError, NotFoundError
from augury.models.sample import read_sample
from augury.models.signature import InputColumn


def _write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_come_in_the_files_order_with_arrows_types(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "s.parquet",
        b=pa.array([1], pa.int16()),
        a=pa.array([1.0], pa.float32()),
        t=pa.array(["x"], pa.large_string()),
        d=pa.array([0], pa.timestamp("us")),
    )
    assert list(read_sample(path).values()) == [
        InputColumn(name="b", type="int16"),
        InputColumn(name="a", type="float"),
        InputColumn(name="t", type="string"),
        InputColumn(name="d", type="timestamp[us]"),
    ]


def test_categories_keep_their_order(tmp_path: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([2, 0, None], pa.int8()), ["z", "a", "m"])
    found = read_sample(_write(tmp_path / "s.parquet", words=words))
    assert found["words"].categories == ("z", "a", "m")
    assert found["words"].type == "string"


def test_what_cannot_be_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no sample file"):
        read_sample(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("a,b")
    with pytest.raises(CorruptError, match=r"text\.parquet is not readable as Parquet"):
        read_sample(tmp_path / "text.parquet")
