"""From local time to instants in a zone: pure, and by a stated policy when clocks are changed.

A local time may not exist (clocks go forward over it), or exist twice (they go back over it). What
a schedule that names such a time means, only its owner can say: `Spring` and `Autumn`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class Spring(StrEnum):
    """What becomes of a local time that is skipped."""

    NEXT = "next"  #: it means the instant of the change, the next that exists
    SKIP = "skip"  #: it means nothing that day


class Autumn(StrEnum):
    """Which instant a local time means that comes twice."""

    FIRST = "first"  #: before the clocks are put back
    SECOND = "second"  #: after it
    BOTH = "both"  #: each of them


class LocalTime:
    """The local time of one zone.

    Args:
        timezone: IANA name.
        spring: what a skipped time means.
        autumn: what a doubled time means.

    Raises:
        ValueError: there is no such zone.
    """

    def __init__(
        self,
        timezone: str,
        *,
        spring: Spring = Spring.NEXT,
        autumn: Autumn = Autumn.FIRST,
    ) -> None:
        self.zone = ZoneInfo(checked_zone(timezone))
        self._spring = spring
        self._autumn = autumn

    def instants(self, local: datetime) -> list[datetime]:
        """What a local time (without zone) means: no instant, one, or two, in order, in UTC."""
        found = [self._read(local, fold) for fold in (0, 1)]
        real = [each for each in found if each.astimezone(self.zone).replace(tzinfo=None) == local]
        if not real:  # fold 0 reads a skipped time by the offset before: it comes after the change
            skipped = self._spring is Spring.SKIP
            return [] if skipped else [self.change(found[0] - 2 * _DAY, found[0])]
        first, second = real[0], real[-1]
        if first == second or self._autumn is Autumn.FIRST:
            return [first]
        return [second] if self._autumn is Autumn.SECOND else [first, second]

    def doubled(self, instant: datetime) -> timedelta:
        """By how much clocks are put back within a day before or after; zero if they are not."""
        here = self.offset(instant)
        earlier, later = self.offset(instant - _DAY), self.offset(instant + _DAY)
        return max(earlier - here, here - later, timedelta())

    def offset(self, instant: datetime) -> timedelta:
        """What local time is ahead of UTC at an instant."""
        return instant.astimezone(self.zone).utcoffset() or timedelta()

    def change(self, start: datetime, end: datetime) -> datetime:
        """The instant of the first change of offset after `start`; there must be one by `end`."""
        before = self.offset(start)
        low, high = start, min(start + _DAY, end)
        while self.offset(high) == before and high < end:
            low, high = high, min(high + _DAY, end)
        while high - low > _SECOND:
            middle = low + (high - low) / 2
            low, high = (middle, high) if self.offset(middle) == before else (low, middle)
        return high.replace(microsecond=0)  # offsets change at whole seconds

    def _read(self, local: datetime, fold: int) -> datetime:
        return local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)


def checked_zone(name: str) -> str:
    """The name itself, if it is a time zone's.

    Raises:
        ValueError: it is none.
    """
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"expected an IANA time zone such as 'Europe/Berlin' or 'UTC', found {name!r}"
        ) from error
    return name
