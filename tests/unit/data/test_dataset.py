"""Finding files and reading footers, in a folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from augury.data.dataset import discover, read_footer
from augury.errors import CorruptError, IdentityError, NotFoundError
from augury.settings import Settings

TABLE = pa.table({"a": range(10), "b": [f"text {n}" * 50 for n in range(10)]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "_rejected/r.parquet", ".x.parquet"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(TABLE, path, row_group_size=4)
    (tmp_path / "in" / "readme.txt").write_text("not data")
    (tmp_path / "in" / "_manifest.json").write_text("{}")
    return tmp_path / "in"


def found(inputs: list[str], settings: Settings) -> list[str]:
    return [
        info.uri.rpartition("/in/")[2] for info in discover([(u, None) for u in inputs], settings)
    ]


def test_a_folder_gives_its_parquet_files_in_order_without_hidden_ones(
    folder: Path, settings: Settings
) -> None:
    expected = ["a.parquet", "b.parquet", "deep/c.parquet"]
    for uri in (f"{folder}", f"{folder}/", f"file://{folder}", f"file://{folder}/"):
        assert found([uri], settings) == expected


def test_an_object_counts_once_however_often_it_is_named(folder: Path, settings: Settings) -> None:
    inputs = [f"{folder}/b.parquet", f"file://{folder}/", f"{folder}/a.parquet"]
    assert found(inputs, settings) == ["a.parquet", "b.parquet", "deep/c.parquet"]


def test_an_object_named_outright_may_be_called_anything(folder: Path, settings: Settings) -> None:
    assert found([f"{folder}/_rejected/r.parquet"], settings) == ["_rejected/r.parquet"]


def test_an_empty_folder_is_no_error_but_a_missing_one_is(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "empty").mkdir()
    assert discover([(f"{tmp_path}/empty/", None)], settings) == []
    for missing in ("gone/", "gone", "gone.parquet"):
        with pytest.raises(NotFoundError, match="gone"):
            discover([(f"{tmp_path}/{missing}", None)], settings)


def test_a_folder_with_other_files_only_is_told(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "data.csv").write_text("a,b")
    with pytest.raises(NotFoundError, match=r"expected \.parquet objects .* 'data.csv'"):
        discover([(f"{tmp_path}/", None)], settings)


def test_an_input_s_tag_must_be_the_object_s(folder: Path, settings: Settings) -> None:
    (info,) = discover([(f"{folder}/a.parquet", None)], settings)
    assert discover([(info.uri, info.tag)], settings) == [info]
    with pytest.raises(IdentityError, match=f"expected tag other, found {info.tag}") as caught:
        discover([(info.uri, "other")], settings)
    assert caught.value.attributes["found"] == info.tag
    with pytest.raises(IdentityError, match="expected tag t, found nothing"):
        discover([(f"{folder}/gone.parquet", "t")], settings)


def test_a_footer_tells_schema_rows_and_the_bytes_of_chosen_columns(
    folder: Path, settings: Settings
) -> None:
    (info,) = discover([(f"{folder}/a.parquet", None)], settings)
    footer = read_footer(info, settings)
    assert footer.schema.equals(TABLE.schema)
    assert [group.num_rows for group in footer.row_groups] == [4, 4, 2]
    assert footer.num_rows == 10
    alone = read_footer(info, settings, ["a"])
    assert 0 < alone.size_bytes < footer.size_bytes
    assert alone.size_bytes + read_footer(info, settings, ["b"]).size_bytes == footer.size_bytes


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all, but long enough" * 9])
def test_what_is_no_parquet_file_is_told_by_name(
    tmp_path: Path, settings: Settings, content: bytes
) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    (info,) = discover([(f"{tmp_path}/bad.parquet", None)], settings)
    with pytest.raises(CorruptError, match=r"bad\.parquet is not a sound Parquet file"):
        read_footer(info, settings)


def test_a_damaged_footer_is_told_by_name(folder: Path, settings: Settings) -> None:
    path = folder / "a.parquet"
    data = bytearray(path.read_bytes())
    data[-40:-8] = b"\xff" * 32
    path.write_bytes(data)
    (info,) = discover([(str(path), None)], settings)
    with pytest.raises(CorruptError, match=r"a\.parquet"):
        read_footer(info, settings)


def test_a_file_replaced_or_deleted_since_it_was_found_is_told(
    folder: Path, settings: Settings
) -> None:
    path = folder / "a.parquet"
    (info,) = discover([(str(path), None)], settings)
    pq.write_table(TABLE.slice(1), path)
    with pytest.raises(IdentityError, match=f"expected tag {info.tag}, found ") as caught:
        read_footer(info, settings)
    assert caught.value.attributes["expected"] == info.tag
    path.unlink()
    with pytest.raises(IdentityError, match="found nothing: it was deleted"):
        read_footer(info, settings)
