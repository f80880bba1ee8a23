"""What a leaf of a pattern asks of all that a field holds: whether it is there, all of an array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, override

from augury.rules import quantities
from augury.rules.conditions import Bounds, Neither, Scalar, Test

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing"})()


@dataclass(slots=True)
class Leaf:
    """What a field holds.

    Attributes:
        present: False if the event has no such field.
        is_array: its value is an array.
        scalars: the value, or the array's scalars, those of arrays in it included.
        has_objects: the value is an object, or there are objects in the array.
        event: the whole event.
    """

    present: bool = False
    is_array: bool = False
    scalars: list[Scalar] = field(default_factory=list)
    has_objects: bool = False
    event: Mapping[str, Any] = field(default_factory=dict)


def read_leaf(value: Any, event: Mapping[str, Any]) -> Leaf:
    """Makes a leaf of a field's value; of `MISSING` an absent one."""
    if value is MISSING:
        return Leaf(event=event)
    leaf = Leaf(present=True, is_array=isinstance(value, list | tuple), event=event)
    for item in flat(value):
        if isinstance(item, Mapping):
            leaf.has_objects = True
        else:
            leaf.scalars.append(item)
    return leaf


def flat(value: Any) -> Iterator[Any]:
    """The value itself, or what an array and the arrays in it hold."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value


class Quantifier:
    """One condition on all that a field holds."""

    __slots__ = ()

    def holds(self, leaf: Leaf) -> bool:
        """True if the field meets the condition."""
        raise NotImplementedError

    def holds_scalar(self, value: Scalar, event: Mapping[str, Any]) -> bool:
        """The same for a field that holds just one scalar."""
        return self.holds(Leaf(present=True, scalars=[value], event=event))


@dataclass(frozen=True, slots=True)
class Exists(Quantifier):
    """The field is there, whatever it holds; or it is not."""

    wanted: bool

    @override
    def holds(self, leaf: Leaf) -> bool:
        return leaf.present is self.wanted

    @override
    def holds_scalar(self, value: Scalar, event: Mapping[str, Any]) -> bool:
        return self.wanted


@dataclass(frozen=True, slots=True)
class NoneOf(Quantifier):
    """The field is there, and nothing that it holds meets any of the tests."""

    neither: Neither

    @property
    def tests(self) -> tuple[Test, ...]:
        """What nothing may meet."""
        return self.neither.tests

    @override
    def holds(self, leaf: Leaf) -> bool:
        return leaf.present and all(map(self.neither.check, leaf.scalars))

    @override
    def holds_scalar(self, value: Scalar, event: Mapping[str, Any]) -> bool:
        return self.neither.check(value)


@dataclass(frozen=True, slots=True)
class AllOf(Quantifier):
    """Each of the tests is met by something that the field holds.

    Attributes:
        only: and whatever the field holds meets one of them.
    """

    tests: tuple[Test, ...]
    only: bool = False

    @override
    def holds(self, leaf: Leaf) -> bool:
        if not leaf.present or (self.only and leaf.has_objects):
            return False
        met = all(any(test.check(value) for value in leaf.scalars) for test in self.tests)
        return met and (not self.only or all(_meets_one(v, self.tests) for v in leaf.scalars))


@dataclass(frozen=True, slots=True)
class Age(Quantifier):
    """Seconds from a timestamp in the field to the event's own `time`, within bounds."""

    bounds: Bounds

    @override
    def holds(self, leaf: Leaf) -> bool:
        now = quantities.instant_or_none(leaf.event.get("time"))
        if now is None:
            return False
        instants = (quantities.instant_or_none(value) for value in leaf.scalars)
        return any(
            self.bounds.holds(quantities.seconds_between(instant, now))
            for instant in instants
            if instant is not None
        )


def _meets_one(value: Scalar, tests: Sequence[Test]) -> bool:
    return any(test.check(value) for test in tests)
