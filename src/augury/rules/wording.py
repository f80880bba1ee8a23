"""Conditions put back into the words of the pattern language, for people who read why.

A compiled test knows what it asks, not how it was written: `{"prefix": ["a", "b"]}` has become two
tests, an address in dialect `eventbridge` a range of digits. What is shown here is the shortest
pattern of dialect `augury` that asks the same, which is nearly always what the author wrote.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from augury import clock
from augury.rules.addresses import DigitRange
from augury.rules.conditions import (
    Affix,
    Bounds,
    Contains,
    Duration,
    EqualsConstant,
    EqualsNumber,
    EqualsText,
    Every,
    FoldedText,
    InDigits,
    InNetwork,
    InRange,
    Instant,
    Neither,
    Regex,
    Size,
    Test,
    TimeOfDay,
    Weekday,
    Wildcard,
    Written,
)
from augury.rules.quantifiers import Age, AllOf, Exists, NoneOf, Quantifier
from augury.rules.quantities import Number

EQUALS = "equals"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def operator_of(item: Test | Quantifier) -> str:
    """The operator's name as a pattern has it; `equals` for a plain value."""
    said = said_of(item)
    if isinstance(said, Mapping):
        return str(next(iter(said)))
    return EQUALS


def said_of(item: Test | Quantifier) -> Any:
    """The entry of a leaf's list that asks this: a value, or an object with one operator."""
    return _WORDS[type(item)](item)


def _affix(test: Affix) -> Any:
    return {"suffix" if test.at_end else "prefix": test.text}


def _folded(test: FoldedText) -> Any:
    text = test.folded.plain
    asked = {"equals-ignore-case": test.folded.expression if text is None else text}
    return asked if test.kind == "equal" else {test.kind: asked}


def _wildcard(test: Wildcard) -> Any:
    parts = [part.replace("\\", "\\\\").replace("*", "\\*") for part in test.parts]
    return {"wildcard": "*".join(parts)}


def _neither(test: Neither) -> Any:
    # "neither of neither" is how a list of alternatives stands inside `$and` and `all`
    if len(test.tests) == 1 and isinstance(test.tests[0], Neither):
        return {"any": [said_of(each) for each in test.tests[0].tests]}
    return {"anything-but": [said_of(each) for each in test.tests]}


def _digits(test: InDigits) -> Any:
    digits = test.digits
    if digits.open_top:
        return str(_address(digits.bottom))
    if digits.open_bottom:
        return str(_address(digits.top))
    return {"cidr": _network(digits)}


def _network(digits: DigitRange) -> str:
    free = (int(digits.bottom, 16) ^ int(digits.top, 16)).bit_length()
    return f"{_address(digits.bottom)}/{len(digits.bottom) * 4 - free}"


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(bytes.fromhex(digits))


def _number(number: Number) -> Any:
    """One that no JSON reader keeps is shown as text."""
    return str(number) if isinstance(number, Decimal) else number


def _compared(bounds: Bounds, show: Callable[[Number], Any] = _number) -> list[Any]:
    if bounds.low is not None and bounds.low == bounds.high:
        return ["=", show(bounds.low)]
    low = [] if bounds.low is None else [">" if bounds.low_open else ">=", show(bounds.low)]
    high = [] if bounds.high is None else ["<" if bounds.high_open else "<=", show(bounds.high)]
    return [*low, *high]


def _instant(seconds: Number) -> Any:
    try:
        return clock.iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds)))
    except OverflowError:
        return _number(seconds)


def _weekday(test: Weekday) -> Any:
    days = [_DAYS[day] for day in sorted(test.days)]
    return {"day-of-week": {"days": days, "zone": str(test.zone)}}


def _time_of_day(test: TimeOfDay) -> Any:
    span = {"from": test.start.isoformat(), "until": test.end.isoformat(), "zone": str(test.zone)}
    return {"time-of-day": span}


def _all_of(item: AllOf) -> Any:
    return {"exactly" if item.only else "all": [said_of(test) for test in item.tests]}


_WORDS: dict[type, Callable[[Any], Any]] = {
    EqualsText: lambda test: test.text,
    EqualsNumber: lambda test: _number(test.number),
    EqualsConstant: lambda test: test.constant,
    Affix: _affix,
    FoldedText: _folded,
    Wildcard: _wildcard,
    Contains: lambda test: {"contains": test.text},
    Regex: lambda test: {"regex": test.expression},
    InRange: lambda test: {"numeric": _compared(test.bounds)},
    Size: lambda test: {"size": _compared(test.bounds)},
    Duration: lambda test: {"duration": _compared(test.bounds)},
    Instant: lambda test: {"time": _compared(test.bounds, _instant)},
    Weekday: _weekday,
    TimeOfDay: _time_of_day,
    InNetwork: lambda test: {"cidr": str(test.network)},
    InDigits: _digits,
    Written: lambda test: said_of(test.test),
    Every: lambda test: {"$and": [said_of(each) for each in test.tests]},
    Neither: _neither,
    Exists: lambda item: {"exists": item.wanted},
    NoneOf: lambda item: {"anything-but": [said_of(test) for test in item.tests]},
    AllOf: _all_of,
    Age: lambda item: {"age": _compared(item.bounds)},
}
