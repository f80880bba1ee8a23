"""The only clock.

Everything that needs the time asks here, so that tests can stop it and so that wall-clock time
(`utc_now`, for records that people read) and monotonic time (`monotonic_s`, for durations and
timeouts) are never confused. A wall clock may jump; nothing decides a timeout by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_frozen: list[datetime] = []


def utc_now() -> datetime:
    """The current instant, aware, in UTC, with microseconds."""
    if _frozen:
        return _frozen[-1]
    return datetime.now(UTC)  # noqa: TID251 - the one place


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def sleep_s(duration_s: float, until: threading.Event | None = None) -> bool:
    """Sleeps; wakes early when `until` is set.

    Returns:
        True if `until` was set.
    """
    if until is not None:
        return until.wait(duration_s)
    time.sleep(duration_s)
    return False


def iso(instant: datetime) -> str:
    """RFC 3339 in UTC with six decimals and `Z`: fixed width, so text order is time order."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """Reads RFC 3339; a missing zone is refused.

    Raises:
        ValueError: not a timestamp, or one without a zone.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"timestamp {text!r} has no zone; append 'Z' for UTC")
    return instant.astimezone(UTC)


@contextmanager
def frozen(instant: datetime) -> Iterator[None]:
    """Stops the wall clock at `instant` while the block runs (a seam for tests)."""
    _frozen.append(instant)
    try:
        yield
    finally:
        _frozen.pop()
