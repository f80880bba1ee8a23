"""Giving up a single shard, so that one that kills its workers does not take the others with it.

A shard that loses its worker, or outlasts its deadline, as often as it may be tried is set aside
under its name. The run goes on with the others; when nothing else is left it fails, naming what was
set aside and why, and can be resumed: then only those shards run again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.jobs import logs, statements
from augury.jobs.lifecycle import transition
from augury.jobs.states import RunState, WorkState
from augury.jobs.work import WorkItem, fence, lost
from augury.storage.database import Database
from augury.storage.tables import runs, work

_MOST_NAMED = 5


def isolate(
    database: Database, connection: sa.Connection, run: Any, item: WorkItem, error: str
) -> RunState:
    """Gives a shard up; the caller has the run's row.

    Returns:
        The run's state afterwards: FAILED if nothing else is left to do.

    Raises:
        LostLeaseError: the shard is not that claim's any more.
    """
    before = connection.scalar(statements.ROWS_BEFORE, fence(item))
    closing = (
        sa.update(work)
        .where(statements.HELD)
        .values(state=WorkState.FAILED, error=error, rows_done=0, done_at=clock.utc_now())
    )
    if before is None or connection.execute(closing, fence(item)).rowcount != 1:
        raise lost(item)
    counts = connection.execute(
        sa.update(runs)
        .where(runs.c.id == run.id)
        .values(
            shards_isolated=runs.c.shards_isolated + 1, rows_done=runs.c.rows_done - int(before)
        )
        .returning(runs.c.shards_isolated, runs.c.shards_done)
    ).one()
    text = f"shard {item.seq} is set aside after attempt {item.attempts}, the last: {error}"
    logs.append(connection, run.id, "error", text)
    if counts.shards_isolated + counts.shards_done < run.shards_total:
        return RunState.IN_PROGRESS
    _fail(database, connection, run)
    return RunState.FAILED


def end_if_over(database: Database, connection: sa.Connection, run: Any, counts: Any) -> bool:
    """Fails a run of which only set-aside shards are left; True if it did.

    Args:
        database: for the dialect.
        connection: the transaction.
        run: the run's row, with `shards_isolated`.
        counts: with `shards_done` as it is now.
    """
    if run.shards_isolated + counts.shards_done < run.shards_total:
        return False
    _fail(database, connection, run)
    return True


def _fail(database: Database, connection: sa.Connection, run: Any) -> None:
    select = (
        sa.select(work.c.seq, work.c.spec, work.c.error)
        .where(work.c.run_id == run.id, work.c.state == WorkState.FAILED)
        .order_by(work.c.seq)
    )
    given_up = connection.execute(select).all()
    named = "; ".join(_named(row) for row in given_up[:_MOST_NAMED])
    others = run.shards_total - len(given_up)
    details = (
        f"Run failed: {len(given_up)} of {run.shards_total} shards were given up, the other "
        f"{others} are finished: {named}. Resume the run when the cause is mended."
    )
    reason = str(given_up[0].error).partition(":")[0]
    transition(database, connection, run.id, RunState.FAILED, details=details, reason=reason)


def _named(row: Any) -> str:
    ranges = (row.spec or {}).get("ranges", ())
    where = f" ({ranges[0]['uri']}, row group {ranges[0]['row_group']} on)" if ranges else ""
    return f"shard {row.seq}{where}: {row.error}"
