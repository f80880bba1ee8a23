"""One pattern, one event."""

from __future__ import annotations

from typing import Any

import pytest

from augury.errors import InvalidError, PatternError
from augury.rules import Matcher, compile_pattern

EVENT: dict[str, Any] = {
    "type": "augury.object.created",
    "n": 5,
    "none": None,
    "yes": True,
    "data": {
        "key": "in/day.parquet",
        "n": 1000,
        "tags": ["red", "blue"],
        "rows": [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
        "dotted.name": "x",
    },
}


@pytest.mark.parametrize(
    "pattern",
    [
        {"type": ["other", "augury.object.created"]},
        {"n": [5]},
        {"n": [5.0]},
        {"none": [None]},
        {"yes": [True]},
        {"data": {"key": [{"prefix": "in/"}]}},
        {
            "data": {
                "key": [{"suffix": ".parquet"}],
                "n": [{"numeric": [">", 0, "<=", 1e3]}],
            }
        },
        {"data.key": [{"prefix": "in/"}]},
        {"data": {"dotted": {"name": ["x"]}}},
        {"data": {"tags": ["blue"]}},
        {"data": {"rows": {"a": [3], "b": [4]}}},
        {"type": [{"anything-but": "x"}]},
        {"type": [{"anything-but": ["x", "y"]}]},
        {"data": {"key": [{"anything-but": {"prefix": "out/"}}]}},
        {"none": [{"exists": True}]},
        {"absent": [{"exists": False}]},
        {"type": ["x", {"exists": True}]},
        {"$or": [{"n": [6]}, {"n": [5]}]},
        {"data": {"$or": [{"key": ["x"]}, {"rows": {"a": [1]}}], "rows": {"b": [2]}}},
        {"type": [{"equals-ignore-case": "AUGURY.object.CREATED"}]},
    ],
)
def test_matches(pattern: dict[str, Any]) -> None:
    assert compile_pattern(pattern).matches(EVENT)


@pytest.mark.parametrize(
    "pattern",
    [
        {"type": ["augury.object"]},
        {"n": ["5"]},
        {"n": [True]},
        {"yes": [1]},
        {"none": [False]},
        {"data": {"key": [{"prefix": "day"}]}},
        {"data": {"n": [{"numeric": ["<", 1000]}]}},
        {"data": {"key": [{"numeric": [">", 0]}]}},
        {"data": {"rows": {"a": [1], "b": [4]}}},
        {"absent": [{"anything-but": "x"}]},
        {"absent": [{"exists": True}]},
        {"type": [{"exists": False}]},
        {"type": [{"anything-but": ["x", "augury.object.created"]}]},
        {"$or": [{"n": [6]}, {"n": [7]}]},
        {"type": ["augury.object.created"], "n": [6]},
    ],
)
def test_does_not_match(pattern: dict[str, Any]) -> None:
    assert not compile_pattern(pattern).matches(EVENT)


def test_every_fault_is_named_with_its_place() -> None:
    pattern = {
        "a": "text",
        "b": {},
        "c": [{"prefix": 3}, {"near": "x"}],
        "d": [{"numeric": [">"]}],
        "$or": [{"e": []}],
    }
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert [fault.path for fault in caught.value.faults] == [
        "$.a",
        "$.b",
        "$.c[0].prefix",
        "$.c[1].near",
        "$.d[0].numeric",
        "$.$or[0].e",
    ]
    assert isinstance(caught.value, InvalidError)


@pytest.mark.parametrize("pattern", ["{", b"\xff", "[]", "3", b"null", "{}"])
def test_what_is_no_pattern_at_all(pattern: str | bytes) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


def test_a_matcher_adds_replaces_and_removes() -> None:
    matcher = Matcher({"one": {"n": [5]}, "two": '{"n": [6]}'})
    assert matcher.match(EVENT) == {"one"}
    assert matcher.match(b'{"n": 6}') == {"two"}
    matcher.add("two", {"n": [5]})
    assert matcher.match(EVENT) == {"one", "two"}
    matcher.remove("one")
    matcher.remove("never there")
    assert matcher.match(EVENT) == {"two"}
