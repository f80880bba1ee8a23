"""An explanation agrees with the matcher, names the field that decided, and what nearly met it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from pattern_strategies import EVENTS, PATTERNS, witness, written

from augury.errors import PatternError
from augury.rules import DIALECTS, compile_pattern
from augury.rules.document import read_event
from augury.rules.explain import Failure, explain


def failure(pattern: Any, event: Any, dialect: str = "augury") -> Failure:
    found = explain(compile_pattern(pattern, dialect=dialect), event)
    assert found is not None
    return found


def near(pattern: Any, event: Any) -> list[str]:
    return [miss.kind for miss in failure(pattern, event).near_misses]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_agrees_with_the_matcher(dialect: str) -> None:
    verdicts: list[bool] = []

    @settings(max_examples=150, deadline=None)
    @given(PATTERNS[dialect], EVENTS)
    def check(pattern: Any, event: dict[str, Any]) -> None:
        try:
            compiled = compile_pattern(pattern, dialect=dialect)
        except PatternError:
            return
        for each in (event, witness(pattern, in_list=False), witness(pattern, in_list=True)):
            exact = read_event(written(each))
            found = explain(compiled, exact)
            assert (found is None) == compiled.matches(exact)
            verdicts.append(found is None)
            assert found is None or found.reason

    check()
    assert {True, False} <= set(verdicts)


def test_the_first_field_that_fails_is_named() -> None:
    pattern = {"type": ["shop.order.placed"], "data": {"amount": [{"numeric": [">", 100]}]}}
    found = failure(pattern, {"type": "shop.order.placed", "data": {"amount": 12}})
    assert (found.path, found.operator) == ("data.amount", "numeric")
    assert (found.expected, found.found) == (({"numeric": [">", 100]},), 12)
    assert found.reason == "expected {'numeric': ['>', 100]}, found 12"
    assert found.num_met == 1


def test_a_field_that_is_not_there() -> None:
    found = failure({"a": {"b": ["x", {"prefix": "y"}]}}, {"a": {}})
    assert (found.path, found.is_present, found.operator) == ("a.b", False, "equals|prefix")
    assert "no such field" in found.reason


def test_a_field_that_should_not_be_there() -> None:
    found = failure({"a": [{"exists": False}]}, {"a": 1})
    assert (found.operator, found.reason) == (
        "exists",
        "expected the field to be absent, found one",
    )


def test_of_several_ways_the_one_that_got_furthest_is_told() -> None:
    pattern = {"$or": [{"a": [1]}, {"b": [2], "c": [3]}]}
    found = failure(pattern, {"a": 5, "b": 2, "c": 4})
    assert (found.alternative, found.num_alternatives, found.path) == (2, 2, "c")


def test_what_is_ruled_out_is_named() -> None:
    found = failure({"a": [1], "$not": {"b": ["x"]}}, {"a": 1, "b": "x"})
    assert (found.operator, found.path, found.found) == ("$not", "b", "x")
    assert found.expected == ({"$not": {"b": ["x"]}},)
    both = failure({"a": [{"anything-but": ["x"]}]}, {"a": "x"})
    assert (both.operator, both.reason.split()[-1]) == ("anything-but", "one")


@pytest.mark.parametrize("dialect", ["augury", "eventbridge"])
def test_fields_that_only_different_elements_meet(dialect: str) -> None:
    pattern = {"a": {"x": [1], "y": [2]}}
    found = failure(pattern, {"a": [{"x": 1, "y": 0}, {"x": 0, "y": 2}]}, dialect)
    assert found.path == "a.y"
    assert "one and the same element" in found.reason
    alone = failure(pattern, {"a": [{"x": 1, "y": 0}, {"x": 1, "y": 3}]}, dialect)
    assert "one and the same element" not in alone.reason


@pytest.mark.parametrize(
    ("pattern", "event", "kind"),
    [
        ({"a": ["Landing"]}, {"a": "landing"}, "case"),
        ({"a": [{"suffix": ".csv"}]}, {"a": "x.CSV"}, "case"),
        ({"a": [{"wildcard": "in/*.csv"}]}, {"a": "IN/x.CSV"}, "case"),
        ({"a": ["a b/c"]}, {"a": "a%20b/c"}, "url-encoding"),
        ({"a": ["a b/c"]}, {"a": "a+b/c"}, "url-encoding"),
        ({"a": [{"prefix": "a%20b"}]}, {"a": "a b/c"}, "url-encoding"),
        ({"a": [5]}, {"a": "5"}, "number-as-string"),
        ({"a": ["5"]}, {"a": 5}, "number-as-string"),
        ({"a": [True]}, {"a": "true"}, "number-as-string"),
        ({"a": ["true"]}, {"a": True}, "number-as-string"),
        ({"a": [{"numeric": [">", 3]}]}, {"a": "5"}, "number-as-string"),
        ({"a": ["in/x"]}, {"a": "in/x/"}, "trailing-slash"),
        ({"a": [{"prefix": "/in/"}]}, {"a": "in/x"}, "trailing-slash"),
        ({"a": ["x"]}, {"a": " x\n"}, "whitespace"),
        ({"key": ["x"]}, {"data": {"key": "x"}}, "nested-under-data"),
        ({"data": {"subject": ["x"]}}, {"subject": "x", "data": {}}, "nested-under-data"),
        ({"data": {"key": ["x"]}}, {"data": {"Key": "x"}}, "field-name-case"),
        ({"data": {"key": ["x"]}}, {"data": {"object": {"key": "x"}}}, "other-place"),
    ],
)
def test_near_misses(pattern: Any, event: Any, kind: str) -> None:
    assert near(pattern, event) == [kind]


def test_what_is_simply_another_value_is_no_near_miss() -> None:
    assert near({"a": ["x"], "b": [1]}, {"a": "y", "c": "x"}) == []
    assert near({"a": [{"exists": False}]}, {"a": 1, "data": {}}) == []


def test_conditions_are_shown_as_patterns_write_them() -> None:
    leaf = [
        {"suffix": "b"}, {"equals-ignore-case": "c"}, {"prefix": {"equals-ignore-case": "d"}},
        {"contains": "e"}, {"regex": "^f$"}, {"wildcard": "g*\\*"}, {"cidr": "10.0.0.0/8"},
        {"numeric": [">=", 1, "<", 2]}, {"size": [">", "1 KiB"]}, {"duration": ["<=", "1 min"]},
        {"time": ["=", "2026-01-01T00:00:00Z"]}, {"day-of-week": ["mon"]},
        {"time-of-day": {"from": "08:00", "until": "09:00", "zone": "Europe/Berlin"}},
        {"$and": [{"prefix": ["h", "i"]}]}, {"all": ["j"]}, {"exactly": ["k"]},
        {"age": ["<", "1h"]}, None,
    ]  # fmt: skip
    assert list(failure({"a": leaf}, {"a": []}).expected) == [
        {"suffix": "b"}, {"equals-ignore-case": "c"}, {"prefix": {"equals-ignore-case": "d"}},
        {"contains": "e"}, {"regex": "^f$"}, {"wildcard": "g*\\*"}, {"cidr": "10.0.0.0/8"},
        {"numeric": [">=", 1, "<", 2]}, {"size": [">", 1024]}, {"duration": ["<=", 60]},
        {"time": ["=", "2026-01-01T00:00:00.000000Z"]},
        {"day-of-week": {"days": ["mon"], "zone": "UTC"}},
        {"time-of-day": {"from": "08:00:00", "until": "09:00:00", "zone": "Europe/Berlin"}},
        {"$and": [{"any": [{"prefix": "h"}, {"prefix": "i"}]}]}, None,
        {"all": ["j"]}, {"exactly": ["k"]}, {"age": ["<", 3600]},
    ]  # fmt: skip


def test_addresses_of_the_dialect_eventbridge_are_shown_as_addresses() -> None:
    leaf = ["10.0.0.1", "10.0.0.255", {"cidr": "10.0.0.0/8"}, {"cidr": "2001:db8::/32"}]
    found = failure({"a": leaf}, {"a": "x"}, "eventbridge")
    assert list(found.expected) == leaf
