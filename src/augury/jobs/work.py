"""Work: what has to run, who holds it, and under which fencing token.

An item is claimed by a conditional UPDATE that adds one to its token. Every later report of the
holder names that token in its condition, so a worker that was thought dead and wakes up late
changes nothing: it gets a `LostLeaseError`. All functions work inside the caller's transaction
and take the run's row first, which is what keeps two of them from waiting for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.errors import LostLeaseError
from augury.jobs import statements
from augury.jobs.lifecycle import lock_run, transition
from augury.jobs.spec import Mode
from augury.jobs.states import LIVE, Priority, RunState
from augury.storage.database import Database
from augury.storage.tables import runs, work

PLAN = "plan"
SHARD = "shard"
SCRIPT = "script"  # kind of work, and the queue of its own where it waits
# runs of these modes are in the hands of one worker at a time
HELD_MODES = frozenset({Mode.MINI_BATCH, Mode.BATCH})
_CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """An item in the hands of a worker.

    Attributes:
        kind: `plan`, `shard` or `script`.
        seq: number of the shard, from 0.
        spec: the shard, as its plan says; None for `plan`.
        token: of this claim; a later claim has a greater one.
        attempts: claims so far that were not given back, this one included.
        priority: its run's; smaller is sooner.
    """

    id: str
    run_id: str
    kind: str
    seq: int
    queue: str
    spec: Mapping[str, Any] | None
    token: int
    attempts: int
    worker_id: str
    priority: int = Priority.LIVE

    @property
    def is_shard(self) -> bool:
        """False for the run's planning, and for a script."""
        return self.kind == SHARD

    @property
    def is_script(self) -> bool:
        """True for the one item of a script run."""
        return self.kind == SCRIPT

    @property
    def what(self) -> str:
        """How people are told of it."""
        return {PLAN: "planning", SHARD: f"shard {self.seq}", SCRIPT: "the script"}[self.kind]


def claim(
    database: Database,
    connection: sa.Connection,
    worker_id: str,
    queues: Sequence[str],
    *,
    run_id: str | None = None,
) -> WorkItem | None:
    """Takes the next item that is ready and fits, if there is one.

    A run that is held by another worker is passed over. The first claim of a run moves it to
    IN_PROGRESS (a script does when it starts); the first claim of a shard of a mode that one
    worker holds makes this worker the holder.

    Args:
        database: for the dialect.
        connection: the transaction.
        worker_id: who takes it; it must hold nothing else.
        queues: where to look; live work first, then the oldest among all of them.
        run_id: look only at this run.
    """
    for candidate in _candidates(connection, worker_id, queues, run_id, _CANDIDATES):
        run = lock_run(database, connection, candidate.run_id)
        if run.state not in LIVE or run.host not in (None, worker_id):
            continue
        claimed = {"item": candidate.id, "holder": worker_id, "now": clock.utc_now()}
        taken = connection.execute(statements.CLAIM, claimed).one_or_none()
        if taken is not None:
            _begin(database, connection, run, taken)
            return item_of(taken)
    return None


def claim_next(connection: sa.Connection, before: WorkItem, *, host: str | None) -> WorkItem | None:
    """Takes the next ready shard of a run for the worker that has just reported one of it.

    The same as `claim` of that run, without another look at the run: it is for the transaction of
    the report, which has the run's row and knows that it goes on. A replay stops here as soon as
    live work waits: it goes on when its turn comes.

    Args:
        connection: the transaction.
        before: the reported shard.
        host: the run's holder.
    """
    if host not in (None, before.worker_id) or must_yield(connection, before):
        return None
    taken = connection.execute(
        statements.CLAIM_NEXT,
        {
            "run": before.run_id,
            "its_queue": before.queue,
            "holder": before.worker_id,
            "now": clock.utc_now(),
        },
    ).one_or_none()
    if taken is None:
        return None
    if host is None and before.queue in HELD_MODES:
        set_host(connection, before.run_id, before.worker_id)
    return item_of(taken)


