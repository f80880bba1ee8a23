"""What a leaf of a pattern asks of a value.

A test looks at one scalar (string, number, boolean, null). Tests are values: equal ones are the
same test, so that rules can share them in an index. What looks at everything that a field holds is
a quantifier (`quantifiers.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, override
from zoneinfo import ZoneInfo

from augury.rules import quantities, regexes, texts
from augury.rules.addresses import (
    DigitRange,
    Network,
    address_or_none,
    packed_or_none,
)
from augury.rules.document import Literal as NumberLiteral
from augury.rules.quantities import Number
from augury.rules.texts import Folded

type Scalar = str | int | float | Decimal | bool | None

_NUMBERS = (int, float, Decimal)


def is_number(value: Any) -> bool:
    """True for a number; a boolean is none."""
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


class Test:
    """One condition on one scalar."""

    __slots__ = ()

    def check(self, value: Scalar) -> bool:
        """True if the value meets the condition; of a wrong type it never does."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class EqualsText(Test):
    """The very same string."""

    text: str

    @override
    def check(self, value: Scalar) -> bool:
        return value.__class__ is str and value == self.text


@dataclass(frozen=True, slots=True)
class EqualsNumber(Test):
    """A number of the same value; of one that no double is, written the same if `literal`."""

    number: Number  # canonical
    literal: str | None = None

    @override
    def check(self, value: Scalar) -> bool:
        if not is_number(value):
            return False
        if self.literal is not None:
            return number_text(value) == self.literal
        return quantities.canonical(value) == self.number  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class EqualsConstant(Test):
    """true, false or null."""

    constant: bool | None

    @override
    def check(self, value: Scalar) -> bool:
        return value is self.constant


@dataclass(frozen=True, slots=True)
class Affix(Test):
    """A string that begins (or ends) with the text."""

    text: str
    at_end: bool = False

    @override
    def check(self, value: Scalar) -> bool:
        if value.__class__ is not str:
            return False
        return value.endswith(self.text) if self.at_end else value.startswith(self.text)


@dataclass(frozen=True)
class FoldedText(Test):
    """A string that is, begins with or ends with the text, whatever the case of its characters."""

    folded: Folded
    kind: Literal["equal", "prefix", "suffix"] = "equal"

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return self.folded.pattern(self.kind)

    @override
    def check(self, value: Scalar) -> bool:
        if not isinstance(value, str):
            return False
        plain = self.folded.plain
        if plain is None:
            return self._expression.search(value) is not None
        if self.kind == "equal":
            return value.isascii() and value.lower() == plain
        size = len(plain)
        part = value[:size] if self.kind == "prefix" else value[len(value) - size :]
        return len(value) >= size and part.isascii() and part.lower() == plain


@dataclass(frozen=True, slots=True)
class Wildcard(Test):
    """A string with anything at each star."""

    parts: tuple[str, ...]

    @override
    def check(self, value: Scalar) -> bool:
        return isinstance(value, str) and texts.wildcard_matches(self.parts, value)


@dataclass(frozen=True, slots=True)
class Contains(Test):
    """A string in which the text occurs."""

    text: str

    @override
    def check(self, value: Scalar) -> bool:
        return isinstance(value, str) and self.text in value


