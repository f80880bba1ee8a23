"""What the other dialects refuse, and the bounds that hold for all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from augury.errors import InvalidError, PatternError
from augury.rules import Matcher, PatternFault, compile_pattern


def faults(pattern: Any, dialect: str = "augury") -> list[str]:
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern, dialect=dialect)
    return [fault.path for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("leaf", "path"),
    [
        ({"prefix": ""}, "prefix"),
        ({"prefix": ["a", 5]}, "prefix[1]"),
        ({"suffix": {"wildcard": "x"}}, "suffix"),
        ({"suffix": {"equals-ignore-case": []}}, "suffix.equals-ignore-case"),
        ({"contains": []}, "contains"),
        ({"regex": "(a"}, "regex"),
        ({"regex": r"(a)\1"}, "regex"),
        ({"regex": "x" * 1001}, "regex"),
        ({"regex": "((a{1,100}){1,100}){1,10}"}, "regex"),
        ({"wildcard": "a**b"}, "wildcard"),
        ({"cidr": "10.0.0.0/33"}, "cidr"),
        ({"numeric": [">", 1, ">", 2]}, "numeric"),
        ({"numeric": [">", 2, "<", 1]}, "numeric"),
        ({"numeric": ["=", True]}, "numeric"),
        ({"size": [">", "1 XB"]}, "size"),
        ({"duration": ["<", "PT"]}, "duration"),
        ({"duration": ["<", "5 fortnights"]}, "duration"),
        ({"age": ["<", ""]}, "age"),
        ({"time": [">", "2026-01-01T00:00:00"]}, "time"),
        ({"time": [">", "yesterday"]}, "time"),
        ({"day-of-week": ["someday"]}, "day-of-week.days[0]"),
        ({"day-of-week": {"days": ["mon"], "zone": "Mars/Crater"}}, "day-of-week.zone"),
        ({"day-of-week": {"days": ["mon"], "zone": "Europe"}}, "day-of-week.zone"),
        ({"day-of-week": {"days": ["mon"], "zone": "../../etc/passwd"}}, "day-of-week.zone"),
        ({"day-of-week": {"days": ["mon"], "zone": ""}}, "day-of-week.zone"),
        ({"day-of-week": {"days": ["mon"], "zone": 5}}, "day-of-week.zone"),
        ({"time-of-day": {"from": "8", "until": "25:00"}}, "time-of-day.until"),
        ({"time-of-day": {"from": "08:00"}}, "time-of-day.until"),
        ({"time-of-day": {"from": "08:00", "until": "09:00", "x": 1}}, "time-of-day.x"),
        ({"exists": 1}, "exists"),
        ({"all": []}, "all"),
        ({"all": [{"exists": True}]}, "all[0]"),
        ({"$and": "x"}, "$and"),
        ({"anything-but": []}, "anything-but"),
        ({"near": 1}, "near"),
    ],
)
def test_each_fault_of_an_operator_has_its_place(leaf: Any, path: str) -> None:
    assert f"$.a[0].{path}" in faults({"a": [leaf]})


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ({"$nor": [{"a": [1]}]}, "$.$nor"),
        ({"$not": [{"a": [1]}]}, "$.$not"),
        ({"$and": {"a": [1]}}, "$.$and"),
        ({"$or": []}, "$.$or"),
        ({"$or": [{"a": [1]}, 5]}, "$.$or[1]"),
        ({"a": {"b": [1]}, "a.b": [2]}, "$['a.b']"),
        ({"a": [1], "$or": [{"a": [2]}]}, "$.$or[0].a"),
        ({"a..b": [1]}, "$['a..b']"),
        ({"": [1]}, "$['']"),
        ({"it's": 5}, "$['it\\'s']"),
        ('{"a": [1], "a": [2]}', "$.a"),
        ({5: [1]}, "$['5']"),
        ({"a": [object()]}, "$.a[0]"),
    ],
)
def test_each_fault_of_an_object_has_its_place(pattern: Any, path: str) -> None:
    assert path in faults(pattern)


def test_a_fault_says_what_is_allowed_and_what_was_found() -> None:
    with pytest.raises(
        PatternError, match=r"\$\.a\[0\]\.exists: expected true or false, found 'x'"
    ):
        compile_pattern({"a": [{"exists": "x"}]})
    with pytest.raises(PatternError) as caught:
        compile_pattern('{"a": [{"exists": {"b": 1}}], "c": 9007199254740993}')
    first, second = caught.value.faults
    assert isinstance(first, PatternFault) and isinstance(second, PatternFault)
    assert (first.path, first.allowed, first.found) == (
        "$.a[0].exists",
        "true or false",
        {"b": 1},
    )
    assert (second.path, second.found) == ("$.c", 9007199254740993)


def test_no_such_dialect() -> None:
    with pytest.raises(InvalidError, match="augury, eventbridge, oci, cloudevents"):
        compile_pattern({}, dialect="sql")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ({"data": {"a": []}}, "$.data.a"),
        ({"data": {"a": [{"prefix": "x"}]}}, "$.data.a[0]"),
        ([], "$"),
    ],
)
def test_faults_in_oci(pattern: Any, path: str) -> None:
    assert path in faults(pattern, "oci")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ({"exact": {"type": "a"}, "prefix": {"type": "b"}}, "$"),
        ({"sql": "x = 1"}, "$.sql"),
        ({"exact": {}}, "$.exact"),
        ({"exact": {"Type": "x"}}, "$.exact.Type"),
        ({"exact": {"data": "x"}}, "$.exact.data"),
        ({"exact": {"type": ""}}, "$.exact.type"),
        ({"any": []}, "$.any"),
        ([{"not": {"exact": {"type": 5}}}], "$[0].not.exact.type"),
        ("[]", "$"),
    ],
)
def test_faults_in_cloudevents(pattern: Any, path: str) -> None:
    assert path in faults(pattern, "cloudevents")


def test_cloudevents_compares_what_is_no_text_as_written() -> None:
    event = {"specversion": "1.0", "sequence": 42, "urgent": True, "subject": "42"}
    for filter_, meets in [
        ({"exact": {"sequence": "42"}}, True),
        ({"exact": {"urgent": "true"}}, True),
        ({"prefix": {"sequence": "4"}}, True),
        ({"suffix": {"urgent": "rue"}}, True),
        ({"exact": {"subject": "42"}}, True),
        ({"exact": {"sequence": "042"}}, False),
        ({"not": {"exact": {"nothing": "x"}}}, True),
        ({"all": [{"prefix": {"subject": "4"}}, {"suffix": {"subject": "2"}}]}, True),
        ({"all": [{"prefix": {"subject": "4"}}, {"suffix": {"subject": "3"}}]}, False),
    ]:
        assert compile_pattern(filter_, dialect="cloudevents").matches(event) is meets, filter_


def test_oci_takes_its_conditions_as_text() -> None:
    pattern = compile_pattern('{"eventType":"a.*","data":{"size":5}}', dialect="oci")
    assert pattern.matches({"type": "a.b", "data": {"size": 5}})
    assert not pattern.matches({"type": "a.b", "data": {"size": "5"}})
    assert compile_pattern("{}", dialect="oci").matches({})


def nested(depth: int) -> dict[str, Any]:
    pattern: dict[str, Any] = {"a": [1]}
    for _ in range(depth):
        pattern = {"a": pattern}
    return pattern


@pytest.mark.parametrize("dialect", ["augury", "eventbridge"])
@pytest.mark.parametrize(
    "pattern",
    [
        nested(150),
        {"$or": [{"a": [1]}] * 1001},
        {f"x{n}": {"$or": [{"a": [1]}, {"b": [1]}]} for n in range(10)},
        {f"f{n}": [n] for n in range(257)},
        {"a": [str(n) for n in range(20_001)]},
        {"a": [{"wildcard": f"*{n}*"} for n in range(201)]},
        {"a": [{"wildcard": "*a" * 33}]},
    ],
    ids=["depth", "or", "product", "fields", "values", "searches", "stars"],
)
def test_what_would_cost_too_much_is_refused(pattern: Any, dialect: str) -> None:
    assert faults(pattern, dialect)


def test_json_that_is_nested_without_end_is_refused() -> None:
    assert faults('{"a":' * 5000 + "[1]" + "}" * 5000) == ["$"]


@pytest.mark.parametrize("dialect", ["augury", "eventbridge"])
def test_hard_cases_take_no_time(dialect: str) -> None:
    """Backtracking over any of these would outlive the test."""
    matcher = Matcher(dialect=dialect)
    matcher.add("stars", {"a": [{"wildcard": "*a" * 32 + "b"}]})
    matcher.add("arrays", {name: {"x": [1], "y": [2]} for name in "bcdefghi"})
    matcher.add("last", {"b": {"x": [1]}, "c": {"x": [1]}, "d": {"x": [1]}, "e": {"x": [2]}})
    if dialect == "augury":
        matcher.add("regex", {"a": [{"regex": "(a+)+$"}, {"regex": "(.*a){20}b"}]})
    event: dict[str, Any] = {name: [{"x": 1}, {"y": 2}] * 50 for name in "bcdefghi"}
    start = time.process_time()
    assert matcher.match({**event, "a": "a" * 20_000 + "!"}) == set()
    assert time.process_time() - start < 5
