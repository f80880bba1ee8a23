"""Numbers, sizes, durations and instants, compared exactly.

Numbers of equal value have one canonical form: an int within +-2**53, else the double that prints
as that value, else the big int or decimal itself. Canonical forms are equal if and only if the
numbers are, so they can be looked up; `compare` orders any two.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from augury import clock

type Number = int | float | Decimal

_SAFE = 2**53
_LONGEST = 64  # characters of a quantity: what is longer is none, and not worth a look
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTPE]i?)?B?\s*\Z", re.IGNORECASE)
_SIZE_UNITS = {
    letter + binary: base**power
    for power, letter in enumerate("KMGTPE", 1)
    for binary, base in (("", 1000), ("I", 1024))
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_DURATION_UNITS: dict[str, Decimal | int] = {
    "ms": Decimal("0.001"), "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_ISO_DURATION = re.compile(
    r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?\Z"
)


def canonical(value: Number) -> Number:
    """The one form of all numbers of this value."""
    if isinstance(value, int):
        if -_SAFE <= value <= _SAFE:
            return value
        return _as_double(Decimal(value), value)
    if isinstance(value, Decimal):
        return _as_double(value, value)
    return value


def _as_double(exact: Decimal, value: Number) -> Number:
    double = float(exact)
    if math.isinf(double) or math.isnan(double) or Decimal(repr(double)) != exact:
        return value
    return double


def is_double(value: Number) -> bool:
    """True if the canonical form is one that a double holds."""
    form = canonical(value)
    return isinstance(form, float) or (isinstance(form, int) and -_SAFE <= form <= _SAFE)


def compare(left: Number, right: Number) -> int:
    """-1, 0 or 1; doubles count as what they print as."""
    if _is_plain(left) and _is_plain(right):
        return (left > right) - (left < right)
    first, second = _exact(left), _exact(right)
    return (first > second) - (first < second)


def _is_plain(value: Number) -> bool:
    """True if Python's own comparison with another plain number is exact."""
    return type(value) is float or (type(value) is int and -_SAFE <= value <= _SAFE)


def _exact(value: Number) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def parse_size(value: Any) -> Number:
    """Bytes, from a number or `"1.5 GiB"`.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return value
    match = _SIZE.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise ValueError("a size is a number of bytes or a text such as '500 MB' or '2 GiB'")
    return canonical(Decimal(match[1]) * _SIZE_UNITS.get((match[2] or "").upper(), 1))


def parse_duration(value: Any) -> Number:
    """Seconds, from a number, `"90 min"`, `"1h 30m"` or ISO 8601 (`"PT1H30M"`).

    Raises:
        ValueError: none of them.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        raise ValueError("a duration is a number of seconds or a text such as '90 min' or 'PT1H'")
    return canonical(_iso_duration(value.strip()) if value.strip()[0] == "P" else _words(value))


def _words(text: str) -> Decimal:
    total, end = Decimal(0), 0
    for match in _DURATION.finditer(text):
        unit = _DURATION_UNITS.get(match[2].lower())
        if unit is None or match.start() != end:
            break
        total, end = total + Decimal(match[1]) * unit, match.end()
    if end != len(text):
        raise ValueError(
            f"{text!r} is not a duration such as '90 s', '5 min', '1h 30m' or '2 days'"
        )
    return total


def _iso_duration(text: str) -> Decimal:
    match = _ISO_DURATION.match(text)
    if match is None or not any(match.groups()):
        raise ValueError(
            f"{text!r} is not an ISO 8601 duration of weeks, days, hours, min, seconds"
        )
    scales = (604800, 86400, 3600, 60, 1)
    parts = zip(match.groups(), scales, strict=True)
    return sum((Decimal(part) * scale for part, scale in parts if part), Decimal(0))


def parse_instant(value: Any) -> datetime:
    """An RFC 3339 timestamp with its zone.

    Raises:
        ValueError: not one.
    """
    if not isinstance(value, str) or not 16 < len(value) <= _LONGEST or value[10] not in "Tt ":
        raise ValueError("a time is an RFC 3339 timestamp such as 2026-01-01T00:00:00Z")
    try:
        return clock.parse(value)
    except OverflowError as error:  # in year 1 or 9999, beyond which UTC has no date
        raise ValueError(str(error)) from error


def instant_or_none(value: Any) -> datetime | None:
    """The instant that an event's value names; None if it names none."""
    try:
        return parse_instant(value)
    except ValueError:
        return None


def seconds_between(start: datetime, end: datetime) -> Number:
    """Exact seconds from `start` to `end`; negative if `end` is the earlier one."""
    return canonical(Decimal((end - start) // timedelta(microseconds=1)).scaleb(-6))


def epoch(instant: datetime) -> Number:
    """Exact seconds since 1970, for comparing instants as numbers."""
    return seconds_between(datetime(1970, 1, 1, tzinfo=UTC), instant)
