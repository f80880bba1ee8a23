"""Keeps Celery's event loop awake and honest.

Two things that Celery leaves to chance, and a worker must not:

* The loop looks whether to stop only when something happens, which may take seconds. A timer makes
  something happen.
* When the broker dies while a message is being acknowledged, the error is logged and swallowed, the
  message counts as being worked on for ever, and with a prefetch of one the worker never asks for
  another (seen with Celery 5.7 and Redis; the same as "worker stops consuming after Redis was
  restarted" of its issue tracker). The same timer sees that, for it fires only between tasks, and
  then there can be no unacknowledged message; it raises what a broken connection raises, so that
  Celery connects anew.
"""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger(__name__)
_LOOK_S = 0.2
# so many looks in a row: an acknowledgement may be on its way
_DEAF_LOOKS = 10


class LoopWatch:
    """A timer in the event loop of one consumer, which survives reconnections.

    Args:
        consumer: Celery's consumer, from the signal `worker_ready`.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._deaf = 0

    def start(self) -> None:
        """Begins to look; does nothing where there is no event loop."""
        if self._consumer.hub is not None and self._consumer.timer is not None:
            self._consumer.timer.call_repeatedly(_LOOK_S, self._look)

    def _look(self) -> None:
        self._deaf = self._deaf + 1 if self._is_deaf() else 0
        if self._deaf >= _DEAF_LOOKS:
            self._deaf = 0
            _log.warning("no message can arrive: connecting anew", extra={"action": "worker_deaf"})
            raise ConnectionResetError("the broker's connection delivers nothing any more")

    def _is_deaf(self) -> bool:
        """True if no socket is listened to, or Celery believes that its hands are full."""
        if not self._consumer.hub.readers:
            return True
        channel = getattr(self._consumer.task_consumer, "channel", None)
        qos = getattr(channel, "qos", None)
        return qos is not None and not qos.can_consume()
