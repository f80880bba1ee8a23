"""Resuming a run that failed, was canceled or waits for somebody: only what is missing runs again.

Plan, pins and finished shards stay; everything else becomes ready anew, with all its attempts. What
finished shards wrote is kept for `AUGURY_RESUME_DAYS` after the run ended. Later it is gone: then
every shard is scored again, to the same bytes. While it is being removed a run cannot be resumed,
for the remover could take a part that was just written.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.outbox import emit
from augury.errors import ConflictError
from augury.jobs import logs
from augury.jobs.acceptance import first_queue
from augury.jobs.lifecycle import SHORT_COLUMNS, lock_run, resumed_event
from augury.jobs.runs import Run, get_run
from augury.jobs.states import RESUMABLE, RunState, WorkState
from augury.jobs.work import PLAN, SCRIPT, SHARD, open_window
from augury.storage.database import Database
from augury.storage.tables import runs, work

_GIVEN_UP = (WorkState.FAILED, WorkState.CANCELED)


def resume(database: Database, connection: sa.Connection, run_id: str) -> tuple[Run, Counter[str]]:
    """Lets a run go on with what is missing.

    Args:
        database: for the dialect.
        connection: the transaction; wake the queues after its commit.
        run_id: id or name.

    Returns:
        The run, and how many items are ready, by queue.

    Raises:
        NotFoundError: no such run.
        ConflictError: it goes on by itself, has succeeded or was deleted; or its parts are being
            removed at this moment.
    """
    lock_run(database, connection, get_run(connection, run_id).id)
    run = get_run(connection, run_id)
    _check(run)
    if run.cleaned_at is not None:
        _forget_parts(connection, run)
    ready = _reopen(connection, run)
    row = _revive(connection, run)
    emit(database, connection, [resumed_event(row)])
    logs.append(connection, run.id, "info", row.lifecycle_details)
    return get_run(connection, run.id), ready


def _check(run: Run) -> None:
    if run.kind == SCRIPT:
        raise ConflictError(
            f"run {run.id} ran a script, which cannot go on in its middle: start a new run",
            run_id=run.id,
            state=run.state,
        )
    if run.state not in RESUMABLE or run.time_committed is not None:
        raise ConflictError(
            f"nothing to resume: run {run.id} is {run.state}; only a run that failed, was canceled "
            "or needs attention can go on",
            run_id=run.id,
            state=run.state,
        )
    if run.cleaning_at is not None and run.cleaned_at is None:
        raise ConflictError(
            f"the parts of run {run.id} are being removed just now, for it ended long ago; resume "
            "it in a minute, and all of it will be scored again",
            run_id=run.id,
        )


def _forget_parts(connection: sa.Connection, run: Run) -> None:
    """What finished shards wrote is gone: they are as if they had never run."""
    connection.execute(
        sa.update(work)
        .where(work.c.run_id == run.id, work.c.kind == SHARD, work.c.state == WorkState.DONE)
        .values(state=WorkState.CANCELED, result=None)
    )


def _reopen(connection: sa.Connection, run: Run) -> Counter[str]:
    """Everything that was given up waits again; what fits into the window is ready."""
    kind = SHARD if run.plan is not None else PLAN
    connection.execute(
        sa.update(work)
        .where(work.c.run_id == run.id, work.c.kind == kind, work.c.state.in_(_GIVEN_UP))
        .values(
            state=WorkState.WAITING,
            attempts=0,
            error=None,
            rows_done=0,
            worker_id=None,
            done_at=None,
        )
    )
    opened = open_window(connection, run.id, run.job_spec.max_concurrency)
    held = {} if opened else {str(run.mode or first_queue(run.job_spec)): 1}
    return Counter(opened or held)


def _revive(connection: sa.Connection, run: Run) -> Any:
    done = sa.select(
        sa.func.count().filter(work.c.state == WorkState.DONE),
        sa.func.count().filter(work.c.state == WorkState.LEASED),
        sa.func.coalesce(sa.func.sum(work.c.rows_done), 0),
    ).where(work.c.run_id == run.id, work.c.kind == SHARD)
    shards_done, num_held, rows_done = connection.execute(done).one()
    missing = f"{run.shards_total - shards_done} of {run.shards_total} shards are missing"
    values: dict[str, Any] = {
        "state": RunState.IN_PROGRESS,
        "lifecycle_details": f"Resumed: {missing if run.plan is not None else 'planning'}.",
        "reason": None,
        "time_started": run.time_started or clock.utc_now(),
        "time_finished": None,
        "time_resumed": clock.utc_now(),
        "num_resumes": run.num_resumes + 1,
        "num_returns": run.num_returns + 1,
        # a worker that has not noticed the end goes on, and holds the run as before
        "host": run.host if num_held else None,
        "cleaning_at": None,
        "cleaned_at": None,
        "rows_done": rows_done,
        "shards_done": shards_done,
        "shards_isolated": 0,
    }
    if run.cleaned_at is not None:
        values["rows_rejected"] = 0
    change = sa.update(runs).where(runs.c.id == run.id).values(**values)
    return connection.execute(change.returning(*SHORT_COLUMNS)).one()
