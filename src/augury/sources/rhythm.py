"""When a schedule ticks: by cron, every N seconds, or once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from augury.sources.local_time import LocalTime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR = 9998  # of the last one, no zone's local time is certain to exist


class Rhythm(Protocol):
    """The instants at which a schedule ticks."""

    def after(self, instant: datetime) -> datetime | None:
        """The first one later than `instant`, in UTC; None if there is none."""
        ...


def between(rhythm: Rhythm, start: datetime, end: datetime) -> Iterator[datetime]:
    """The instants later than `start`, up to `end` (inclusive)."""
    instant = rhythm.after(start)
    while instant is not None and instant <= end:
        yield instant
        instant = rhythm.after(instant)


class Every:
    """Every N seconds, counted from 1970-01-01T00:00Z, so that no restart shifts it.

    Args:
        every_s: seconds between two ticks, at least 1.
    """

    def __init__(self, every_s: int) -> None:
        self._every = timedelta(seconds=every_s)

    def after(self, instant: datetime) -> datetime | None:
        """The first multiple later than `instant`."""
        return _EPOCH + ((instant - _EPOCH) // self._every + 1) * self._every


class Once:
    """At one time; by the policy for doubled and skipped times perhaps twice, or never.

    Args:
        at: RFC 3339; without a zone it is local time.
        local: the zone of a time that says none.
    """

    def __init__(self, at: str, local: LocalTime) -> None:
        named = checked_time(at)
        self._instants = [named] if named.tzinfo else local.instants(named)

    def after(self, instant: datetime) -> datetime | None:
        """The first of its instants later than `instant`."""
        return next((each for each in self._instants if each > instant), None)


def checked_time(text: str) -> datetime:
    """What the text names: an instant in UTC, or a local time without zone.

    Raises:
        ValueError: it names neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(_expected(text)) from error
    if not _EPOCH.year <= found.year <= _LAST_YEAR:
        raise ValueError(f"{_expected(text)}, which is not within 1970 to {_LAST_YEAR}")
    return found.astimezone(UTC) if found.tzinfo else found.replace(fold=0)


def _expected(text: str) -> str:
    return (
        "expected a time such as 2026-12-01T06:00:00 (in the schedule's time zone) or "
        f"2026-12-01T06:00:00Z, found {text!r:.80}"
    )
