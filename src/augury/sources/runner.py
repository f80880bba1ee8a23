"""Runs every enabled source and all schedules of one process.

Each source has threads of its own, so that a store or broker that does not answer keeps nobody else
waiting. Changes of the resources are noticed by looking at them every half second. Any number of
processes may do the same at the same time; see `announce`, `queues` and `schedules` for why that is
safe.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from augury import clock
from augury.bus.port import Bus
from augury.errors import AuguryError, UnavailableError
from augury.resources.store import Kind, Resource
from augury.settings import Settings
from augury.sources.complete import preload
from augury.sources.queues import QueueConsumer
from augury.sources.schedules import Schedules
from augury.sources.spec import SourceKind, SourceSpec
from augury.sources.store import enabled
from augury.sources.watcher import ObjectWatcher
from augury.storage.database import Database

_log = logging.getLogger(__name__)
_REFRESH_S = 0.5
_RESTART_S = 1.0
_JOIN_S = 5.0

type _Loop = Callable[[threading.Event], None]


@dataclass(frozen=True)
class _Running:
    resource: Resource
    stop: threading.Event
    threads: tuple[threading.Thread, ...]


class Sources:
    """Everything that produces events by itself.

    Args:
        database: where sources and schedules are, and what they announced.
        bus: told at once of each event.
        settings: how often to list, how stores are reached.
    """

    def __init__(self, database: Database, bus: Bus, settings: Settings) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._running: dict[str, _Running] = {}

    def run(self, stop: threading.Event) -> None:
        """Watches and ticks until `stop` is set; outlives any outage."""
        schedules = Schedules(self._database, self._bus, self._settings)
        thread = _start("schedules", schedules.run, stop)
        threading.Thread(target=preload, name="preload", daemon=True).start()
        while not stop.is_set():
            try:
                self.refresh()
            except UnavailableError as error:
                _log.warning("sources wait: %s", error, extra={"action": "sources_wait"})
            clock.sleep_s(_REFRESH_S, until=stop)
        self._end(list(self._running))
        thread.join(_JOIN_S)

    def refresh(self) -> None:
        """Starts, restarts and ends watchers, so that they fit the resources as they are now.

        Raises:
            UnavailableError: the database did not answer; what runs, runs on.
        """
        wanted = {source.id: source for source in enabled(self._database, Kind.SOURCE)}
        self._end(
            [
                source_id
                for source_id, running in self._running.items()
                if running.resource != wanted.get(source_id)
            ]
        )
        for source_id, source in wanted.items():
            if source_id not in self._running:
                self._begin(source)

    def _begin(self, source: Resource) -> None:
        stop = threading.Event()
        threads = [_start(name, loop, stop) for name, loop in self._loops(source)]
        self._running[source.id] = _Running(source, stop, tuple(threads))

    def _loops(self, source: Resource) -> Iterator[tuple[str, _Loop]]:
        """What a source needs running; a webhook that lists nothing needs only the API."""
        spec = SourceSpec.model_validate(source.spec)
        parts = (self._database, self._bus, self._settings, source)
        extra = {"action": "source_watched", "source_id": source.id}
        if spec.watch is not None:
            _log.info("source %s lists %s", source.name, spec.watch.uri, extra=extra)
            # made by its own thread: what fails then is said, and begun anew
            yield f"source {source.name}", lambda stop: ObjectWatcher(*parts).run(stop)
        if spec.kind is SourceKind.QUEUE:
            yield f"queue of {source.name}", lambda stop: QueueConsumer(*parts).run(stop)

    def _end(self, source_ids: list[str]) -> None:
        ended = [self._running.pop(source_id) for source_id in source_ids]
        for running in ended:
            running.stop.set()
        deadline_s = clock.monotonic_s() + _JOIN_S
        for running in ended:  # one that waits for its store may go on: whatever it does is safe
            for thread in running.threads:
                thread.join(max(0.0, deadline_s - clock.monotonic_s()))


def _start(name: str, loop: _Loop, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=_undying, args=(name, loop, stop), name=name, daemon=True)
    thread.start()
    return thread


def _undying(name: str, loop: _Loop, stop: threading.Event) -> None:
    """A fault of ours in one source must not silence it, nor the others: said, and begun anew."""
    while not stop.is_set():
        try:
            loop(stop)
        except AuguryError as error:
            _log.error("%s begins anew: %s", name, error, extra={"action": "source_restarts"})
        except Exception:
            _log.exception("%s begins anew", name, extra={"action": "source_restarts"})
        clock.sleep_s(_RESTART_S, until=stop)