def must_yield(connection: sa.Connection, before: WorkItem) -> bool:
    """Whether something that goes before the rest of a replay's run is ready in its queue."""
    if before.priority == Priority.LIVE:
        return False
    wanted = {"its_queue": before.queue, "priority": before.priority, "now": clock.utc_now()}
    return connection.execute(statements.SOONER, wanted).first() is not None


def is_ready(
    connection: sa.Connection, worker_id: str, queues: Sequence[str], *, run_id: str | None = None
) -> bool:
    """Whether `claim` would find something now."""
    return bool(_candidates(connection, worker_id, queues, run_id, 1))


def _candidates(
    connection: sa.Connection,
    worker_id: str,
    queues: Sequence[str],
    run_id: str | None,
    most: int,
) -> Sequence[Any]:
    wanted = {"holder": worker_id, "queues": queues, "now": clock.utc_now(), "most": most}
    if run_id is None:
        return connection.execute(statements.CANDIDATES, wanted).all()
    return connection.execute(statements.CANDIDATES_OF_RUN, {**wanted, "run": run_id}).all()


def _begin(database: Database, connection: sa.Connection, run: Any, taken: Any) -> None:
    # a script has to be set up first
    if run.state == RunState.ACCEPTED and taken.kind != SCRIPT:
        transition(database, connection, run.id, RunState.IN_PROGRESS, details="Planning.")
    if taken.kind == SHARD and run.mode in HELD_MODES and run.host is None:
        set_host(connection, run.id, taken.worker_id)


def set_host(connection: sa.Connection, run_id: str, worker_id: str | None) -> None:
    """Makes a worker the holder of a run, or frees it; the caller has the run's row."""
    connection.execute(statements.SET_HOST, {"run": run_id, "holder": worker_id})


def let_go(database: Database, connection: sa.Connection, worker_id: str, run_id: str) -> None:
    """Frees a run that this worker holds and does nothing for: another one may go on with it."""
    run = lock_run(database, connection, run_id)
    if run is not None and run.host == worker_id:
        set_host(connection, run_id, None)


def let_all_go(connection: sa.Connection, worker_id: str) -> None:
    """Frees every run that a worker holds."""
    connection.execute(sa.update(runs).where(runs.c.host == worker_id).values(host=None))


def item_of(row: Any) -> WorkItem:
    """A leased row of `work` as a value."""
    return WorkItem(
        id=row.id,
        run_id=row.run_id,
        kind=row.kind,
        seq=row.seq,
        queue=row.queue,
        spec=row.spec,
        token=row.token,
        attempts=row.attempts,
        priority=row.priority,
        worker_id=row.worker_id,
    )


def leased_by(connection: sa.Connection, worker_id: str) -> list[WorkItem]:
    """What a worker holds, by run."""
    select = sa.select(work).where(statements.IS_LEASED, work.c.worker_id == worker_id)
    return [item_of(row) for row in connection.execute(select.order_by(work.c.run_id, work.c.seq))]


def fence(item: WorkItem) -> dict[str, Any]:
    """The parameters of `statements.HELD`, the condition that this claim is the item's last."""
    return {"item": item.id, "fence": item.token, "holder": item.worker_id}


def check_held(connection: sa.Connection, item: WorkItem) -> None:
    """Looks whether the holder should go on.

    Raises:
        LostLeaseError: somebody else has the item now, or its run goes on no longer.
    """
    state = connection.scalar(statements.RUN_STATE, fence(item))
    if state is None:
        raise lost(item)
    if state not in LIVE:
        raise lost(item, f"the run is {state}")


def lost(item: WorkItem, why: str = "the lease expired") -> LostLeaseError:
    """The error that says so."""
    return LostLeaseError(
        f"{item.kind} {item.seq} of run {item.run_id} is not this worker's any more: {why}",
        run_id=item.run_id,
        token=item.token,
    )


def open_window(connection: sa.Connection, run_id: str, max_concurrency: int) -> dict[str, int]:
    """Makes waiting shards ready, up to the run's window; the caller has the run's row.

    Returns:
        How many became ready, by queue.
    """
    opening = {"run": run_id, "window": max_concurrency, "now": clock.utc_now()}
    found = connection.execute(statements.OPEN, opening).scalars().all()
    return {queue: found.count(queue) for queue in set(found)}
