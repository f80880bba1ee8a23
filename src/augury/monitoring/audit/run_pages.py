"""Runs with their work, their outcome and their lifecycle events, a page in one snapshot.

Work is summed up by the database: a run may have a million shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from augury.events.catalog import OWN_SOURCE
from augury.jobs.lifecycle import lifecycle_name
from augury.jobs.states import TERMINAL, RunState
from augury.monitoring.audit.arrived import arrived
from augury.storage.database import Database
from augury.storage.tables import archives, outcomes, run_output, runs, work

_PAGE_ROWS = 200
_PLAN = "plan"
_SHARD = "shard"
_HEAVY = ("plan", "manifest", "spec")
_TOLD = TERMINAL | {RunState.CANCELING, RunState.NEEDS_ATTENTION}


@dataclass(frozen=True)
class WorkSum:
    """A run's items of one kind in one state.

    Attributes:
        first, last: smallest and largest `seq`.
        results: how many have a result.
        last_done_at: newest `done_at`; None if none is.
    """

    count: int
    first: int
    last: int
    results: int
    last_done_at: datetime | None


class LogSum(NamedTuple):
    """Smallest and largest number of a run's lines of output, and how many lines there are."""

    first: int
    last: int
    total: int


@dataclass(frozen=True)
class AuditedRun:
    """One run with its evidence.

    Attributes:
        row: of `runs` without its large texts (`has_manifest` instead), with `outcome_*` of the
            outcome that it names.
        work: by (kind, state).
        log: of the lines of its program; None if it said nothing.
        announced: the states whose lifecycle event is in the ledger, its dead letters or the
            outbox, as far as it was looked for.
    """

    row: sa.Row[Any]
    work: Mapping[tuple[str, str], WorkSum]
    log: LogSum | None
    announced: frozenset[str]

    @property
    def subject(self) -> str:
        """How a finding names it."""
        return f"run {self.row.id}"

    def count(self, kind: str, *states: str) -> int:
        """Items of `kind` in any of `states`; in whatever state if none is given."""
        return sum(
            summed.count
            for (found, state), summed in self.work.items()
            if found == kind and (not states or state in states)
        )


@dataclass(frozen=True)
class RunPage:
    """Some runs in order of their ids.

    Attributes:
        now: when the page was read.
        grace: how long workers and sweeper may take for the next step of a run.
        keys_since: lifecycle events of runs accepted before this may have been forgotten.
        archived_until: outcomes of events up to here may have left the ledger.
    """

    runs: Sequence[AuditedRun]
    now: datetime
    grace: timedelta
    keys_since: datetime
    archived_until: int

    def overdue(self, since: datetime | None) -> bool:
        """True if something that should follow `since` at once has not for too long."""
        return since is not None and self.now - since > self.grace


def run_pages(
    database: Database, *, now: datetime, grace: timedelta, keys_since: datetime
) -> Iterator[RunPage]:
    """Every run accepted until `now`, in bounded memory."""
    after = ""
    while True:
        with database.read() as connection:
            rows = connection.execute(_runs(after, now)).all()
            if not rows:
                return
            audited = _audited(connection, rows)
            archived_until = connection.scalar(sa.select(sa.func.max(archives.c.last_position)))
        yield RunPage(audited, now, grace, keys_since, archived_until or 0)
        after = rows[-1].id


def _runs(after: str, until: datetime) -> sa.Select[Any]:
    columns = [column for column in runs.c if column.name not in _HEAVY]
    return (
        sa.select(
            *columns,
            runs.c.manifest.is_not(None).label("has_manifest"),
            outcomes.c.state.label("outcome_state"),
            outcomes.c.run_id.label("outcome_run_id"),
            outcomes.c.position.label("outcome_position"),
        )
        .select_from(runs.outerjoin(outcomes, outcomes.c.id == runs.c.outcome_id))
        .where(runs.c.id > after, runs.c.time_accepted <= until)
        .order_by(runs.c.id)
        .limit(_PAGE_ROWS)
    )


def _audited(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[AuditedRun]:
    run_ids = [row.id for row in rows]
    summed: dict[str, dict[tuple[str, str], WorkSum]] = {}
    for row in connection.execute(_work(run_ids)):
        summed.setdefault(row.run_id, {})[row.kind, row.state] = WorkSum(
            row.number, row.first, row.last, row.results, row.last_done_at
        )
    logs = {row.run_id: LogSum(*row[1:]) for row in connection.execute(_logs(run_ids))}
    wanted = {(OWN_SOURCE, event_id) for row in rows for event_id in lifecycle(row).values()}
    found = {event_id for _, event_id in arrived(connection, wanted)}
    return [
        AuditedRun(
            row,
            summed.get(row.id, {}),
            logs.get(row.id),
            frozenset(state for state, event_id in lifecycle(row).items() if event_id in found),
        )
        for row in rows
    ]


def lifecycle(row: sa.Row[Any]) -> dict[str, str]:
    """Ids of the events that there must be, by state, as far as the present state tells.

    IN_PROGRESS is absent: a run comes there in three ways, and its row does not say by which.
    """
    ids = {str(RunState.ACCEPTED): f"{row.id}:{RunState.ACCEPTED}"}
    if row.state in _TOLD:
        ids[row.state] = f"{row.id}:{lifecycle_name(row.state, row.num_returns)}"
    return ids


def _work(run_ids: Sequence[str]) -> sa.Select[Any]:
    return (
        sa.select(
            work.c.run_id,
            work.c.kind,
            work.c.state,
            sa.func.count().label("number"),
            sa.func.min(work.c.seq).label("first"),
            sa.func.max(work.c.seq).label("last"),
            # a JSON null is a value to the database, and none to us
            sa.func.count(sa.func.nullif(sa.cast(work.c.result, sa.Text), "null")).label("results"),
            sa.func.max(work.c.done_at).label("last_done_at"),
        )
        .where(work.c.run_id.in_(run_ids))
        .group_by(work.c.run_id, work.c.kind, work.c.state)
    )


def _logs(run_ids: Sequence[str]) -> sa.Select[Any]:
    first, last = run_output.c.first_number, run_output.c.last_number
    total = sa.cast(sa.func.sum(last - first + 1), sa.BigInteger)
    return (
        sa.select(run_output.c.run_id, sa.func.min(first), sa.func.max(last), total)
        .where(run_output.c.run_id.in_(run_ids))
        .group_by(run_output.c.run_id)
    )
