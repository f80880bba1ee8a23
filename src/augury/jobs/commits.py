"""The commit of a run: one conditional UPDATE, after which the result is the run's for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.outbox import emit
from augury.jobs import logs
from augury.jobs.lifecycle import SHORT_COLUMNS, retried_event
from augury.jobs.states import RunState, WorkState
from augury.jobs.work import SHARD
from augury.storage.database import Database
from augury.storage.tables import runs, work


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A run's complete result, about to become irrevocable.

    Attributes:
        manifest: exactly the text that will lie beside the parts.
        digest: SHA-256 of it.
        rows_in: what the plan counted, less the rows of what was quarantined.
        num_quarantined: files and row groups that were left out.
    """

    manifest: str
    digest: str
    rows_in: int
    rows_predicted: int
    rows_rejected: int
    rows_filtered: int
    num_quarantined: int = 0


def commit(connection: sa.Connection, run_id: str, commitment: Commitment) -> bool:
    """Decides the commit, once: afterwards the run cannot be canceled and cannot fail.

    Returns:
        False if the run does not go on (it was canceled, say), has shards that are not in, or is
        committed already.
    """
    changed = connection.execute(
        sa.update(runs)
        .where(
            runs.c.id == run_id,
            runs.c.state == RunState.IN_PROGRESS,
            runs.c.time_committed.is_(None),
            runs.c.shards_total > 0,
            runs.c.shards_done == runs.c.shards_total,
        )
        .values(
            manifest=commitment.manifest,
            manifest_digest=commitment.digest,
            time_committed=clock.utc_now(),
            rows_in=commitment.rows_in,
            rows_predicted=commitment.rows_predicted,
            rows_rejected=commitment.rows_rejected,
            rows_filtered=commitment.rows_filtered,
            num_quarantined=commitment.num_quarantined,
        )
    )
    return changed.rowcount == 1


def results(connection: sa.Connection, run_id: str) -> list[Mapping[str, Any]]:
    """The results of a run's finished shards, in order."""
    select = sa.select(work.c.result).where(
        work.c.run_id == run_id, work.c.kind == SHARD, work.c.state == WorkState.DONE
    )
    return list(connection.scalars(select.order_by(work.c.seq)))


def commit_generation(
    database: Database,
    connection: sa.Connection,
    run_id: str,
    commitment: Commitment,
    generation: int,
) -> bool:
    """Decides the commit of a later generation of a run's result; its event comes with it.

    Args:
        database: for the dialect.
        connection: the transaction.
        run_id: of a run that has succeeded.
        commitment: the whole result as it is now.
        generation: the new one, from 2.

    Returns:
        False if the run has not succeeded (any more), or is not of the generation before: somebody
        else was faster.
    """
    changed = connection.execute(
        sa.update(runs)
        .where(
            runs.c.id == run_id,
            runs.c.state == RunState.SUCCEEDED,
            runs.c.generation == generation - 1,
        )
        .values(
            manifest=commitment.manifest,
            manifest_digest=commitment.digest,
            generation=generation,
            rows_predicted=commitment.rows_predicted,
            rows_rejected=commitment.rows_rejected,
        )
        .returning(*SHORT_COLUMNS)
    ).one_or_none()
    if changed is None:
        return False
    emit(database, connection, [retried_event(changed)])
    text = (
        f"Rejected rows were scored again: generation {generation} has "
        f"{changed.rows_predicted} rows predicted, {changed.rows_rejected} rejected."
    )
    logs.append(connection, run_id, "info", text)
    return True
