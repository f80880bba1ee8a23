"""Workers as the ledger knows them: one row per process that claims work.

A worker proves that it lives by moving its heartbeat counter. Nobody compares the counter with a
clock on another machine: whoever watches it (the sweeper) sees whether it moves while its own
monotonic clock does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.storage.tables import workers


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One worker process, living or not.

    Attributes:
        id: `{name}@{host}` and a part that no other process ever has.
        queues: which it takes work from.
        cpus: threads that it computes with.
        heartbeat: moves while it lives.
        stopped_at: when it stopped in order, or was found lost.
    """

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    cpus: int
    heartbeat: int
    started_at: datetime
    stopped_at: datetime | None


def register(
    connection: sa.Connection,
    worker_id: str,
    *,
    host: str,
    pid: int,
    queues: Sequence[str],
    cpus: int,
) -> None:
    """Makes a worker known; ids are never used twice."""
    connection.execute(
        sa.insert(workers).values(
            id=worker_id,
            host=host,
            pid=pid,
            queues=list(queues),
            cpus=cpus,
            started_at=clock.utc_now(),
        )
    )


def beat(connection: sa.Connection, worker_id: str) -> None:
    """Moves the counter; one that was thought lost is known to live again."""
    connection.execute(
        sa.update(workers)
        .where(workers.c.id == worker_id)
        .values(heartbeat=workers.c.heartbeat + 1, stopped_at=None)
    )


def stop(connection: sa.Connection, worker_id: str) -> None:
    """Says that a worker holds nothing and takes nothing any more."""
    connection.execute(
        sa.update(workers)
        .where(workers.c.id == worker_id, workers.c.stopped_at.is_(None))
        .values(stopped_at=clock.utc_now())
    )


def list_workers(connection: sa.Connection, *, stopped: bool = False) -> list[WorkerRecord]:
    """Workers, oldest first; those that stopped only if asked for."""
    select = sa.select(workers).order_by(workers.c.started_at, workers.c.id)
    if not stopped:
        select = select.where(workers.c.stopped_at.is_(None))
    return [_record(row) for row in connection.execute(select)]


def _record(row: Any) -> WorkerRecord:
    return WorkerRecord(**{**row._mapping, "queues": tuple(row.queues)})
