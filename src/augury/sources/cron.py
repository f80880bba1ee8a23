"""From a cron expression and a zone to instants: pure, and right when clocks are changed.

croniter only ever sees local time without a zone; which instant that is, is decided here:

- A schedule of fixed hours (`30 2 * * *`) names local times. What one means that is skipped when
  clocks go forward, or comes twice when they go back, is the schedule's own policy (`local_time`).
- A schedule of every hour (`*/5 * * * *`: its hour field is `*`) keeps its beat in real time. It
  ticks in both of the doubled hours, and a skipped hour has no ticks, for it does not exist.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from augury.sources.local_time import LocalTime

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
        local: the zone, and what skipped and doubled times mean there.

    Raises:
        ValueError: the expression is wrong, or names no instant at all.
    """

    def __init__(self, expression: str, local: LocalTime) -> None:
        self._local = local
        expression = checked_expression(expression)
        self._expression = _NICKNAMES.get(expression, expression)
        self._every_hour = self._expression.split()[-4] in _EVERY
        self._local_ticks = _local_ticks(self._expression, _ANY_DAY)

    def after(self, instant: datetime) -> datetime:
        """The first instant of the schedule that is later than `instant`, in UTC."""
        found = self._by_beat(instant) if self._every_hour else self._by_name(instant)
        return found.astimezone(UTC)

    def _by_name(self, instant: datetime) -> datetime:
        """Looks at local times in order; where clocks were put back, from before that."""
        here = instant.astimezone(self._local.zone).replace(tzinfo=None, fold=0)
        local = here - self._local.doubled(instant)
        best: datetime | None = None
        while True:
            local = self._next_local(local)
            found = self._local.instants(local)
            if best is not None and local > here and (not found or found[0] > best):
                return best
            later = [each for each in found if each > instant]
            if later and (best is None or later[0] < best):
                best = later[0]

    def _by_beat(self, instant: datetime) -> datetime:
        """From one stretch of constant offset to the next, until one has a tick."""
        start = instant
        inclusive = False
        while True:
            offset = self._local.offset(start)
            local = (start.astimezone(UTC) + offset).replace(tzinfo=None)
            local = self._next_local(local - _SECOND if inclusive else local)
            found = (local - offset).replace(tzinfo=UTC)
            if self._local.offset(found) == offset and not self._changes(start, found):
                return found
            start, inclusive = self._local.change(start, found), True

    def _changes(self, start: datetime, end: datetime) -> bool:
        """True if the offset is another one for a while between two instants that share one."""
        days = (start + _DAY * day for day in range(1, (end - start) // _DAY + 1))
        return any(self._local.offset(day) != self._local.offset(start) for day in days)

    def _next_local(self, local: datetime) -> datetime:
        self._local_ticks.set_current(local, force=True)
        found: datetime = self._local_ticks.get_next()
        return found


def _local_ticks(expression: str, start: datetime) -> Any:
    from croniter import croniter

    return croniter(expression, start, ret_type=datetime, second_at_beginning=True)


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
