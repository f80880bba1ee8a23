"""Finding the ranges that hold a number: their bounds cut the numbers into slots."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, override

from augury.rules.conditions import Bounds, InRange
from augury.rules.postings import Finder, Hits, Posting

_SAFE = 2**53
_FEW_POSTINGS = 64  # postings per slot on average, beyond which slots are not worth their memory


class RangeFinder(Finder):
    """Ranges: their bounds cut the numbers into slots, each with the postings that cover it.

    Args:
        doubles_only: of the kind that a number that no double is never lies in.
    """

    def __init__(self, *, doubles_only: bool = False) -> None:
        self._doubles_only = doubles_only
        self._postings: dict[InRange, Posting] = {}
        self._points: list[Any] = []
        self._slots: list[tuple[Posting, ...]] | None = None
        self._stale = True

    @override
    def posting(self, test: InRange) -> Posting:
        if test not in self._postings:
            self._stale = True
        return self._postings.setdefault(test, Posting())

    @override
    def discard(self, test: InRange) -> None:
        self._stale = self._postings.pop(test, None) is not None or self._stale

    @override
    def find(self, value: Any, hits: Hits) -> None:
        if self._stale:
            self._cut()
        kind = value.__class__
        if self._slots is None or (kind is not float and not is_plain(value)):
            self._scan(value, hits)
            return
        index = bisect_left(self._points, value)
        at_point = self._points[index] == value
        for posting in self._slots[2 * index + at_point]:
            hits.take(posting)
        if not hits.exact and kind is float and (at_point or self._doubles_only):
            hits.blurred = True

    def _scan(self, value: Any, hits: Hits) -> None:
        for test, posting in self._postings.items():
            if test.check(value):
                hits.take(posting)
        hits.blurred = hits.blurred or (value.__class__ is float and not hits.exact)

    def _cut(self) -> None:
        """Slot 2i lies below point i (and above the one before), slot 2i+1 is the point."""
        self._stale = False
        bounds = [test.bounds for test in self._postings]
        ends = {end for each in bounds for end in (each.low, each.high) if end is not None}
        self._slots = None
        if not all(is_plain(end) for end in ends):
            return
        self._points = [*sorted(ends), math.inf]  # so that there always is a next one
        spans = [_span(each, self._points) for each in bounds]
        if sum(last - first + 1 for first, last in spans) > _FEW_POSTINGS * 2 * (len(spans) + 64):
            return
        slots: list[list[Posting]] = [[] for _ in range(2 * len(self._points))]
        for (first, last), posting in zip(spans, self._postings.values(), strict=True):
            for slot in range(first, last + 1):
                slots[slot].append(posting)
        self._slots = [tuple(slot) for slot in slots]


def is_plain(number: Any) -> bool:
    """True if Python's own comparison with another plain number is exact."""
    return number.__class__ is float or (number.__class__ is int and -_SAFE <= number <= _SAFE)


def _span(bounds: Bounds, points: list[Any]) -> tuple[int, int]:
    """First and last slot of a range, both inclusive."""
    first, last = 0, 2 * len(points) - 2
    if bounds.low is not None:
        first = 2 * bisect_left(points, bounds.low) + 1 + bounds.low_open
    if bounds.high is not None:
        last = 2 * bisect_left(points, bounds.high) + 1 - bounds.high_open
    return first, last
