from __future__ import annotations

import pytest

from augury.sources.keys import glob_matches, is_announced


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("day.parquet", True),
        ("2026/11/day.parquet", True),
        ("a.b/c_d/e-f.csv", True),
        (".hidden", False),
        ("_SUCCESS", False),
        ("run/_rejected/part.parquet", False),
        (".git/config", False),
        ("day.parquet.tmp", False),
        ("day.parquet.part", False),
        ("day.PARQUET.TMP", False),
        ("day.crdownload", False),
        ("day.parquet~", False),
        ("tmp", True),
        ("a.tmp/day.parquet", True),
    ],
)
def test_hidden_and_unfinished_names_are_skipped(key: str, expected: bool) -> None:
    assert is_announced(key) is expected


@pytest.mark.parametrize(
    ("glob", "key", "expected"),
    [
        ("*.parquet", "a.parquet", True),
        ("*.parquet", "x/a.parquet", False),
        ("**/*.parquet", "a.parquet", True),
        ("**/*.parquet", "x/y/a.parquet", True),
        ("**/*.parquet", "x/y/a.csv", False),
        ("in/**", "in/x/y", True),
        ("in/**", "in2/x", False),
        ("in/*/day.*", "in/x/day.csv", True),
        ("in/*/day.*", "in/x/y/day.csv", False),
        ("day-?.csv", "day-1.csv", True),
        ("day-?.csv", "day-10.csv", False),
        ("day-[0-3].csv", "day-2.csv", True),
        ("day-[!0-3].csv", "day-2.csv", False),
        ("day-[!0-3].csv", "day-7.csv", True),
        ("day[!0-3]csv", "day/csv", False),
        ("a+b(c).csv", "a+b(c).csv", True),
        ("a.csv", "axcsv", False),
        ("a[.csv", "a[.csv", True),
        ("*", "line\nbreak", True),
    ],
)
def test_globs(glob: str, key: str, expected: bool) -> None:
    assert glob_matches(glob, key) is expected


def test_exclude_is_stronger_than_include() -> None:
    globs = {"include": ["in/**", "*.csv"], "exclude": ["**/old/**"]}
    assert is_announced("in/new/x", **globs)
    assert is_announced("x.csv", **globs)
    assert not is_announced("in/old/x", **globs)
    assert not is_announced("out/x", **globs)


def test_hidden_names_are_announced_where_a_glob_names_them() -> None:
    marked = ["**/*.parquet", "**/_SUCCESS", "**/*"]
    assert is_announced("day/_SUCCESS", include=marked)
    assert not is_announced("day/_OTHER", include=marked)
    assert not is_announced("_tmp/_SUCCESS", include=marked)
    assert not is_announced("day/_SUCCESS", include=marked, exclude=["day/*"])
