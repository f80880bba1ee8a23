"""Telling workers of accepted runs; one that is not told costs a delay, the sweeper repeats it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from augury.jobs.executor import Executor

_log = logging.getLogger(__name__)


def wake(executor: Executor, started: Mapping[str, int]) -> None:
    """Wakes workers for the runs that were accepted, per queue."""
    for queue, count in sorted(started.items()):
        if not count:
            continue
        try:
            executor.wake(queue, count)
        except Exception as error:  # an adapter's own errors; the work is in the database
            _log.warning(
                "workers were not woken, the sweeper will: %r",
                error,
                extra={"action": "wake_failed", "queue": queue},
            )
