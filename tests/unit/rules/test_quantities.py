"""Numbers, sizes, durations, instants and addresses at their edges."""

from __future__ import annotations

import enum
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.errors import InvalidError, PatternError
from augury.rules import Matcher, compile_pattern
from augury.rules.document import Literal, read_event, read_real
from augury.rules.quantities import (
    canonical,
    compare,
    is_double,
    parse_duration,
    parse_instant,
    parse_size,
)

NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53 + 1, 10**23, 1e23, Literal("0.1000000000000000055"), Literal("1e400")]),
)


def exact(value: Any) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


@given(NUMBERS, NUMBERS)
def test_canonical_forms_are_equal_if_and_only_if_the_numbers_are(left: Any, right: Any) -> None:
    same = exact(left) == exact(right)
    assert (canonical(left) == canonical(right)) is same
    assert (compare(left, right) == 0) is same
    assert (compare(left, right) < 0) is (exact(left) < exact(right))
    if same:
        assert hash(canonical(left)) == hash(canonical(right))


@given(st.decimals(allow_nan=False, allow_infinity=False), st.sampled_from(["{}", "{:e}", "{:f}"]))
def test_a_literal_is_kept_unless_a_double_prints_as_it(number: Decimal, form: str) -> None:
    text = form.format(number)
    if len(text) > 4000:
        return
    read = read_real(text)
    assert is_double(read) is (Decimal(repr(float(text))) == Decimal(text))
    assert exact(read) == Decimal(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1.5 kb", 1500),
        ("2 GiB", 2 * 2**30),
        ("1KiB", 1024),
        ("3 E", 3 * 10**18),
        (12, 12),
        ("0.3 KB", 300),
    ],
)
def test_sizes(text: Any, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        ("90", None),
        ("90 s", 90),
        ("1h 30m", 5400),
        ("1.5 hours", 5400),
        ("250 ms", Decimal("0.25")),
        ("2 weeks", 1_209_600),
        ("PT5M", 300),
        ("P1DT0.5S", Decimal("86400.5")),
        ("P2W", 1_209_600),
        ("P", None),
        ("PT", None),
        ("P1Y", None),
        ("5 min or so", None),
        ("", None),
        (True, None),
        (None, None),
        ("1" * 100_000, None),
    ],
)
def test_durations(text: Any, seconds: Any) -> None:
    if seconds is None:
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)
    else:
        assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "20260101T000000Z",
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00+23:59",
        5,
        "x" * 20,
    ],
)
def test_what_is_no_instant(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_instant(text)


@pytest.mark.parametrize(
    "value", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"]
)
def test_the_ends_of_time_are_on_no_day_elsewhere(value: str) -> None:
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    for zone in ("Pacific/Kiritimati", "America/Los_Angeles"):
        pattern = compile_pattern({"a": [{"day-of-week": {"days": days, "zone": zone}}]})
        pattern.matches({"a": value})  # whatever it says, it must not fail


def test_time_of_day_within_one_day_and_at_its_bounds() -> None:
    pattern = compile_pattern({"a": [{"time-of-day": {"from": "08:00", "until": "09:30"}}]})
    for value, meets in [
        ("08:00:00", True),
        ("09:29:59", True),
        ("09:30:00", False),
        ("07:59:59", False),
    ]:
        assert pattern.matches({"a": f"2026-01-01T{value}Z"}) is meets


@pytest.mark.parametrize(
    ("leaf", "values"),
    [
        ({"numeric": [">", 1]}, ["1", None, True, [], {}]),
        ({"size": [">", 1]}, ["many", None, True]),
        ({"duration": [">", 1]}, ["long", None, False]),
        ({"time": [">", "2026-01-01T00:00:00Z"]}, ["late", 5, None]),
        ({"age": [">", 1]}, ["late", 5, None]),
        ({"day-of-week": ["mon"]}, ["monday", 5]),
        ({"time-of-day": {"from": "00:00", "until": "00:00"}}, ["noon", 5]),
        ({"cidr": "::/0"}, ["::g", 5, "1.2.3.4", "", "x" * 1000]),
    ],
)
def test_values_of_another_kind_never_meet(leaf: Any, values: list[Any]) -> None:
    pattern = compile_pattern({"a": [leaf]})
    for value in values:
        assert not pattern.matches({"a": value, "time": "2026-01-01T00:00:00Z"})


def test_a_pattern_in_augury_ends_where_its_text_does() -> None:
    with pytest.raises(PatternError, match="Extra data"):
        compile_pattern('{"a":[1]} and more')
    with pytest.raises(PatternError, match="NaN is not JSON"):
        compile_pattern('{"a":[NaN]}')


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e99999999999999999999"])
def test_numbers_beyond_all_bounds_are_refused(number: str) -> None:
    with pytest.raises(PatternError, match="beyond all bounds"):
        compile_pattern(f'{{"a":[{number}]}}')
    with pytest.raises(ValueError, match="beyond all bounds"):
        read_event(number)
    for dialect in ("augury", "eventbridge"):
        with pytest.raises(InvalidError):
            Matcher({"r": {"a": [5]}}, dialect=dialect).match(f'{{"a":{number}}}'.encode())


def test_numbers_just_within_bounds_cost_nothing() -> None:
    number = "9e999999999999999999"
    matcher = Matcher({"r": f'{{"a":[{number}]}}', "s": {"a": [{"numeric": [">", 5]}]}})
    start = time.process_time()
    assert matcher.match(f'{{"a":{number}}}'.encode()) == {"r", "s"}
    assert time.process_time() - start < 1


def test_bytes_are_read_exactly_where_it_matters() -> None:
    exact_number = "1234567890123456.789"  # its double is ...6.8
    rules = {
        "below": '{"n":[{"numeric":["<",1234567890123456.8]}]}',
        "equal": f'{{"n":[{exact_number}]}}',
        "double": '{"n":[1234567890123456.8]}',
        "both": f'{{"m":["x"],"n":[{exact_number}]}}',
        "none": f'{{"n":[{{"anything-but":{exact_number}}}]}}',
    }
    for known in (rules, {"below": rules["below"]}, {"equal": rules["equal"]}):
        matcher = Matcher(known)
        for _ in range(20):  # as many as it takes to read all of them exactly
            found = matcher.match(f'{{"m":"x","n":{exact_number}}}'.encode())
            assert found == known.keys() & {"below", "equal", "both"}
            assert matcher.match(b'{"n":1234567890123456.8}') == known.keys() & {"double", "none"}


def test_numbers_are_exact_where_a_path_also_goes_on() -> None:
    number = "1234567890123456.789"
    pattern = f'{{"b":["x"],"a":[{{"all":[{number}]}}],"$not":{{"a.b":["x"]}}}}'
    for dialect_rules in ({"r": pattern}, {"r": pattern, "s": {"b": ["x"]}}):
        matcher = Matcher(dialect_rules)
        assert "r" in matcher.match(f'{{"a":{number},"b":"x"}}'.encode())
        assert "r" not in matcher.match(b'{"a":1234567890123456.8,"b":"x"}')


def test_scalars_of_derived_classes_are_what_they_derive_from() -> None:
    class Color(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 5

    matcher = Matcher({"r": {"a": ["red"]}, "n": {"a": [{"numeric": [">", 4]}]}})
    assert matcher.match({"a": Color.RED}) == {"r"}
    assert matcher.match({"a": [Size.BIG, Color.RED]}) == {"r", "n"}


def test_what_json_cannot_hold_is_nothing_that_any_rule_asks_for() -> None:
    matcher = Matcher({"r": {"a": ["x"]}, "e": {"a": [{"exists": True}]}})
    assert matcher.match({"a": object()}) == {"e"}


def test_overlapping_ranges_without_number_are_scanned() -> None:
    rules = {f"r{n}": {"a": [{"numeric": [">", n, "<", 10_000]}]} for n in range(600)}
    rules["big"] = {"a": [{"numeric": [">", 2**60]}]}
    matcher = Matcher(rules)
    assert matcher.match(b'{"a":300.5}') == {f"r{n}" for n in range(301)}
    assert matcher.match(json.dumps({"a": 2**60 + 1}).encode()) == {"big"}
    matcher.remove("big")
    assert len(matcher.match(b'{"a":599.5}')) == 600
