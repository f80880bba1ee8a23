"""What is allowed in a pattern and yet most often a mistake."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from pattern_strategies import EVENTS, PATTERNS, witness, written

from augury.errors import PatternError
from augury.rules import DIALECTS, compile_pattern
from augury.rules.document import read_event
from augury.rules.lint import lint
from augury.rules.satisfiable import contradiction

EVENT = {"id": "1", "source": "shop", "type": "shop.order.placed", "data": {"amount": 12}}


def kinds(pattern: Any, sample: Any = (), dialect: str = "augury") -> list[str]:
    return [w.kind for w in lint(compile_pattern(pattern, dialect=dialect), sample)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_matches_something_is_never_called_impossible(dialect: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(PATTERNS[dialect], EVENTS)
    def check(pattern: Any, event: dict[str, Any]) -> None:
        try:
            compiled = compile_pattern(pattern, dialect=dialect)
        except PatternError:
            return
        for each in (event, witness(pattern, in_list=False), witness(pattern, in_list=True)):
            # what no bus lets through is out of the question
            told = {**each, "id": "a", "source": "a", "type": str(each.get("type", "a"))}
            told["time"] = str(told.get("time", "a"))
            exact = read_event(written(told))
            if compiled.matches(exact):
                assert contradiction(compiled.condition) is None
        lint(compiled, [event])  # whatever the pattern, it is an answer and no error

    check()


@pytest.mark.parametrize(
    "pattern",
    [
        {"a": [{"$and": ["x", "y"]}]},
        {"a": [{"$and": [{"prefix": "x"}, {"prefix": "y"}]}]},
        {"a": [{"$and": [{"suffix": "x"}, {"suffix": "y"}]}]},
        {"a": [{"$and": [{"prefix": "x"}, 5]}]},
        {"a": [{"$and": [{"prefix": "x"}, {"numeric": [">", 5]}]}]},
        {"a": [{"$and": [{"numeric": [">", 5]}, {"numeric": ["<", 5]}]}]},
        {"a": [{"$and": [{"numeric": [">", 5]}, {"numeric": ["<=", 5]}]}]},
        {"a": [{"$and": [{"prefix": "ab"}, {"anything-but": {"prefix": "a"}}]}]},
        {"a": [{"$and": [{"day-of-week": ["mon"]}, {"day-of-week": ["tue"]}]}]},
        {"a": [1], "$not": {"a": [1, 2]}},
        {"a": [{"exists": False}], "$and": [{"$or": [{"b": [1], "$not": {"b": [1]}}]}]},
        {"type": ["x"], "$and": [{"type": ["y"]}]},
        {"type": [5]},
        {"type": [{"exists": False}]},
    ],
)
def test_contradictions(pattern: Any) -> None:
    (warning,) = lint(compile_pattern(pattern), [EVENT])
    assert warning.kind == "never-matches"
    assert "no event can ever match" in warning.message


def test_absent_and_yet_with_fields() -> None:
    assert kinds({"a": [{"exists": False}], "a.b": [1]}, dialect="eventbridge") == ["never-matches"]


@pytest.mark.parametrize(
    "pattern",
    [
        {"a": [1], "$and": [{"a": [2]}]},  # two elements of an array
        {"a": [{"$and": [{"prefix": "x"}, {"prefix": "xy"}]}]},
        {"a": [{"$and": [{"numeric": [">=", 5]}, {"numeric": ["<=", 5]}]}]},
        {"a": [1, 2], "$not": {"a": [1]}},
        {"$or": [{"type": [5]}, {"type": ["x"]}]},
    ],
)
def test_what_only_looks_contradictory(pattern: Any) -> None:
    assert "never-matches" not in kinds(pattern)


def test_a_field_that_no_event_of_the_kind_has() -> None:
    pattern = {"type": ["shop.order.placed"], "data": {"colour": ["red"], "amount": [12]}}
    (warning,) = lint(compile_pattern(pattern), [EVENT])
    assert (warning.kind, warning.path) == ("never-seen", "data.colour")
    assert "last 1 events" in warning.message
    assert kinds({"data": {"amount": [99], "colour": [{"exists": False}]}}, [EVENT]) == []


def test_a_kind_of_event_that_never_came() -> None:
    assert kinds({"type": ["shop.order.paid"], "data": {"x": [1]}}, [EVENT]) == []
    both = [EVENT, {**EVENT, "type": "b", "source": "other"}]
    (warning,) = lint(compile_pattern({"type": ["b"], "source": ["shop"]}), both)
    assert (warning.kind, "together" in warning.message) == ("never-seen", True)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ({"type": ["Shop.Order.Placed"]}, "case"),
        ({"data": {"amount": ["12"]}}, "bare value"),
        ({"amount": [12]}, "write `data.amount`"),
    ],
)
def test_values_that_are_nearly_right(pattern: Any, hint: str) -> None:
    (warning,) = lint(compile_pattern(pattern), [EVENT])
    assert warning.kind == "near-miss"
    assert hint in warning.message


def test_numbers_written_as_texts() -> None:
    assert kinds({"data": {"amount": ["12"]}}) == ["number-as-string"]
    assert kinds({"data": {"ok": ["true"]}}) == ["number-as-string"]
    assert kinds({"data": {"amount": ["12", 12]}}) == []
    assert kinds({"data": {"amount": ["12"]}}, [{**EVENT, "data": {"amount": "7"}}]) == []
    assert kinds({"subject": ["12"], "data": {"amount": ["012"]}}) == []


def test_what_costs_much() -> None:
    assert kinds({"a": [{"wildcard": "*a*b*c*"}]}) == ["cost"]
    assert kinds({"a": [{"wildcard": "*a*b"}, {"regex": "^a.c$"}]}) == []
    assert kinds({"a": [{"contains": [f"w{n}" for n in range(21)]}]}) == ["cost"]
    assert kinds({"a": [{"anything-but": [{"regex": ".*b"}]}]}) == ["cost"]


@pytest.mark.parametrize(
    ("expression", "instead"),
    [
        ("^in/", '{"prefix": "in/"}'),
        (r"\.csv$", '{"suffix": ".csv"}'),
        ("^x$", '"x"'),
        ("orders", '{"contains": "orders"}'),
    ],
)
def test_expressions_that_are_fixed_texts(expression: str, instead: str) -> None:
    (warning,) = lint(compile_pattern({"a": [{"regex": expression}]}))
    assert (warning.kind, instead in warning.message) == ("cost", True)


def test_a_type_that_augury_does_not_emit() -> None:
    (warning,) = lint(compile_pattern({"type": ["augury.run.suceeded"]}))
    assert warning.kind == "unknown-type"
    assert "augury.run.succeeded" in warning.message
    assert kinds({"type": ["augury.run.succeeded"]}) == []


def test_a_rule_for_everything() -> None:
    assert kinds({}, dialect="oci") == ["matches-everything"]
