"""The operators of the dialect `augury`: one reader for each, in one table.

A reader gets an operand and its JSON path, records what is wrong, and gives the tests (any of which
may hold) or quantifiers that the operator stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

from augury.rules import addresses, quantities, regexes, texts
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
)
from augury.rules.document import is_list, is_number, is_object, members, only_member
from augury.rules.limits import (
    MAX_REGEX_CHARS,
    MAX_STARS,
    MAX_TEXT_CHARS,
    Findings,
    member,
    one_fault,
)
from augury.rules.quantifiers import Age, AllOf, Exists, NoneOf, Quantifier
from augury.rules.quantities import Number

type Item = Test | Quantifier
type Reader = Callable[[Findings, Any, str], list[Item]]

_FOLD = "equals-ignore-case"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_COMPARISONS = ("=", "<", "<=", ">", ">=")


def read_item(findings: Findings, value: Any, path: str) -> list[Item]:
    """Reads one entry of a leaf's list: a value or an operator."""
    findings.count_test(path)
    if not is_object(value):
        return list(_value(findings, value, path))
    pair = only_member(value)
    if pair is None:
        findings.add(path, "an object with exactly one operator; `$and` joins several", value)
        return []
    name, operand = pair
    reader = OPERATORS.get(name)
    if reader is None:
        findings.add(member(path, name), f"one of {', '.join(sorted(OPERATORS))}", name)
        return []
    return reader(findings, operand, member(path, name))


def _value(findings: Findings, value: Any, path: str) -> list[Test]:
    if isinstance(value, str):
        return [EqualsText(text) for text in [_text(findings, value, path)] if text is not None]
    if value is None or isinstance(value, bool):
        return [EqualsConstant(value)]
    if is_number(value):
        return [EqualsNumber(quantities.canonical(value))]
    findings.add(path, "a text, number, true, false, null or an operator", value)
    return []


def _text(findings: Findings, value: Any, path: str) -> str | None:
    if isinstance(value, str) and len(value) <= MAX_TEXT_CHARS:
        return value
    findings.add(path, f"a text of at most {MAX_TEXT_CHARS:,} characters", value)
    return None


def _each_text(findings: Findings, operand: Any, path: str) -> list[tuple[str, str]]:
    """A text, or a list of them, each with its JSON path; an empty one is refused."""
    listed = list(operand) if is_list(operand) else None
    if listed == []:
        findings.add(path, "a text or a list of at least one", operand)
    pairs = [(operand, path)] if listed is None else _numbered(listed, path)
    found = []
    for value, where in pairs:
        findings.count_test(where)
        text = _text(findings, value, where)
        if text == "":
            findings.add(where, "a text that is not empty", value)
        elif text is not None:
            found.append((text, where))
    return found


def _numbered(values: Sequence[Any], path: str) -> list[tuple[Any, str]]:
    return [(value, f"{path}[{index}]") for index, value in enumerate(values)]


def _tests_only(findings: Findings, values: Sequence[tuple[Any, str]]) -> tuple[Test, ...]:
    """Items that look at one value; `anything-but` among them means that value alone."""
    found: list[Test] = []
    for value, path in values:
        for item in read_item(findings, value, path):
            if isinstance(item, Test):
                found.append(item)
            elif isinstance(item, NoneOf):
                found.append(item.neither)
            else:
                findings.add(path, "an operator that looks at one value at a time", value)
    return tuple(found)


# --- texts ---------------------------------------------------------------------------------------


def _affix(*, at_end: bool) -> Reader:
    def read(findings: Findings, operand: Any, path: str) -> list[Item]:
        if not is_object(operand):
            return [Affix(text, at_end) for text, _ in _each_text(findings, operand, path)]
        pair = only_member(operand)
        if pair is None or pair[0] != _FOLD:
            findings.add(path, f'texts, or {{"{_FOLD}": texts}}', operand)
            return []
        each = _each_text(findings, pair[1], member(path, _FOLD))
        return [FoldedText(texts.fold(text), "suffix" if at_end else "prefix") for text, _ in each]

    return read


def _fold(findings: Findings, operand: Any, path: str) -> list[Item]:
    return [FoldedText(texts.fold(text)) for text, _ in _each_text(findings, operand, path)]


