"""What Augury did to a run, line by line, in the ledger: `augury runs logs` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from augury import clock
from augury.storage.tables import run_logs


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line. Ids grow with time; `level` is `info`, `warning` or `error`."""

    id: int
    run_id: str
    at: datetime
    level: str
    message: str


def append(connection: sa.Connection, run_id: str, level: str, message: str) -> None:
    """Adds a line in the caller's transaction: it is there if and only if what it tells is."""
    row = {"run_id": run_id, "at": clock.utc_now(), "level": level, "message": message}
    connection.execute(sa.insert(run_logs), [row])


def read(
    connection: sa.Connection, run_id: str, after_id: int = 0, limit: int = 1000
) -> list[LogLine]:
    """Up to `limit` lines of a run with ids greater than `after_id`, oldest first."""
    rows = connection.execute(
        sa.select(run_logs)
        .where(run_logs.c.run_id == run_id, run_logs.c.id > after_id)
        .order_by(run_logs.c.id)
        .limit(limit)
    )
    return [LogLine(**row._mapping) for row in rows]
