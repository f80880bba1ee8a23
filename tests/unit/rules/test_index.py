"""The index against the meaning: whatever the matcher finds, asking one by one finds as well."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.errors import InvalidError, PatternError
from augury.rules import DIALECTS, Matcher, Pattern, compile_pattern
from augury.rules.document import Literal, read_event

EXAMPLES = 40
NAMES = st.sampled_from(["a", "b", "a", "b", "a.b", "time"])
TEXTS = st.sampled_from(
    [
        *("a", "ab", "Ab", "b", "", "é", "K", "k", '"', "10.0.0.1", "5", "*", "\ud800"),
        *("2026-01-01T00:00:00Z", "2026-01-01T08:30:00+01:00", "5 min", "2 KiB"),
    ]
)
NUMBERS = st.sampled_from(
    [
        *(0, -0.0, 1, 5, 5.0, 0.1, 2**53 + 1, 10**23, 1e23, 2048),
        *(Literal("1234567890123456.789"), Literal("1e400"), Literal("0.1000000000000000055")),
    ]
)
CONSTANTS = st.sampled_from([None, True, False])
SCALARS = TEXTS | NUMBERS | CONSTANTS
EVENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(NAMES, inner, max_size=3)
            | st.lists(st.dictionaries(NAMES, inner, max_size=2), max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def _one(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operand.map(lambda value: {name: value})


WORDS = TEXTS.filter(bool)
SOME = WORDS | st.lists(WORDS, min_size=1, max_size=3)
WILDCARDS = st.sampled_from(["*", "a*", "*b", "a*c", "*b*", "a*b*c", r"\*", "10.*", "é*"])
BOUND = st.sampled_from(
    [-2.5, 0, 0.1, 1, 5, 2**53, 2**53 + 1, 1e23, Literal("0.1000000000000000055")]
)
RANGES = st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), BOUND).map(list) | st.tuples(
    st.just(">="), st.sampled_from([-3, 0]), st.just("<"), BOUND.filter(lambda b: b > 0)
).map(list)
BOTH = (
    SCALARS
    | _one("prefix", WORDS | _one("equals-ignore-case", WORDS))
    | _one("suffix", WORDS | _one("equals-ignore-case", WORDS))
    | _one("equals-ignore-case", WORDS)
    | _one("wildcard", WILDCARDS)
    | _one("numeric", RANGES)
    | _one("exists", st.booleans())
    | _one("cidr", st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/64"]))
    | _one("anything-but", WORDS | st.lists(WORDS, min_size=1, max_size=2) | st.just(5))
    | _one("anything-but", _one("prefix", WORDS) | _one("wildcard", WILDCARDS))
)
ONE = (
    SCALARS
    | _one("prefix", SOME)
    | _one("contains", SOME)
    | _one("regex", st.sampled_from(["^a", "b$", "a|5", "é", "^$"]))
    | _one("anything-but", SCALARS)
    | _one("numeric", RANGES)
    | _one("size", st.sampled_from([[">", "1 KiB"], ["=", 5]]))
    | _one("wildcard", WILDCARDS)
)
AUGURY = (
    BOTH
    | ONE
    | _one("all", st.lists(ONE, min_size=1, max_size=2))
    | _one("none", st.lists(ONE, min_size=1, max_size=2))
    | _one("exactly", st.lists(ONE, min_size=1, max_size=2))
    | _one("$and", st.lists(ONE, min_size=1, max_size=2))
    | _one("cidr", st.sampled_from(["10.0.0.1/32", "::1/128"]))
    | _one("time", st.sampled_from([["=", "2026-01-01T00:00:00Z"], [">", "2026-01-01T00:00:00Z"]]))
    | _one("age", st.sampled_from([["<", "1h"], [">=", 0]]))
    | _one("duration", st.sampled_from([["<", "1h"], ["=", "PT5M"]]))
    | _one("day-of-week", st.just(["thu"]))
    | _one("time-of-day", st.just({"from": "08:00", "until": "09:00", "zone": "Europe/Berlin"}))
)


def _patterns(leaf: st.SearchStrategy[Any], *words: str) -> st.SearchStrategy[Any]:
    leaves = st.dictionaries(NAMES, st.lists(leaf, min_size=1, max_size=2), min_size=1, max_size=2)

    def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        members = st.lists(leaf, min_size=1, max_size=2) | inner
        found = st.dictionaries(NAMES, members, min_size=1, max_size=2)
        for word in words:
            parts = inner if word == "$not" else st.lists(inner, min_size=2, max_size=3)
            found = found | st.builds(lambda o, w, p: {**o, w: p}, inner, st.just(word), parts)
        return found

    return st.recursive(leaves, nest, max_leaves=4)


PATTERNS = {
    "augury": _patterns(AUGURY, "$or", "$and", "$not"),
    "eventbridge": _patterns(BOTH, "$or"),
    "oci": st.dictionaries(NAMES | st.just("eventType"), SCALARS | st.lists(SCALARS, max_size=2)),
    "cloudevents": st.recursive(
        st.sampled_from(["exact", "prefix", "suffix"]).flatmap(
            lambda n: _one(
                n, st.dictionaries(st.sampled_from(["a", "b", "time"]), WORDS, min_size=1)
            )
        ),
        lambda inner: (
            _one("all", st.lists(inner, min_size=1, max_size=3))
            | _one("any", st.lists(inner, min_size=1, max_size=3))
            | _one("not", inner)
        ),
        max_leaves=5,
    ),
}


def _witness(pattern: Any, *, in_list: bool) -> dict[str, Any]:
    """An event that is likely to meet the pattern; objects within it in a list, if so asked."""
    event: dict[str, Any] = {}
    for name, value in pattern.items():
        if name in ("$or", "$and"):
            for part in value[:1] if name == "$or" else value:
                event |= _witness(part, in_list=in_list)
        elif name == "eventType":
            event["type"] = _scalar(value)
        elif isinstance(value, dict) and name not in ("$not", "exact", "prefix", "suffix"):
            inner = _witness(value, in_list=in_list)
            event[name] = [inner, {"a": 7}] if in_list else inner
        elif name not in ("$not", "all", "any", "not"):
            event |= value if isinstance(value, dict) else {name: _scalar(value)}
    return event


def _scalar(leaf: Any) -> Any:
    while isinstance(leaf, list | dict):
        leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf), "a")
    return leaf


def _compiled(pattern: Any, dialect: str) -> Pattern | None:
    try:
        return compile_pattern(pattern, dialect=dialect)
    except PatternError:
        return None


def _written(value: Any) -> str:
    """JSON that keeps numbers as they were."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return value.text if isinstance(value, Literal) else json.dumps(value)


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
            witnesses = [_witness(p, in_list=i % 2 == 1) for i, p in enumerate(patterns)]
            for event in (*events, *witnesses):
                text = _written(event).encode()
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
        for form in (value, _written(value)):
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
