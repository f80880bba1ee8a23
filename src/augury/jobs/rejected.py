"""The error budget: a run that rejects too many rows fails as soon as the ledger's sum says so.

Each shard counts its rejected rows into the run's sum in the transaction that reports it. So the
run fails with the shard that passes the bound, not when the last one is in, and the message names
rows of that shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury.data.policy import allowed_rejects
from augury.jobs.lifecycle import transition
from augury.jobs.states import RunState
from augury.storage.database import Database
from augury.storage.tables import runs

MAX_REJECTED = "max_rejected"


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """What one shard rejected.

    Attributes:
        num_rows: at least 1.
        first: some of the rows, as people read them.
    """

    num_rows: int
    first: Sequence[str]


def count_rejected(
    database: Database, connection: sa.Connection, counts: Any, run: Any, rejected: Rejected
) -> bool:
    """Adds a shard's rejected rows to its run's; the caller has the run's row.

    Args:
        database: for the dialect.
        connection: the transaction.
        counts: the run's counts before, with `rows_in` and `rows_rejected`.
        run: the run's row, with its spec.
        rejected: of the shard.

    Returns:
        False if that is more than the run may reject: it is FAILED now.
    """
    found = counts.rows_rejected + rejected.num_rows
    connection.execute(sa.update(runs).where(runs.c.id == run.id).values(rows_rejected=found))
    allowed = allowed_rejects(counts.rows_in, **run.spec["max_rejected"])
    if allowed is None or found <= allowed:
        return True
    details = (
        f"Run failed: expected at most {allowed} rejected rows (max_rejected), found {found} so "
        f"far, among them: {'; '.join(rejected.first)}"
    )
    transition(database, connection, run.id, RunState.FAILED, details=details, reason=MAX_REJECTED)
    return False
