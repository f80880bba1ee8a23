"""Patterns of every dialect and events that may meet them, for property tests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from augury.rules.document import Literal

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


def witness(pattern: Any, *, in_list: bool) -> dict[str, Any]:
    """An event that is likely to meet the pattern; objects within it in a list, if so asked."""
    event: dict[str, Any] = {}
    for name, value in pattern.items():
        if name in ("$or", "$and"):
            for part in value[:1] if name == "$or" else value:
                event |= witness(part, in_list=in_list)
        elif name == "eventType":
            event["type"] = _scalar(value)
        elif isinstance(value, dict) and name not in ("$not", "exact", "prefix", "suffix"):
            inner = witness(value, in_list=in_list)
            event[name] = [inner, {"a": 7}] if in_list else inner
        elif name not in ("$not", "all", "any", "not"):
            event |= value if isinstance(value, dict) else {name: _scalar(value)}
    return event


def _scalar(leaf: Any) -> Any:
    while isinstance(leaf, list | dict):
        leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf), "a")
    return leaf


def written(value: Any) -> str:
    """JSON that keeps numbers as they were."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return value.text if isinstance(value, Literal) else json.dumps(value)
