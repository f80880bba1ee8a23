"""Work in somebody's hands, and whether that somebody is alive.

A heartbeat is a counter: only that it moves between two looks means anything, whatever the clocks
say. So leases that are old enough to be suspicious are looked at when the audit begins and again
when it ends; a worker whose counter has not moved by then is waited for a little longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.jobs.spec import Mode
from augury.jobs.states import WorkState
from augury.monitoring.audit.check import Check, Finding
from augury.storage.database import Database
from augury.storage.tables import runs, work, workers

_MOST_LEASES = 10_000
_LOOK_S = 0.1
_ONE_WORKER = frozenset({Mode.MINI_BATCH, Mode.BATCH})


@dataclass(frozen=True)
class Leases:
    """Suspicious leases, seen twice.

    Attributes:
        held: rows of `work` with `worker_*`, by (work id, token); there at both looks, and their
            worker's counter has not moved.
        silent_s: seconds between the two looks.
    """

    held: Mapping[tuple[str, int], sa.Row[Any]]
    silent_s: float


@dataclass(frozen=True)
class Holders:
    """Every lease at one instant; rows of `work` with `run_mode` and `run_host`."""

    leased: Sequence[sa.Row[Any]]


def holders(database: Database) -> Holders:
    """Who holds what, now."""
    select: sa.Select[Any] = (
        sa.select(
            work.c.run_id,
            work.c.kind,
            work.c.seq,
            work.c.worker_id,
            runs.c.mode.label("run_mode"),
        )
        .join_from(work, runs, runs.c.id == work.c.run_id)
        .where(work.c.state == WorkState.LEASED)
        .order_by(work.c.run_id, work.c.seq)
        .limit(_MOST_LEASES)
    )
    with database.read() as connection:
        return Holders(connection.execute(select).all())


class LeaseWatch:
    """The first look; `finish` is the second.

    Args:
        database: the ledger.
        now: leases taken less than `grace` before this are nobody's concern.
        grace: how long a lease without a live worker may last before the sweeper has expired it.
    """

    def __init__(self, database: Database, *, now: datetime, grace: timedelta) -> None:
        self._database = database
        self._before = now - grace
        self._began_s = clock.monotonic_s()
        self.first = self._look()

    def finish(self, patience_s: float) -> Leases:
        """Looks again, until every worker has moved or `patience_s` after the first look."""
        while True:
            held = self._unmoved()
            silent_s = clock.monotonic_s() - self._began_s
            if not held or silent_s >= patience_s:
                return Leases(held, silent_s)
            clock.sleep_s(_LOOK_S)

    def _unmoved(self) -> dict[tuple[str, int], sa.Row[Any]]:
        if not self.first:
            return {}
        now = self._look()
        return {
            key: row
            for key, row in now.items()
            if key in self.first and self.first[key].worker_heartbeat == row.worker_heartbeat
        }

    def _look(self) -> dict[tuple[str, int], sa.Row[Any]]:
        select: sa.Select[Any] = (
            sa.select(
                work.c.id,
                work.c.run_id,
                work.c.kind,
                work.c.seq,
                work.c.token,
                work.c.worker_id,
                work.c.leased_at,
                workers.c.id.label("worker_found"),
                workers.c.heartbeat.label("worker_heartbeat"),
                workers.c.stopped_at.label("worker_stopped_at"),
            )
            .select_from(work.outerjoin(workers, workers.c.id == work.c.worker_id))
            .where(
                work.c.state == WorkState.LEASED,
                work.c.leased_at.is_(None) | (work.c.leased_at < self._before),
            )
            .order_by(work.c.id)
            .limit(_MOST_LEASES)
        )
        with self._database.read() as connection:
            return {(row.id, row.token): row for row in connection.execute(select)}


def _dead(leases: Leases) -> Iterator[Finding]:
    for row in leases.held.values():
        subject = f"{row.kind} {row.seq} of run {row.run_id}"
        holder = f"leased at {row.leased_at} by worker {row.worker_id}"
        if row.worker_found is None:
            yield Finding(subject, "leased by a worker", f"{holder}, which does not exist")
        elif row.worker_stopped_at is not None:
            found = f"{holder}, which stopped at {row.worker_stopped_at}"
            yield Finding(subject, "leased by a live worker", found)
        else:
            found = f"{holder}, whose heartbeat did not move for {leases.silent_s:.1f} s"
            yield Finding(subject, "leased by a live worker", found)


def _one_lease(page: Holders) -> Iterator[Finding]:
    """A worker holds one item; a run of a mode for one worker is held by one."""
    by_worker: dict[str, list[str]] = {}
    by_run: dict[str, set[str]] = {}
    for row in page.leased:
        by_worker.setdefault(row.worker_id, []).append(f"{row.kind} {row.seq} of {row.run_id}")
        if row.run_mode in _ONE_WORKER:
            by_run.setdefault(row.run_id, set()).add(row.worker_id)
    for worker_id, items in sorted(by_worker.items()):
        if len(items) > 1:
            yield Finding(f"worker {worker_id}", "one lease", f"{len(items)}: {', '.join(items)}")
    for run_id, worker_ids in sorted(by_run.items()):
        if len(worker_ids) > 1:
            found = ", ".join(sorted(worker_ids))
            yield Finding(f"run {run_id}", "leases of one worker", f"of {found}")


HOLDER_CHECKS: tuple[Check[Holders], ...] = (
    Check(
        name="work_holder",
        examine=_one_lease,
        advice="two leases are live where there must be one: results stay right (tokens guard the "
        "ledger, determinism the objects), but work is done twice; report a bug",
    ),
)
LEASE_CHECKS: tuple[Check[Leases], ...] = (
    Check(
        name="work_lease",
        examine=_dead,
        advice="nobody works on this, and the sweeper should have given it to somebody else: see "
        "that it runs (`augury up`, `augury doctor`)",
    ),
)
