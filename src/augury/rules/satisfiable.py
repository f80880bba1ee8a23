"""Whether a pattern can be met at all: what no event, whatever it holds, could do at once.

It errs on one side only: what it calls impossible is impossible; what it cannot decide it takes
for possible. Arrays make much possible that looks contradictory (two values of one field may be
met by two elements), so two demands on one field contradict each other only where one value has
to meet both, or where the field is an attribute that CloudEvents says is a single string.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from augury.rules import quantities
from augury.rules.branches import Branch, Condition, Field, Guard
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
from augury.rules.quantifiers import Exists, Quantifier

# CloudEvents: these are there, and are strings; no event gets onto the bus without them
REQUIRED = frozenset({"id", "source", "type"})
TEXTS = REQUIRED | {"specversion", "subject", "time", "datacontenttype", "dataschema"}

_OF_TEXT = (EqualsText, Affix, FoldedText, Wildcard, Contains, Regex, InNetwork)
_OF_TIME = (Instant, Weekday, TimeOfDay)
_OF_NUMBER = (EqualsNumber, InRange)
_BOUNDED = (InRange, Size, Duration, Instant)


def contradiction(condition: Condition) -> str | None:
    """Why no event can meet the condition; None if one may."""
    reasons = [_branch(branch) for branch in condition]
    if any(reason is None for reason in reasons):
        return None
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _branch(branch: Branch) -> str | None:
    return next(_reasons(branch), None)


def _reasons(branch: Branch) -> Iterator[str]:
    demands = {item.path: [item] for item in branch.fields}
    for guard in branch.guards:
        inner = contradiction(guard.condition) if guard.wanted else None
        if inner is not None:
            yield inner
        if guard.wanted and not guard.scope and len(guard.condition) == 1:
            for item in guard.condition[0].fields:
                demands.setdefault(item.path, []).append(item)
        if not guard.wanted and _is_implied(guard, branch):
            yield "`$not` rules out what the rest of the pattern asks for"
    for path, items in demands.items():
        yield from _of_path(path, items)
    yield from _below_absent(branch)


def _of_path(path: str, items: Sequence[Field]) -> Iterator[str]:
    for item in items:
        if not any(_is_possible(path, each) for each in item.items):
            yield f"`{path}`: no value meets what is asked of it"
            return
    if path in TEXTS and len(items) > 1 and not _have_common(path, items):
        yield f"`{path}` is a single string and cannot meet all that is asked of it"


def _is_possible(path: str, item: Test | Quantifier) -> bool:
    if isinstance(item, Exists):
        return item.wanted or path not in REQUIRED
    if isinstance(item, Quantifier):
        return True
    if path in TEXTS and isinstance(item, EqualsConstant | EqualsNumber | InRange):
        return False
    return not isinstance(item, Every) or not _are_disjoint(item.tests)


def _have_common(path: str, items: Sequence[Field]) -> bool:
    """Whether one text may meet all of the fields: whether no two of them exclude each other."""
    return not any(
        all(
            disjoint(one, other)
            for one in first.tests
            for other in second.tests
            if _is_possible(path, one) and _is_possible(path, other)
        )
        for index, first in enumerate(items)
        for second in items[index + 1 :]
        if first.tests and second.tests and not (first.quantifiers or second.quantifiers)
    )


def _are_disjoint(tests: Sequence[Test]) -> bool:
    return any(
        disjoint(one, other) for index, one in enumerate(tests) for other in tests[index + 1 :]
    )


def _is_implied(guard: Guard, branch: Branch) -> bool:
    """True if whatever meets the branch's fields meets one way of the guard as well."""
    prefix = f"{guard.scope}." if guard.scope else ""
    asked = {item.path: set(item.items) for item in branch.fields}
    return any(
        not way.guards
        and all(asked.get(prefix + item.path, {None}) <= set(item.items) for item in way.fields)
        for way in guard.condition
    )


def _below_absent(branch: Branch) -> Iterator[str]:
    absent = [
        item.path
        for item in branch.fields
        if not item.tests and set(item.quantifiers) == {Exists(wanted=False)}
    ]
    for item in branch.fields:
        needed = Exists(wanted=False) not in item.quantifiers
        above = [path for path in absent if item.path.startswith(f"{path}.")]
        if needed and above:
            yield f"`{above[0]}` must be absent, and `{item.path}`, which lies in it, present"


def disjoint(one: Test, other: Test) -> bool:
    """True if no scalar meets both; False if one may, or if it is not known."""
    for first, second in ((one, other), (other, one)):
        if isinstance(first, EqualsText):
            return not second.check(first.text)
        if isinstance(first, EqualsNumber) and first.literal is None:
            return not second.check(first.number)
        if isinstance(first, EqualsConstant):
            return not second.check(first.constant)
        if isinstance(first, Neither) and any(_includes(out, second) for out in first.tests):
            return True
        if isinstance(first, _OF_NUMBER) and isinstance(second, (*_OF_TEXT, *_OF_TIME)):
            return True
    return _are_apart(one, other)


def _includes(wide: Test, narrow: Test) -> bool:
    """True if whatever meets `narrow` meets `wide`; False if it is not known."""
    if wide == narrow:
        return True
    if isinstance(wide, Affix) and isinstance(narrow, Affix) and wide.at_end == narrow.at_end:
        return wide.check(narrow.text)
    return isinstance(wide, Contains) and isinstance(narrow, Affix) and wide.text in narrow.text


def _are_apart(one: Test, other: Test) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Affix) and isinstance(other, Affix):
        same_end = one.at_end == other.at_end
        return same_end and not one.check(other.text) and not other.check(one.text)
    if isinstance(one, _BOUNDED) and isinstance(other, _BOUNDED):
        return _lies_above(one.bounds, other.bounds) or _lies_above(other.bounds, one.bounds)
    if isinstance(one, Weekday) and isinstance(other, Weekday):
        return one.zone == other.zone and not one.days & other.days
    return False


def _lies_above(upper: Bounds, lower: Bounds) -> bool:
    if upper.low is None or lower.high is None:
        return False
    order = quantities.compare(upper.low, lower.high)
    return order > 0 or (order == 0 and (upper.low_open or lower.high_open))


def all_tests(tests: Iterable[Test]) -> Iterator[Test]:
    """The tests, and those within `$and` and `anything-but`."""
    for test in tests:
        yield test
        if isinstance(test, Every | Neither):
            yield from all_tests(test.tests)