def _wildcard(findings: Findings, operand: Any, path: str) -> list[Item]:
    found: list[Item] = []
    for text, where in _each_text(findings, operand, path):
        findings.count_search(where)
        with one_fault(findings, where, "a wildcard", text):
            parts = texts.parse_wildcard(text)
            if len(parts) - 1 > MAX_STARS:
                raise ValueError(f"at most {MAX_STARS} stars")
            found.append(Wildcard(parts))
    return found


def _contains(findings: Findings, operand: Any, path: str) -> list[Item]:
    each = _each_text(findings, operand, path)
    for _, where in each:
        findings.count_search(where)
    return [Contains(text) for text, _ in each]


def _regex(findings: Findings, operand: Any, path: str) -> list[Item]:
    found: list[Item] = []
    for text, where in _each_text(findings, operand, path):
        findings.count_search(where)
        with one_fault(findings, where, "a regular expression of RE2", text):
            if len(text) > MAX_REGEX_CHARS:
                raise ValueError(f"at most {MAX_REGEX_CHARS:,} characters")
            regexes.check_expression(text)
            found.append(Regex(text))
    return found


def _cidr(findings: Findings, operand: Any, path: str) -> list[Item]:
    found: list[Item] = []
    for text, where in _each_text(findings, operand, path):
        with one_fault(findings, where, "a network such as 10.0.0.0/8 or 2001:db8::/32", text):
            found.append(InNetwork(addresses.parse_network(text)))
    return found


# --- comparisons ---------------------------------------------------------------------------------


def _number(value: Any) -> Number:
    if not is_number(value):
        raise ValueError("a bound is a number")
    return quantities.canonical(value)


def _instant(value: Any) -> Number:
    return quantities.epoch(quantities.parse_instant(value))


def _compared(make: Callable[[Bounds], Item], bound: Callable[[Any], Number], like: str) -> Reader:
    """An operator whose operand is one comparison, or a lower and an upper one."""

    def read(findings: Findings, operand: Any, path: str) -> list[Item]:
        allowed = f"one or two comparisons such as {like}"
        if not is_list(operand) or len(operand) not in (2, 4):
            findings.add(path, allowed, operand)
            return []
        with one_fault(findings, path, allowed, operand):
            return [make(_bounds(operand, bound))]
        return []

    return read


def _bounds(operand: Sequence[Any], bound: Callable[[Any], Number]) -> Bounds:
    low = high = None
    low_open = high_open = False
    for operator, value in zip(operand[::2], operand[1::2], strict=True):
        if operator not in _COMPARISONS:
            raise ValueError(f"the comparisons are {' '.join(_COMPARISONS)}")
        number = quantities.canonical(bound(value))
        if operator in ("=", ">", ">="):
            if low is not None:
                raise ValueError("two lower bounds")
            low, low_open = number, operator == ">"
        if operator in ("=", "<", "<="):
            if high is not None:
                raise ValueError("two upper bounds")
            high, high_open = number, operator == "<"
    bounds = Bounds(low, high, low_open, high_open)
    if low is not None and high is not None:
        order = quantities.compare(low, high)
        if order > 0 or (order == 0 and (low_open or high_open)):
            raise ValueError("no value lies between these bounds")
    return bounds


# --- clocks and calendars ------------------------------------------------------------------------


def _day_of_week(findings: Findings, operand: Any, path: str) -> list[Item]:
    options = {"days": operand} if is_list(operand) else _options(findings, operand, path)
    if not _known(findings, options, path, needed=("days",)):
        return []
    days = options["days"]
    found = set()
    for day, where in _numbered(days if is_list(days) else [days], f"{path}.days"):
        names = [index for index, name in enumerate(_DAYS) if _is_day(day, name)]
        if len(names) == 1:
            found.add(names[0])
        else:
            findings.add(where, f"a day such as {_DAYS[0]!r} or {_DAYS[0][:3]!r}", day)
    zone = _zone(findings, options, path)
    if not found or zone is None:
        findings.add(path, "at least one day", operand)
        return []
    return [Weekday(frozenset(found), zone)]


def _is_day(found: Any, name: str) -> bool:
    return isinstance(found, str) and len(found) >= 3 and name.startswith(found.lower())