@dataclass(frozen=True)
class Regex(Test):
    """A string in which RE2 finds the expression, in time linear in the string."""

    expression: str

    @cached_property
    def _search(self) -> regexes.Search:
        return regexes.Search([self.expression])

    @override
    def check(self, value: Scalar) -> bool:
        return isinstance(value, str) and bool(self._search.found(value))


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval; an end that is None is open to infinity."""

    low: Number | None = None
    high: Number | None = None
    low_open: bool = False
    high_open: bool = False

    def holds(self, number: Number) -> bool:
        """True if the number lies inside."""
        if self.low is not None:
            order = quantities.compare(number, self.low)
            if order < 0 or (order == 0 and self.low_open):
                return False
        if self.high is not None:
            order = quantities.compare(number, self.high)
            if order > 0 or (order == 0 and self.high_open):
                return False
        return True


@dataclass(frozen=True, slots=True)
class InRange(Test):
    """A number within bounds.

    Attributes:
        doubles_only: a number that no double is lies in no range at all.
    """

    bounds: Bounds
    doubles_only: bool = False

    @override
    def check(self, value: Scalar) -> bool:
        if not is_number(value):
            return False
        number = quantities.canonical(value)  # type: ignore[arg-type]
        if self.doubles_only and not quantities.is_double(number):
            return False
        return self.bounds.holds(number)


@dataclass(frozen=True, slots=True)
class Size(Test):
    """A number of bytes, or a text such as `2 GiB`, within bounds."""

    bounds: Bounds

    @override
    def check(self, value: Scalar) -> bool:
        try:
            return self.bounds.holds(quantities.canonical(quantities.parse_size(value)))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Duration(Test):
    """A number of seconds, or a text such as `PT5M` or `5 min`, within bounds."""

    bounds: Bounds

    @override
    def check(self, value: Scalar) -> bool:
        try:
            return self.bounds.holds(quantities.canonical(quantities.parse_duration(value)))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Instant(Test):
    """A timestamp within bounds, which are seconds since 1970."""

    bounds: Bounds

    @override
    def check(self, value: Scalar) -> bool:
        instant = quantities.instant_or_none(value)
        return instant is not None and self.bounds.holds(quantities.epoch(instant))


@dataclass(frozen=True, slots=True)
class Weekday(Test):
    """A timestamp on one of the days of the week (Monday is 0) in a time zone."""

    days: frozenset[int]
    zone: ZoneInfo

    @override
    def check(self, value: Scalar) -> bool:
        local = _local(value, self.zone)
        return local is not None and local.weekday() in self.days


@dataclass(frozen=True, slots=True)
class TimeOfDay(Test):
    """A timestamp at `start` or later and before `end`, on the clock of a time zone.

    If `end` is not after `start` the span goes over midnight.
    """

    start: time
    end: time
    zone: ZoneInfo

    @override
    def check(self, value: Scalar) -> bool:
        local = _local(value, self.zone)
        if local is None:
            return False
        now = local.time()
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end


def _local(value: Scalar, zone: ZoneInfo) -> datetime | None:
    instant = quantities.instant_or_none(value)
    try:
        return None if instant is None else instant.astimezone(zone)
    except OverflowError:  # in year 1 or 9999, where the zone's clock has no date
        return None


@dataclass(frozen=True, slots=True)
class InNetwork(Test):
    """A string that is an address in the network."""

    network: Network

    @override
    def check(self, value: Scalar) -> bool:
        address = address_or_none(value) if isinstance(value, str) else None
        return address is not None and address in self.network


@dataclass(frozen=True, slots=True)
class InDigits(Test):
    """EventBridge's idea of an address in a network (see `addresses`).

    Attributes:
        beside_numbers: the same field has a numeric test, so that doubles are never taken for text.
    """

    digits: DigitRange
    beside_numbers: bool = False

    @override
    def check(self, value: Scalar) -> bool:
        if isinstance(value, str):
            packed = packed_or_none(value)
            return packed is not None and self.digits.holds(packed.hex().upper())
        if not is_number(value):
            return False
        if self.beside_numbers and quantities.is_double(value):  # type: ignore[arg-type]
            return False
        return self.digits.holds(number_text(value))


def number_text(value: Any) -> str:
    """How a number was written, as far as that is still known."""
    if isinstance(value, NumberLiteral):
        return value.text
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Written(Test):
    """A boolean or a whole number whose text meets the test."""

    test: Test

    @override
    def check(self, value: Scalar) -> bool:
        if isinstance(value, bool):
            return self.test.check("true" if value else "false")
        return isinstance(value, int) and self.test.check(str(value))


@dataclass(frozen=True, slots=True)
class Every(Test):
    """One scalar that meets all of the tests."""

    tests: tuple[Test, ...]

    @override
    def check(self, value: Scalar) -> bool:
        return all(test.check(value) for test in self.tests)


@dataclass(frozen=True)
class Neither(Test):
    """A scalar that meets none of the tests."""

    tests: tuple[Test, ...]

    @cached_property
    def _texts(self) -> frozenset[str]:
        return frozenset(test.text for test in self.tests if isinstance(test, EqualsText))

    @cached_property
    def _others(self) -> tuple[Test, ...]:
        return tuple(test for test in self.tests if not isinstance(test, EqualsText))

    @override
    def check(self, value: Scalar) -> bool:
        if value.__class__ is str and value in self._texts:
            return False
        return not self._others or not any(test.check(value) for test in self._others)
