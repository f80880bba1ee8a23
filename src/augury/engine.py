"""The one place where adapters are chosen and wired.

An `Engine` is what one process holds open: database, bus, executor, object store, model cache. Each
is made when first used, so a process that only publishes never imports Celery, and one that only
lists runs never connects to Redis. Nothing is shared across a fork: whoever forks opens its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from augury.errors import UnavailableError
from augury.settings import Settings

if TYPE_CHECKING:
    from augury.bus.port import Bus, Durability
    from augury.events.envelope import Event
    from augury.jobs.executor import Executor
    from augury.models.cache import ModelCache
    from augury.monitoring.doctor import Finding
    from augury.storage.database import Database
    from augury.storage.objects import ObjectStore

_SDK_SOURCE = "augury/sdk"


class Engine:
    """Everything one process needs, opened lazily. Safe to share among threads.

    Args:
        settings: read from the environment if not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}

    @property
    def database(self) -> Database:
        """The ledger, its schema brought to this program's version.

        Raises:
            UnavailableError: it does not answer.
        """
        return self._once("database", self._open_database)

    @property
    def bus(self) -> Bus:
        """The event bus; connects when first used."""
        return self._once("bus", self._open_bus)

    @property
    def executor(self) -> Executor:
        """What wakes workers."""
        return self._once("executor", self._open_executor)

    @property
    def store(self) -> ObjectStore:
        """Where Augury keeps artifacts of its own."""
        return self._once("store", self._open_store)

    @property
    def cache(self) -> ModelCache:
        """Models on this host and in this process."""
        return self._once("cache", self._open_cache)

    def publish(self, events: Sequence[Event]) -> list[str]:
        """Puts events on the bus; returns their entry ids once they are durable.

        Not idempotent by itself: after an error the events may be on the bus. Publishing the same
        (source, id) again is safe, the ledger records it as a duplicate.

        Raises:
            UnavailableError: the bus did not confirm.
        """
        return self.bus.publish([event.to_json() for event in events])

    def durability(self) -> Durability:
        """What *accepted* means on the present bus."""
        return self.bus.durability()

    def close(self) -> None:
        """Closes what was opened. The engine may be used again; it opens anew."""
        with self._lock:
            made, self._made = self._made, {}
        for part in reversed(made.values()):
            close = getattr(part, "close", None)
            if close is not None:
                with suppress(UnavailableError):
                    close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _once[T](self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return cast("T", self._made[name])

    def _open_database(self) -> Database:
        from augury.storage.database import Database
        from augury.storage.migrations import migrate

        database = Database(self.settings.effective_database_url)
        migrate(database)
        return database

    def _open_bus(self) -> Bus:
        from augury.bus.redis_bus import RedisBus

        return RedisBus(self.settings.effective_redis_url, namespace=self.settings.namespace)

    def _open_executor(self) -> Executor:
        from augury.execution.celery_executor import CeleryExecutor

        return CeleryExecutor(self.settings)

    def _open_store(self) -> ObjectStore:
        from augury.storage.objects import open_store

        return open_store(self.settings.effective_store_url, self.settings)

    def _open_cache(self) -> ModelCache:
        from augury.models.cache import ModelCache

        return ModelCache(self.settings.effective_cache_dir, self.settings)


def open_engine(settings: Settings | None = None) -> Engine:
    """An engine for the caller's process; nothing is opened before it is used."""
    return Engine(settings)


def diagnose(settings: Settings | None = None) -> list[Finding]:
    """All of the doctor's findings, Celery's effective settings included."""
    from augury.execution.celery_app import app
    from augury.monitoring import doctor

    return doctor.diagnose(settings or Settings(), celery=cast("Mapping[str, object]", app.conf))


_shared: dict[int, Engine] = {}
_shared_lock = threading.Lock()


def shared_engine() -> Engine:
    """This process's engine on the environment's settings, made once (and again after a fork)."""
    with _shared_lock:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = Engine()
        return _shared[os.getpid()]


def publish(
    event: str | Mapping[str, Any],
    data: Any = None,
    *,
    source: str = _SDK_SOURCE,
    subject: str | None = None,
    event_id: str | None = None,
    engine: Engine | None = None,
) -> str:
    """Publishes one event and returns its id, once the event is durable.

    Args:
        event: the type, for example `shop.order.placed`; or a whole CloudEvent as a mapping, and
            then `data` and the other attributes must not be given.
        data: any JSON value.
        source: who says it; with the id unique for every distinct event.
        subject: what it is about.
        event_id: give one to make a repeated call harmless: the ledger knows a duplicate.
        engine: another engine than this process's own.

    Raises:
        InvalidError: not a valid event; every fault is named.
        UnavailableError: the bus did not confirm; publish again with the same `event_id`.
    """
    from augury.events.envelope import new_event, parse_event

    used = engine or shared_engine()
    max_bytes = used.settings.max_event_bytes
    if isinstance(event, str):
        made = new_event(event, data, source=source, subject=subject, event_id=event_id)
        checked = parse_event(made.to_json(), max_bytes=max_bytes)
    else:
        checked = parse_event(event, max_bytes=max_bytes)
    used.publish([checked])
    return checked.id
