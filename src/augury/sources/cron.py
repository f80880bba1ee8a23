"""From a cron expression and a zone to instants: pure, and right when clocks are changed.

croniter only ever sees local time without a zone; which instant that is, is decided here:

- A schedule of fixed hours (`30 2 * * *`) ticks once for each local time it names. A local time
  that is skipped when clocks go forward ticks at the instant of the change, one that comes twice
  when they go back ticks the first time only.
- A schedule of every hour (`*/5 * * * *`: its hour field is `*`) keeps its beat in real time. It
  ticks in both of the doubled hours, and a skipped hour has no ticks, for it does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_ANY_DAY = datetime(2024, 1, 1)
_FIELDS = frozenset({5, 6})
_EVERY = frozenset({"*", "*/1"})
_CHANCE = re.compile(r"(?:^|[\s,])[rh]", re.IGNORECASE)  # croniter's random and hashed fields
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Cron:
    """The instants that a cron expression names in a zone. Not to be shared among threads.

    Args:
        expression: five fields, six with seconds first, or `@hourly` and the like.
        timezone: IANA name.

    Raises:
        ValueError: one of them is wrong, or the expression names no instant at all.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self._zone = ZoneInfo(checked_zone(timezone))
        expression = checked_expression(expression)
        self._expression = _NICKNAMES.get(expression, expression)
        self._every_hour = self._expression.split()[-4] in _EVERY
        self._local_ticks = _local_ticks(self._expression, _ANY_DAY)

    def after(self, instant: datetime) -> datetime:
        """The first instant of the schedule that is later than `instant`, in UTC."""
        found = self._by_beat(instant) if self._every_hour else self._by_name(instant)
        return found.astimezone(UTC)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The schedule's instants later than `start`, up to `end` (inclusive), in UTC."""
        instant = self.after(start)
        while instant <= end:
            yield instant
            instant = self.after(instant)

    def _by_name(self, instant: datetime) -> datetime:
        local = instant.astimezone(self._zone).replace(tzinfo=None, fold=0)
        while True:
            local = self._next_local(local)
            found = self._instant_of(local)
            if found > instant:
                return found

    def _instant_of(self, local: datetime) -> datetime:
        """The first instant of this local time; of one that is skipped, the change's."""
        found = local.replace(tzinfo=self._zone).astimezone(UTC)
        if found.astimezone(self._zone).replace(tzinfo=None) == local:
            return found
        # fold 0 reads a skipped time by the offset before the change: it comes after the change
        return self._change(found - 2 * _DAY, found)

    def _by_beat(self, instant: datetime) -> datetime:
        """From one stretch of constant offset to the next, until one has a tick."""
        start = instant
        inclusive = False
        while True:
            offset = self._offset(start)
            local = (start.astimezone(UTC) + offset).replace(tzinfo=None)
            local = self._next_local(local - _SECOND if inclusive else local)
            found = (local - offset).replace(tzinfo=UTC)
            if self._offset(found) == offset and not self._changes(start, found):
                return found
            start, inclusive = self._change(start, found), True

    def _changes(self, start: datetime, end: datetime) -> bool:
        """True if the offset is another one for a while between two instants that share one."""
        days = (start + _DAY * day for day in range(1, (end - start) // _DAY + 1))
        return any(self._offset(day) != self._offset(start) for day in days)

    def _change(self, start: datetime, end: datetime) -> datetime:
        """The instant of the first change of offset after `start`; there must be one by `end`."""
        before = self._offset(start)
        low, high = start, min(start + _DAY, end)
        while self._offset(high) == before and high < end:
            low, high = high, min(high + _DAY, end)
        while high - low > _SECOND:
            middle = low + (high - low) / 2
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)
        return high.replace(microsecond=0)  # offsets change at whole seconds

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self._zone).utcoffset() or timedelta()

    def _next_local(self, local: datetime) -> datetime:
        self._local_ticks.set_current(local, force=True)
        found: datetime = self._local_ticks.get_next()
        return found


def _local_ticks(expression: str, start: datetime) -> Any:
    from croniter import croniter

    return croniter(expression, start, ret_type=datetime, second_at_beginning=True)


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


def checked_expression(expression: str) -> str:
    """The expression itself, without spaces around it, if it names any instant.

    Raises:
        ValueError: it does not.
    """
    from croniter import croniter

    text = expression.strip()
    fields = _NICKNAMES.get(text, text)
    well_formed = (
        len(fields.split()) in _FIELDS
        and not _CHANCE.search(fields)
        and croniter.is_valid(fields, second_at_beginning=True)
    )
    if not well_formed:
        raise ValueError(
            "expected a cron expression of five fields (minute hour day month weekday), six with "
            f"seconds first, or one of {', '.join(_NICKNAMES)}; found {expression!r}"
        )
    try:
        _local_ticks(fields, _ANY_DAY).get_next()
    except ValueError as error:
        raise ValueError(f"the cron expression {expression!r} names no instant: {error}") from error
    return text
