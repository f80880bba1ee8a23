"""Parsed footers are kept by identity, a few of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from augury.data.dataset import open_planned
from augury.data.footers import FooterCache
from augury.settings import Settings
from augury.storage.objects import locate


@pytest.fixture
def read(tmp_path: Path, settings: Settings) -> Any:
    def read(cache: FooterCache, name: str, num_rows: int | None = None) -> Any:
        path = tmp_path / name
        if num_rows is not None:
            pq.write_table(pa.table({"a": range(num_rows)}), path)
        store, key = locate(str(path), settings)
        info = store.head(key)
        with open_planned(info.uri, info.tag, settings) as source:
            return cache.get(source, info.uri, info.tag)

    return read


def test_the_same_file_is_parsed_once(read: Any) -> None:
    cache = FooterCache()
    metadata, schema = read(cache, "a", 3)
    assert metadata.num_rows == 3
    assert schema.names == ["a"]
    assert read(cache, "a")[0] is metadata


def test_a_replaced_file_is_parsed_again(read: Any) -> None:
    cache = FooterCache()
    read(cache, "a", 3)
    assert read(cache, "a", 4)[0].num_rows == 4


def test_the_file_used_longest_ago_is_forgotten_first(read: Any) -> None:
    cache = FooterCache(most_files=2)
    first, second = read(cache, "a", 1), read(cache, "b", 2)
    assert read(cache, "a") is first
    read(cache, "c", 3)
    assert read(cache, "a") is first
    assert read(cache, "b") is not second


def test_the_last_one_is_kept_however_large_it_is(read: Any) -> None:
    cache = FooterCache(most_bytes=1)
    first = read(cache, "a", 1)
    assert read(cache, "a") is first
    second = read(cache, "b", 1)
    assert read(cache, "b") is second
    assert read(cache, "a") is not first
