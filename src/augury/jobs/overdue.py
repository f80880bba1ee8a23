"""What the sweeper looks for: work and runs that wait for somebody. Reads only.

Every query is served by an index over what is alive, so a sweep costs the same however many runs
there ever were.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.jobs.spec import Mode
from augury.jobs.statements import IS_LEASED, IS_READY
from augury.jobs.states import LIVE, RunState, WorkState
from augury.jobs.work import SCRIPT, SHARD, WorkItem, item_of
from augury.storage.database import UtcDateTime
from augury.storage.tables import runs, work, workers

_SCRIPT_MARGIN_S = 120.0


def heartbeats(connection: sa.Connection) -> dict[str, int]:
    """Counter of each worker that lives, or holds something all the same, by its id."""
    holders = sa.union(
        sa.select(work.c.worker_id).where(IS_LEASED),
        sa.select(runs.c.host).where(runs.c.host.is_not(None)),
    )
    wanted = sa.or_(workers.c.stopped_at.is_(None), workers.c.id.in_(holders))
    rows = connection.execute(sa.select(workers.c.id, workers.c.heartbeat).where(wanted))
    return {row.id: row.heartbeat for row in rows}


def ready_work(connection: sa.Connection, *, limit: int) -> dict[str, int]:
    """Items that anybody may claim now, by queue; counted up to `limit` each."""
    found: dict[str, int] = {}
    for queue in (Mode.MINI_BATCH, Mode.BATCH, Mode.DISTRIBUTED, SCRIPT):
        ready = (
            sa.select(work.c.id)
            .join(runs, runs.c.id == work.c.run_id)
            .where(IS_READY, work.c.queue == queue, work.c.ready_at <= clock.utc_now())
            .where(runs.c.state.in_(LIVE), runs.c.host.is_(None))
            .limit(limit)
        )
        count = connection.scalar(sa.select(sa.func.count()).select_from(ready.subquery()))
        if count:
            found[queue] = count
    return found


def stuck_runs(connection: sa.Connection) -> list[str]:
    """Runs whose next step needs no worker: all shards are in, or nobody has to let go any more."""
    is_in = sa.and_(
        runs.c.state == RunState.IN_PROGRESS,
        runs.c.shards_total > 0,
        runs.c.shards_done == runs.c.shards_total,
    )
    held = sa.exists().where(work.c.run_id == runs.c.id, work.c.state == WorkState.LEASED)
    is_let_go = sa.and_(runs.c.state == RunState.CANCELING, sa.not_(held))
    return list(connection.scalars(sa.select(runs.c.id).where(sa.or_(is_in, is_let_go))))


def running_runs(connection: sa.Connection) -> Mapping[str, tuple[datetime, float]]:
    """(start, maximum run time in seconds) of each run that has begun and is not committed.

    A run that was resumed started then.
    """
    started = sa.func.coalesce(runs.c.time_resumed, runs.c.time_started, type_=UtcDateTime())
    rows = connection.execute(
        sa.select(runs.c.id, started.label("started"), runs.c.kind, runs.c.spec).where(
            runs.c.state.in_((RunState.IN_PROGRESS, RunState.NEEDS_ATTENTION)),
            runs.c.time_committed.is_(None),
            runs.c.time_started.is_not(None),
        )
    )
    return {row.id: (row.started, _limit_s(row)) for row in rows}


def _limit_s(row: Any) -> float:
    """A script's worker ends it in time, and needs some for that; this is for those it forgot."""
    limit_s = float(row.spec["maximum_runtime_s"])
    return limit_s + _SCRIPT_MARGIN_S + row.spec["grace_s"] if row.kind == SCRIPT else limit_s


def shards_with_deadline(connection: sa.Connection) -> list[tuple[WorkItem, float]]:
    """Shards in the hands of workers whose run limits how long, with that limit in seconds."""
    rows = connection.execute(
        sa.select(work, runs.c.spec.label("run_spec"))
        .join(runs, runs.c.id == work.c.run_id)
        .where(IS_LEASED, work.c.kind == SHARD)
    )
    limits = [(item_of(row), row.run_spec.get("maximum_shard_runtime_s")) for row in rows]
    return [(item, float(limit_s)) for item, limit_s in limits if limit_s is not None]


def narrow_windows(connection: sa.Connection) -> dict[str, int]:
    """`max_concurrency` of each run with waiting shards and fewer than that in hand or ready."""
    waiting = sa.exists().where(work.c.run_id == runs.c.id, work.c.state == WorkState.WAITING)
    active = (
        sa.select(sa.func.count())
        .where(
            work.c.run_id == runs.c.id,
            work.c.state.in_((WorkState.READY, WorkState.LEASED)),
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        sa.select(runs.c.id, runs.c.spec, active.label("active")).where(
            runs.c.state == RunState.IN_PROGRESS, waiting
        )
    )
    windows = {row.id: (row.active, int(row.spec["max_concurrency"])) for row in rows}
    return {run_id: limit for run_id, (active, limit) in windows.items() if active < limit}
