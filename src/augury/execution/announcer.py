"""Sends a process's fresh events to the bus at once, without anybody waiting for it.

The relay looks at the outbox twice a second; a run's events should not wait for that, and a worker
should not wait for the bus. So a thread flushes the outbox whenever it is told that a transaction
has put something there; many tellings while it works are one.
"""

from __future__ import annotations

import logging
import threading

from augury.bus import relay
from augury.bus.port import Bus
from augury.errors import UnavailableError
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)


class Announcer:
    """A thread that empties the outbox when told.

    Args:
        database: where the outbox is.
        settings: say where the bus is; it is connected when first needed.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._told = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to listen for `tell`."""
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """There is something new in the outbox; returns at once."""
        self._told.set()

    def stop(self) -> None:
        """Sends what it was told of, and ends."""
        if self._thread is not None:
            self._stopping = True
            self._told.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        from augury.bus.redis_bus import RedisBus

        settings = self._settings
        bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)
        try:
            while not self._stopping:
                self._told.wait()
                self._told.clear()
                self._flush(bus)
        finally:
            bus.close()

    def _flush(self, bus: Bus) -> None:
        """Whatever goes wrong here, the relay will do it."""
        try:
            while relay.flush(self._database, bus, resend_s=self._settings.resend_s):
                pass
        except UnavailableError as error:
            _log.info("events wait for the relay: %s", error, extra={"action": "flush_failed"})
        except Exception:
            _log.exception("events wait for the relay", extra={"action": "flush_failed"})
