"""A worker: claims what is ready, carries it out, reports, and goes on until nothing is ready.

The same code runs under every executor; a wake-up only says in which queue to look. What a worker
promises: it holds one item at a time; it never forgets one (a report that the database does not
take is repeated until it does, or until the lease is lost); asked to stop, it finishes or gives
back what it holds.

The three modes are three ways to go on after an item:

* `mini_batch`: whoever plans goes on with the shards and the commit, in the same call.
* `batch`: whoever takes a run's first shard takes them all, one after another, with one copy of
  the model; between two of them mini-batches get their turn.
* `distributed`: after each shard, whatever is next in the queue, of whatever run.

Beside runs there are calls of functions (`calls.py`), with a queue of their own.
A script run is one item, from its set-up to its last line.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from augury import clock
from augury.actions import effects
from augury.actions.effects import CALL
from augury.errors import (
    AuguryError,
    ConflictError,
    ConservationError,
    CorruptError,
    IdentityError,
    InvalidError,
    LimitError,
    LostLeaseError,
    NotFoundError,
    UnavailableError,
)
from augury.execution.announcer import Announcer
from augury.execution.calls import Calls
from augury.execution.holding import DrainingError, Holding, Watch
from augury.execution.pulse import Pulse
from augury.execution.scoring import Scoring
from augury.execution.scripting import Scripting
from augury.inference import coordinator
from augury.jobs import reports, script_reports, work, workers
from augury.jobs.executor import Executor
from augury.jobs.reports import Failure, Finished
from augury.jobs.spec import Mode
from augury.jobs.states import Priority
from augury.jobs.work import HELD_MODES, SCRIPT, WorkItem
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)

QUEUES = (Mode.MINI_BATCH, Mode.BATCH, Mode.DISTRIBUTED, CALL, SCRIPT)
# trying again would give the same answer
_PERMANENT = (
    ConflictError,
    ConservationError,
    CorruptError,
    IdentityError,
    InvalidError,
    LimitError,
    NotFoundError,
)
# how long one wake-up is made use of before the other queues get their turn
_TURN_S = 0.25
_LONGEST_PAUSE_S = 2.0


class Worker:
    """One worker. All methods but `drain` are for one thread.

    Args:
        database: the ledger.
        executor: whom to wake when there is more to do than this worker does next.
        settings: of this process.
        name: for people; the worker's id contains it.
        queues: from which it takes work.
    """

    def __init__(
        self,
        database: Database,
        executor: Executor,
        settings: Settings,
        *,
        name: str = "worker",
        queues: Sequence[str] = QUEUES,
    ) -> None:
        self.id = worker_id(name)
        self.queues = tuple(queues)
        self._database = database
        self._executor = executor
        self._settings = settings
        self._cpus = settings.worker_cpus or os.cpu_count() or 1
        self._calls = Calls(database, self.id, settings, out_of_time=self._is_out_of_time)
        self._scoring = Scoring(database, settings, cpus=self._cpus)
        self._announcer = Announcer(database, settings)
        self._watch = Watch(
            database,
            stale_s=settings.lease_timeout_s / 4,
            out_of_time=self._is_out_of_time,
        )
        self._pulse = Pulse(database.url, self.id, settings.heartbeat_s)
        self._draining = threading.Event()
        self._scripting = Scripting(
            database, settings, cpus=self._cpus, is_draining=self._draining.is_set
        )
        self._drained_s = 0.0
        self._turn_until_s = 0.0
        self._is_doubtful = False

    # --- its life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes itself known and lets its heart beat.

        Raises:
            UnavailableError: the database does not answer.
        """
        self._database.transact(
            lambda connection: workers.register(
                connection,
                self.id,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                queues=self.queues,
                cpus=self._cpus,
            )
        )
        self._pulse.start()
        self._announcer.start()
        self._watch.start()
        _log.info("worker started", extra={"action": "worker_started", "worker_id": self.id})

    def drain(self) -> None:
        """Takes nothing new from now on; what is in hand has `drain_s` seconds left.

        Safe to call from a signal handler or another thread, more than once.
        """
        if not self._draining.is_set():
            self._drained_s = clock.monotonic_s() + self._settings.drain_s
            self._draining.set()

    @property
    def is_draining(self) -> bool:
        """True once it was asked to stop."""
        return self._draining.is_set()

    def stop(self) -> None:
        """Gives back what it holds and says goodbye; call it after the last `serve`."""
        self.drain()
        try:
            self._database.transact(self._farewell)
        except UnavailableError as error:
            _log.warning("the sweeper will notice: %s", error, extra={"action": "worker_unheard"})
        self._pulse.stop()
        # once more, after the last beat: a beat says that the worker lives
        try:
            self._database.transact(lambda connection: workers.stop(connection, self.id))
        except UnavailableError:
            _log.debug("stop not recorded", extra={"action": "worker_unheard"})
        self._watch.stop()
        self._announcer.stop()
        _log.info("worker stopped", extra={"action": "worker_stopped", "worker_id": self.id})

    def _farewell(self, connection: sa.Connection) -> None:
        for item in work.leased_by(connection, self.id):
            reports.release(self._database, connection, item)
        work.let_all_go(connection, self.id)
        effects.release(connection, self.id)
        workers.stop(connection, self.id)

    # --- one wake-up ------------------------------------------------------------------------------

    def serve(self, queue: str) -> None:
        """Works on what is ready in a queue, for a turn; wakes a successor if there is more."""
        try:
            self._pulse.start()  # does nothing, unless somebody killed the child
            self._recover()
            if self._take_turn(queue) and self._is_ready((queue,)):
                self._wake(queue)
        except UnavailableError as error:
            self._is_doubtful = True
            _log.warning(
                "gave up for now: %s", error, extra={"action": "serve_failed", "queue": queue}
            )
        while self._is_doubtful and not self._is_out_of_time():
            self._settle_doubts()

    def _settle_doubts(self) -> None:
        """The database was away: perhaps it gave something that this worker does not know of."""
        try:
            self._recover()
            self._is_doubtful = False
        except UnavailableError:
            clock.sleep_s(_LONGEST_PAUSE_S / 2)

    def _recover(self) -> None:
        """Between two calls nothing is in hand; what the ledger thinks is, was lost on the way."""
        with self._database.read() as connection:
            forgotten = work.leased_by(connection, self.id)
        for item in forgotten:
            self._put_down(item, "the claim's answer was lost")
        self._calls.recover()

    def _take_turn(self, queue: str) -> bool:
        """Until nothing is ready; True if time is up before."""
        until_s = self._turn_until_s = clock.monotonic_s() + _TURN_S
        while not self.is_draining:
            if not self._do_next(queue):
                return False
            if clock.monotonic_s() > until_s:
                return True
        return True

    def _do_next(self, queue: str) -> bool:
        if queue == CALL:
            return self._calls.call_next()
        item = self._claim((queue,))
        if item is not None:
            self._carry_out(item)
        return item is not None

    def _carry_out(self, first: WorkItem) -> None:
        """An item, and in the modes that one worker holds, whatever of its run comes after it."""
        item: WorkItem | None = first
        if first.is_script:
            self._run_script(first)
            return
        while item is not None:
            if not item.is_shard:
                item = self._plan(item)
                continue
            finished, following = self._score(item)
            is_over = item.queue not in HELD_MODES or (finished is not None and finished.is_last)
            item = following if following is not None or is_over else self._next_shard(item)

    def _goes_on(self, connection: sa.Connection, item: WorkItem) -> bool:
        """Whether the run's next shard may be claimed together with this one's report.

        That saves a transaction per shard; but when others should have their turn, it waits.
        """
        if self.is_draining:
            return False
        if item.queue == Mode.DISTRIBUTED:
            return clock.monotonic_s() < self._turn_until_s
        if item.queue == Mode.BATCH and Mode.MINI_BATCH in self.queues:
            return not work.is_ready(connection, self.id, (Mode.MINI_BATCH,))
        return True

    def _next_shard(self, before: WorkItem) -> WorkItem | None:
        """The next shard of the same run; None (and anybody may go on with it) if none is ready."""
        if before.queue == Mode.BATCH and Mode.MINI_BATCH in self.queues:
            self._take_turn(Mode.MINI_BATCH)
        found = None
        if not self.is_draining and not self._must_yield(before):
            found = self._claim((before.queue,), run_id=before.run_id)
        if found is None:
            self._database.transact(
                lambda connection: work.let_go(self._database, connection, self.id, before.run_id)
            )
        return found

    def _must_yield(self, before: WorkItem) -> bool:
        if before.priority == Priority.LIVE:  # as nearly always: then nobody need be asked
            return False
        with self._database.read() as connection:
            return work.must_yield(connection, before)

    def _claim(self, queues: Sequence[str], run_id: str | None = None) -> WorkItem | None:
        """Looks before it writes: most looks find nothing, and writers take turns."""
        if not self._is_ready(queues, run_id):
            return None
        return self._database.transact(
            lambda connection: work.claim(
                self._database, connection, self.id, queues, run_id=run_id
            )
        )

    def _is_ready(self, queues: Sequence[str], run_id: str | None = None) -> bool:
        if CALL in queues:
            return self._calls.is_due()
        with self._database.read() as connection:
            return work.is_ready(connection, self.id, queues, run_id=run_id)

    # --- one item ---------------------------------------------------------------------------------

    def _plan(self, item: WorkItem) -> WorkItem | None:
        """Plans a run; returns its first shard if this worker goes on with it."""
        planned = self._attempt(item, self._scoring.plan)
        if planned is None:
            return None
        stored = self._report(
            item,
            lambda connection: reports.finish_plan(self._database, connection, item, planned),
        )
        if stored is None:
            return None
        if stored.opened:
            # a batch is for one worker
            self._wake(planned.mode, 1 if planned.mode is Mode.BATCH else stored.opened)
            self._announcer.tell()
        return stored.shard

    def _run_script(self, item: WorkItem) -> None:
        ending = self._attempt(item, self._scripting.run)
        if ending is not None:
            self._report(
                item,
                lambda connection: script_reports.finish(self._database, connection, item, ending),
            )
            self._announcer.tell()

    def _score(self, item: WorkItem) -> tuple[Finished | None, WorkItem | None]:
        """Scores a shard, and commits the run with its last one.

        Returns:
            What it led to, None if it is not done; and the run's next shard, if it was claimed.
        """
        result = self._attempt(item, self._scoring.score)
        if result is None:
            return None, None

        def report(connection: sa.Connection) -> tuple[Finished, WorkItem | None]:
            finished = coordinator.finish_shard(self._database, connection, item, result)
            if finished.is_last or not self._goes_on(connection, item):
                return finished, None
            # of the same run, whose row this transaction has: two rows could deadlock
            return finished, work.claim_next(connection, item, host=finished.host)

        found = self._report(item, report)
        if found is None:
            return None, None
        self._follow_up(item, found[0])
        return found

    def _follow_up(self, item: WorkItem, finished: Finished) -> None:
        if finished.is_last:
            self._advance(item.run_id)
        for queue, count in finished.opened.items():
            if count > 1:  # one is for this worker
                self._wake(queue, count - 1)
        if finished.is_last or finished.is_news:
            self._announcer.tell()

    def _advance(self, run_id: str) -> None:
        try:
            coordinator.advance(self._database, run_id, self._settings)
        except UnavailableError as error:
            _log.warning(
                "the sweeper will finish the run: %s",
                error,
                extra={"action": "advance_failed", "run_id": run_id},
            )

    def _attempt[T](self, item: WorkItem, do: Callable[[WorkItem, Holding], T]) -> T | None:
        """Does it under watch; None if it did not work out, which is then recorded."""
        try:
            with self._watch.over(item) as holding:
                return do(item, holding)
        except (LostLeaseError, DrainingError) as error:
            self._put_down(item, str(error) or "the worker stops")
        except Exception as error:
            self._record_failure(item, error)
        return None

    def _record_failure(self, item: WorkItem, error: Exception) -> None:
        if not isinstance(error, AuguryError):
            _log.exception("unexpected", extra={"action": "work_failed", "run_id": item.run_id})
        failure = Failure(
            code=error.code if isinstance(error, AuguryError) else "unexpected",
            message=str(error) if isinstance(error, AuguryError) else repr(error),
            is_permanent=isinstance(error, _PERMANENT),
        )
        self._report(
            item, lambda connection: reports.fail(self._database, connection, item, failure)
        )
        self._announcer.tell()

    def _put_down(self, item: WorkItem, why: str) -> None:
        """Gives an item back; if it is somebody else's by now, nothing changes."""
        fields = {"action": "work_put_down", "run_id": item.run_id, "why": why}
        _log.info("%s %d is put down", item.kind, item.seq, extra=fields)
        if self._insist(lambda connection: reports.release(self._database, connection, item)):
            self._wake(item.queue)
        self._announcer.tell()

    def _report[T](self, item: WorkItem, report: Callable[[sa.Connection], T]) -> T | None:
        """Reports on an item; None if it was lost meanwhile."""
        try:
            return self._insist(report)
        except LostLeaseError as error:
            self._put_down(item, error.message)
            return None

    def _insist[T](self, report: Callable[[sa.Connection], T]) -> T:
        """Repeats a report until the database takes it: an item must not be forgotten."""
        pause_s = 0.1
        while True:
            try:
                return self._database.transact(report)
            except UnavailableError as error:
                self._is_doubtful = True
                if self._is_out_of_time():
                    raise
                _log.warning("report waits: %s", error, extra={"action": "report_waits"})
                clock.sleep_s(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    def _is_out_of_time(self) -> bool:
        return self.is_draining and clock.monotonic_s() >= self._drained_s

    def _wake(self, queue: str, count: int = 1) -> None:
        try:
            self._executor.wake(queue, count)
        except UnavailableError as error:
            _log.warning(
                "workers were not woken, the sweeper will: %s",
                error,
                extra={"action": "wake_failed", "queue": queue},
            )


def worker_id(name: str) -> str:
    """An id of at most 64 characters that no process ever had."""
    return f"{name}@{socket.gethostname()}"[:50] + f":{secrets.token_hex(4)}"
