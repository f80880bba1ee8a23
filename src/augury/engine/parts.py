"""The one place where adapters are chosen and wired.

`Parts` is what one process holds open: database, bus, executor, object store, model cache. Each is
made when first used, so a process that only publishes never imports Celery, and one that only
lists runs never connects to Redis. Nothing is shared across a fork: whoever forks opens its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from augury.errors import UnavailableError
from augury.settings import Settings

if TYPE_CHECKING:
    from augury.bus.port import Bus
    from augury.jobs.executor import Executor
    from augury.models.cache import ModelCache
    from augury.storage.database import Database
    from augury.storage.objects import ObjectStore

_log = logging.getLogger(__name__)


class Parts:
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

    def after_commit(self, woken: Mapping[str, int] | None = None) -> bool:
        """Makes what was just committed known at once: to workers, and on the bus.

        Only a matter of latency, hence nothing is raised: the sweeper wakes workers and the relay
        sends what is in the outbox, sooner or later.

        Args:
            woken: number of items of work that became ready, per queue.

        Returns:
            False if something did not answer.
        """
        from augury.bus.relay import flush

        try:
            for queue, count in (woken or {}).items():
                self.executor.wake(queue, count)
            flush(self.database, self.bus, resend_s=self.settings.resend_s)
        except UnavailableError as error:
            _log.info("to be told later: %s", error, extra={"action": "after_commit_waits"})
            return False
        return True

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