def _time_of_day(findings: Findings, operand: Any, path: str) -> list[Item]:
    options = _options(findings, operand, path)
    if not _known(findings, options, path, needed=("from", "until")):
        return []
    zone = _zone(findings, options, path)
    allowed = "a time of day such as 08:00 or 17:30:15"
    for name in ("from", "until"):
        with one_fault(findings, member(path, name), allowed, options[name]):
            _clock(options[name])
    with one_fault(findings, path, allowed, operand):
        start, end = _clock(options["from"]), _clock(options["until"])
        if zone is not None:
            return [TimeOfDay(start, end, zone)]
    return []


def _clock(value: Any) -> time:
    if not isinstance(value, str):
        raise ValueError("a time of day is a text")
    found = time.fromisoformat(value)
    if found.tzinfo is not None:
        raise ValueError("the zone is named in `zone`")
    return found


def _options(findings: Findings, operand: Any, path: str) -> dict[str, Any]:
    if is_object(operand):
        return dict(members(operand))
    findings.add(path, "an object", operand)
    return {}


def _known(
    findings: Findings, options: dict[str, Any], path: str, *, needed: tuple[str, ...]
) -> bool:
    for name in options.keys() - {*needed, "zone"}:
        findings.add(member(path, name), f"only {', '.join(needed)} and zone", name)
    missing = [name for name in needed if name not in options]
    for name in missing if options else ():
        findings.add(member(path, name), "a value", None)
    return not missing


def _zone(findings: Findings, options: dict[str, Any], path: str) -> ZoneInfo | None:
    name = options.get("zone", "UTC")
    try:
        return ZoneInfo(name)
    except (TypeError, ValueError, KeyError, OSError):  # it may even be the name of a folder
        findings.add(f"{path}.zone", "a time zone such as Europe/Berlin", name)
        return None


# --- all that a field holds ----------------------------------------------------------------------


def _exists(findings: Findings, operand: Any, path: str) -> list[Item]:
    if isinstance(operand, bool):
        return [Exists(operand)]
    findings.add(path, "true or false", operand)
    return []


def _excluded(findings: Findings, operand: Any, path: str) -> list[Item]:
    return [NoneOf(Neither(_tests_only(findings, _listed(findings, operand, path))))]


def _all(*, only: bool) -> Reader:
    def read(findings: Findings, operand: Any, path: str) -> list[Item]:
        # one entry is one demand, even if it stands for several texts
        demands = [
            tests[0] if len(tests) == 1 else Neither((Neither(tests),))
            for pair in _listed(findings, operand, path)
            if (tests := _tests_only(findings, [pair]))
        ]
        return [AllOf(tuple(demands), only)]

    return read


def _listed(findings: Findings, operand: Any, path: str) -> list[tuple[Any, str]]:
    if not is_list(operand):
        return [(operand, path)]
    if not len(operand):
        findings.add(path, "at least one value or operator", operand)
    return _numbered(operand, path)


def _and(findings: Findings, operand: Any, path: str) -> list[Item]:
    if not is_list(operand) or not len(operand):
        findings.add(path, "a list of values and operators that one value must meet", operand)
        return []
    demands = []
    for pair in _numbered(operand, path):
        tests = _tests_only(findings, [pair])
        demands.append(tests[0] if len(tests) == 1 else Neither((Neither(tests),)))
    return [Every(tuple(demands))]


OPERATORS: dict[str, Reader] = {
    "$and": _and,
    "age": _compared(Age, quantities.parse_duration, '["<", "15 min"]'),
    "all": _all(only=False),
    "anything-but": _excluded,
    "cidr": _cidr,
    "contains": _contains,
    "day-of-week": _day_of_week,
    "duration": _compared(Duration, quantities.parse_duration, '[">", "5 min"]'),
    "equals-ignore-case": _fold,
    "exactly": _all(only=True),
    "exists": _exists,
    "none": _excluded,
    "numeric": _compared(InRange, _number, '[">", 0, "<=", 5]'),
    "prefix": _affix(at_end=False),
    "regex": _regex,
    "size": _compared(Size, quantities.parse_size, '[">=", "1 GiB"]'),
    "suffix": _affix(at_end=True),
    "time": _compared(Instant, _instant, '[">=", "2026-01-01T00:00:00Z"]'),
    "time-of-day": _time_of_day,
    "wildcard": _wildcard,
}
"""Reader of each operator, by the operator's name."""
