"""Scoring the shards of a run side by side in this process, without a service.

As many shards at once as there are CPUs; a model that is left alone with its shard computes with
several threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from augury.inference.commit import check_budget
from augury.inference.plan import Plan, ShardResult, ShardSpec
from augury.inference.score import score_shard

if TYPE_CHECKING:
    from augury.models.port import Model
    from augury.settings import Settings
    from augury.storage.objects import ObjectStore

Progress = Callable[[int, int], None]


def share_cpus(settings: Settings, num_shards: int) -> tuple[int, int]:
    """(threads a model computes with, shards at once): never more than there are CPUs."""
    cpus = settings.worker_cpus or _cpus()
    side_by_side = min(cpus, num_shards)
    return max(1, cpus // side_by_side), side_by_side


def _cpus() -> int:
    """CPUs that this process may use (not all systems can tell)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _StoppedError(Exception):
    """Another shard failed, or the user has had enough."""


class Crew:
    """Scores the shards of one plan in a few threads of this process.

    Args:
        plan: of the run.
        model: the planned one, loaded.
        output: rooted at the run's folder.
        settings: for access to the inputs.
        num_threads: with which the model computes on each shard.
        on_progress: called with (rows done so far, rows in all), one call at a time.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        output: ObjectStore,
        settings: Settings,
        *,
        num_threads: int,
        on_progress: Progress | None,
    ) -> None:
        self._plan = plan
        self._model = model
        self._output = output
        self._settings = settings
        self._num_threads = num_threads
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done = 0
        self._results: list[ShardResult] = []
        self._stop = threading.Event()

    def score(self, shards: Sequence[ShardSpec], side_by_side: int) -> list[ShardResult]:
        """Scores all; the first error of any ends the others and is raised."""
        self._advance(0)
        pool = ThreadPoolExecutor(side_by_side, thread_name_prefix="augury-shard")
        try:
            futures = [pool.submit(self._score, shard) for shard in shards]
            wait(futures, return_when=FIRST_EXCEPTION)
            return _results(futures)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _score(self, shard: ShardSpec) -> ShardResult:
        result = score_shard(
            self._plan,
            shard,
            self._model,
            self._output,
            self._settings,
            num_threads=self._num_threads,
            on_progress=self._advance,
            check=self._check,
        )
        with self._lock:
            self._results.append(result)
            check_budget(self._plan, self._results)
        return result

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _advance(self, num_rows: int) -> None:
        with self._lock:
            self._done += num_rows
            if self._on_progress is not None:
                self._on_progress(self._done, self._plan.rows_in)


def _results(futures: Sequence[Future[ShardResult]]) -> list[ShardResult]:
    for future in futures:
        if future.done():
            future.result()  # raises the error that ended the wait
    return [future.result() for future in futures]
