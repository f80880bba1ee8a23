"""The index against the meaning: whatever the matcher finds, asking one by one finds as well."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_strategies import EVENTS, NAMES, PATTERNS, SCALARS, witness, written

from augury.errors import InvalidError, PatternError
from augury.rules import DIALECTS, Matcher, Pattern, compile_pattern
from augury.rules.document import read_event

EXAMPLES = 40


def _compiled(pattern: Any, dialect: str) -> Pattern | None:
    try:
        return compile_pattern(pattern, dialect=dialect)
    except PatternError:
        return None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_matcher_finds_what_the_patterns_mean(dialect: str) -> None:
    found: list[int] = []

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(
        st.lists(PATTERNS[dialect], min_size=1, max_size=6),
        st.lists(EVENTS, min_size=1, max_size=3),
        st.integers(0, 5),
    )
    def check(patterns: list[Any], events: list[dict[str, Any]], dropped: int) -> None:
        compiled = {f"r{i}": _compiled(p, dialect) for i, p in enumerate(patterns)}
        known = {rule_id: pattern for rule_id, pattern in compiled.items() if pattern is not None}
        matcher = Matcher(known)
        for _ in range(2):
            witnesses = [witness(p, in_list=i % 2 == 1) for i, p in enumerate(patterns)]
            for event in (*events, *witnesses):
                text = written(event).encode()
                exact = read_event(text)
                meant = {r for r, pattern in known.items() if pattern.matches(exact)}
                assert matcher.match(exact) == meant
                assert matcher.match(text) == meant
                found.append(len(meant))
            matcher.remove(f"r{dropped}")
            known.pop(f"r{dropped}", None)

    check()
    assert sum(found) > 10  # it was no idle talk
    assert 0 in found


JSON = st.recursive(
    SCALARS | st.sampled_from(["$or", "prefix", ">", "="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES
            | st.sampled_from(["$or", "$and", "$not", "$x", "", ".", "prefix", "numeric", "regex"])
            | st.sampled_from(["all", "any", "not", "exact", "age", "time", "cidr", "exists"])
            | st.sampled_from(["anything-but", "wildcard", "size", "day-of-week", "time-of-day"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_whatever_is_no_pattern_is_refused_in_the_declared_way(dialect: str) -> None:
    @settings(max_examples=120, deadline=None)
    @given(JSON)
    def check(value: Any) -> None:
        if not isinstance(value, dict | list):
            return
        for form in (value, written(value)):
            try:
                compile_pattern(form, dialect=dialect).matches({"a": [{"b": "a"}], "b": 5})
            except PatternError as error:
                assert error.faults
                assert all(fault.path.startswith("$") and fault.message for fault in error.faults)

    check()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode()))
def test_bytes_that_are_no_event_are_refused_in_the_declared_way(raw: bytes) -> None:
    matcher = Matcher({"r": {"a": {"b": [5]}}})
    with contextlib.suppress(InvalidError):
        assert matcher.match(raw) <= {"r"}
    with pytest.raises(InvalidError):
        matcher.match(b"[" + raw)


def test_events_of_other_mappings_and_sequences_are_understood() -> None:
    from types import MappingProxyType

    matcher = Matcher({"r": {"a": {"b": ["x"]}}, "s": {"c": [{"exists": True}]}})
    event = MappingProxyType({"a": (MappingProxyType({"b": ("y", "x")}),)})
    assert matcher.match(event) == {"r"}


def test_a_rule_that_is_added_again_is_replaced_in_every_posting() -> None:
    matcher = Matcher({"r": {"$or": [{"a": ["x"]}, {"b": ["x"], "c": ["y"]}]}})
    matcher.add("r", {"a.d": [{"prefix": "z"}]})
    assert matcher.match(b'{"a":"x"}') == set()
    assert matcher.match(b'{"a":{"d":"zz"}}') == {"r"}
    matcher.remove("r")
    assert (matcher.match(b'{"a":{"d":"zz"}}'), len(matcher)) == (set(), 0)


def test_a_bad_pattern_leaves_the_matcher_as_it_was() -> None:
    matcher = Matcher({"r": {"a": ["x"]}})
    with pytest.raises(PatternError):
        matcher.add("r", {"a": "x"})
    assert matcher.match({"a": "x"}) == {"r"}


def test_many_rules_of_every_kind_at_one_path() -> None:
    rules: dict[str, Any] = {}
    for n in range(300):
        rules |= {
            f"text{n}": {"a": [f"v{n}"]},
            f"prefix{n}": {"a": [{"prefix": f"v{n}"}]},
            f"suffix{n}": {"a": [{"suffix": f"{n}x"}]},
            f"fold{n}": {"a": [{"equals-ignore-case": f"V{n}X"}]},
            f"range{n}": {"a": [{"numeric": [">", n, "<=", n + 3]}]},
            f"net{n}": {"a": [{"cidr": f"10.0.{n % 256}.0/24"}]},
            f"wild{n}": {"a": [{"wildcard": f"v*{n}*"}]},
            f"star{n}": {"a": [{"wildcard": f"*{n}*"}]},
            f"end{n}": {"a": [{"wildcard": f"*{n}*x"}]},
            f"but{n}": {"a": [{"anything-but": [f"v{n}", f"v{n + 1}"]}]},
            f"buts{n}": {
                "$or": [{"a": [{"anything-but": f"v{n}"}]}, {"a": [{"none": [f"v{n + 1}"]}]}]
            },
            f"field{n}": {f"a{n}": ["x"], "a": [{"exists": True}]},
            f"regex{n}": {"a": [{"regex": f"^v{n}"}]},
        }
    compiled = {rule_id: compile_pattern(pattern) for rule_id, pattern in rules.items()}
    matcher = Matcher(compiled)
    for value in [
        "v1",
        "v12x",
        "v123x",
        "V7x",
        "v\n12\nx",
        "v12\ud800x",
        17,
        17.5,
        0,
        400,
        "10.0.7.9",
        "10.1.0.0",
        None,
    ]:
        event = {"a": value, "a7": "x", "a.b": 1}
        meant = {rule_id for rule_id, pattern in compiled.items() if pattern.matches(event)}
        assert matcher.match(event) == meant
        assert matcher.match(json.dumps(event).encode()) == meant
