"""What goes on although everybody who should have seen to it is dead.

Any number of sweepers may run: each of their steps is a conditional transaction, or a repetition
that changes nothing. A sweeper decides nothing by the wall clock. A worker is lost when its
heartbeat counter stands still while the *sweeper's* monotonic clock moves, and only time during
which the sweeper itself was awake counts: one that was frozen for a minute must not take a minute
of its own sleep for somebody else's silence.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from augury import clock
from augury.actions import effects
from augury.actions.effects import CALL
from augury.errors import AuguryError, UnavailableError
from augury.execution.leftovers import Leftovers
from augury.execution.replaying import Replaying
from augury.inference import coordinator
from augury.jobs import overdue, reports, work
from augury.jobs.executor import Executor
from augury.jobs.lifecycle import lock_run
from augury.jobs.runs import transition
from augury.jobs.states import RunState
from augury.routing.retention import Retention
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
MAXIMUM_RUNTIME = "maximum_runtime"
# wake-ups of one queue beyond this would only be looks that find nothing
_MOST_WAKE_UPS = 256


@dataclass(slots=True)
class _Silence:
    """How long a worker's counter has stood at `heartbeat`, in the sweeper's waking time."""

    heartbeat: int
    silent_s: float = 0.0


class Sweeper:
    """Keeps work going; see the module.

    Args:
        database: the ledger.
        executor: whom to wake.
        settings: of this process.
    """

    def __init__(self, database: Database, executor: Executor, settings: Settings) -> None:
        self._database = database
        self._executor = executor
        self._settings = settings
        self._leftovers = Leftovers(database, settings)
        self._replaying = Replaying(database, executor, settings)
        self._retention = Retention(database, settings)
        self._silences: dict[str, _Silence] = {}
        self._running: dict[tuple[str, datetime], float] = {}
        self._held: dict[tuple[str, int], float] = {}
        self._stuck: set[str] = set()
        self._swept_s: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Sweeps until `stop` is set; outlives any outage of database, broker and store."""
        while not stop.is_set():
            self.sweep()
            clock.sleep_s(self._settings.sweep_s, until=stop)

    def sweep(self) -> None:
        """Looks at everything once. A step that fails does not keep the others from working."""
        now_s = clock.monotonic_s()
        elapsed_s = 0.0 if self._swept_s is None else now_s - self._swept_s
        self._swept_s = now_s
        awake_s = min(elapsed_s, 3 * self._settings.sweep_s)
        steps: tuple[Callable[[], None], ...] = (
            lambda: self._expire_leases(awake_s),
            self._advance_runs,
            lambda: self._limit_runtimes(elapsed_s),
            lambda: self._limit_shards(awake_s),
            self._open_windows,
            self._wake_workers,
            self._leftovers.sweep,
            self._replaying.sweep,
            self._retention.sweep,
        )
        for step in steps:
            try:
                step()
            except AuguryError as error:
                _log.warning("sweep: %s", error, extra={"action": "sweep_failed"})
            except Exception:
                _log.exception("sweep", extra={"action": "sweep_failed"})

    # --- workers ----------------------------------------------------------------------------------

    def _expire_leases(self, awake_s: float) -> None:
        with self._database.read() as connection:
            counters = overdue.heartbeats(connection) | effects.silent_holders(connection)
        known, self._silences = self._silences, {}
        for worker_id, heartbeat in counters.items():
            silence = known.get(worker_id)
            if silence is None or silence.heartbeat != heartbeat:
                silence = _Silence(heartbeat)
            else:
                silence.silent_s += awake_s
            self._silences[worker_id] = silence
            if silence.silent_s >= self._settings.lease_timeout_s:
                self._expire(worker_id, silence)

    def _expire(self, worker_id: str, silence: _Silence) -> None:
        def expire(connection: sa.Connection) -> Counter[str]:
            ready = reports.expire(self._database, connection, worker_id, silence.heartbeat)
            effects.expire(self._database, connection, worker_id, silence.heartbeat)
            return ready

        ready = self._database.transact(expire)
        _log.warning(
            "worker %s is lost; %d items are ready again",
            worker_id,
            ready.total(),
            extra={"action": "lease_expired", "worker_id": worker_id},
        )
        for queue, count in ready.items():
            if count:
                self._executor.wake(queue, count)

    def _wake_workers(self) -> None:
        """As many wake-ups as there is ready work: lost ones are replaced, doubles do no harm."""
        with self._database.read() as connection:
            ready = overdue.ready_work(connection, limit=_MOST_WAKE_UPS)
            ready[CALL] = effects.count_due_calls(connection, limit=_MOST_WAKE_UPS)
        for queue, count in ready.items():
            missing = count - self._executor.depth(queue) if count else 0
            if missing > 0:
                self._executor.wake(queue, missing)

    # --- runs -------------------------------------------------------------------------------------

    def _advance_runs(self) -> None:
        """Runs whose next step nobody took since the sweep before."""
        with self._database.read() as connection:
            found = set(overdue.stuck_runs(connection))
        stuck, self._stuck = self._stuck & found, found
        for run_id in sorted(stuck):
            try:
                coordinator.advance(self._database, run_id, self._settings)
            except UnavailableError as error:
                _log.info("run waits: %s", error, extra={"action": "run_waits", "run_id": run_id})

    def _limit_runtimes(self, elapsed_s: float) -> None:
        """Fails runs that take too long, by this sweeper's clock from when it first saw them."""
        with self._database.read() as connection:
            running = overdue.running_runs(connection)
        known, self._running = self._running, {}
        for run_id, (started_at, limit_s) in running.items():
            runtime_s = known.get((run_id, started_at), -1.0)
            if runtime_s < 0:  # the wall clock says how long it ran before, if it can be believed
                runtime_s = max(0.0, (clock.utc_now() - started_at).total_seconds())
            else:
                runtime_s += elapsed_s
            self._running[run_id, started_at] = runtime_s
            if runtime_s > limit_s:
                self._fail_overdue(run_id, limit_s)

    def _limit_shards(self, awake_s: float) -> None:
        """Takes shards from workers that have had one claim for too long, seen from here."""
        with self._database.read() as connection:
            limited = overdue.shards_with_deadline(connection)
        known, self._held = self._held, {}
        for item, limit_s in limited:
            held_s = known.get((item.id, item.token), -awake_s) + awake_s
            self._held[item.id, item.token] = held_s
            if held_s > limit_s:
                self._expire_shard(item, limit_s)

    def _expire_shard(self, item: work.WorkItem, limit_s: float) -> None:
        is_ready = self._database.transact(
            lambda connection: reports.expire_shard(self._database, connection, item, limit_s)
        )
        fields = {"action": "shard_expired", "run_id": item.run_id}
        _log.warning("shard %d outlasts its deadline", item.seq, extra=fields)
        if is_ready:
            self._executor.wake(item.queue)

    def _fail_overdue(self, run_id: str, limit_s: float) -> None:
        details = f"Run failed: maximum runtime of {limit_s:g} s exceeded."
        self._database.transact(
            lambda connection: transition(
                self._database,
                connection,
                run_id,
                RunState.FAILED,
                details=details,
                reason=MAXIMUM_RUNTIME,
            )
        )

    def _open_windows(self) -> None:
        """Each report opens the window itself; this is for what a report could not foresee."""
        with self._database.read() as connection:
            narrow = overdue.narrow_windows(connection)
        for run_id, max_concurrency in narrow.items():
            self._database.transact(
                lambda connection: self._open_window(connection, run_id, max_concurrency)  # noqa: B023
            )

    def _open_window(self, connection: sa.Connection, run_id: str, max_concurrency: int) -> None:
        run = lock_run(self._database, connection, run_id)
        if run is not None and run.state == RunState.IN_PROGRESS:
            work.open_window(connection, run_id, max_concurrency)
