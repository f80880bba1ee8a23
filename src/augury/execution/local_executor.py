"""Workers as threads of this process, woken through memory: no broker, the same worker code.

For tests, notebooks and programs that bring their own threads; and for the scripts of a Celery
worker, which it waits for beside its scoring.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Self

from augury.execution.worker import QUEUES, Worker
from augury.settings import Settings
from augury.storage.database import Database


class LocalExecutor:
    """Wake-ups in memory, and threads that take them; see `Executor`.

    Args:
        database: the ledger; it is not closed with this.
        settings: of the workers.
        num_workers: threads to start; 0: wake-ups are only counted.
        queues: from which they take work.
        name: begins the workers' names.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        num_workers: int = 1,
        queues: Sequence[str] = QUEUES,
        name: str = "local",
    ) -> None:
        self._waiting: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._is_closing = False
        self._queues = tuple(queues)
        self.workers = [
            Worker(database, self, settings, name=f"{name}-{number}", queues=queues)
            for number in range(1, num_workers + 1)
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=worker.id, daemon=True)
            for worker in self.workers
        ]

    def start(self) -> Self:
        """Starts the workers; returns itself.

        Raises:
            UnavailableError: the database does not answer.
        """
        for worker, thread in zip(self.workers, self._threads, strict=True):
            worker.start()
            thread.start()
        return self

    def wake(self, queue: str, count: int = 1) -> None:
        """See `Executor.wake`."""
        with self._changed:
            self._waiting[queue] += count
            self._changed.notify(count)

    def depth(self, queue: str) -> int:
        """See `Executor.depth`."""
        with self._changed:
            return self._waiting[queue]

    def close(self) -> None:
        """Lets the workers finish or give back what they hold, and ends them."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for worker in self.workers:
            worker.drain()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, worker: Worker) -> None:
        try:
            while (queue := self._next()) is not None:
                worker.serve(queue)
        finally:
            worker.stop()

    def _next(self) -> str | None:
        """Takes a wake-up, from each queue in turn; None at the end."""
        with self._changed:
            while not self._is_closing:
                for queue in self._queues:
                    if self._waiting[queue] > 0:
                        self._waiting[queue] -= 1
                        self._queues = (*(q for q in self._queues if q != queue), queue)
                        return queue
                self._changed.wait()
        return None
