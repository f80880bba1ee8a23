"""Work in somebody's hands, and whether that somebody is alive.

A heartbeat is a counter: only that it moves between two looks means anything, whatever the clocks
say. So leases that are old enough to be suspicious are looked at when the audit begins and again
when it ends; a worker whose counter has not moved by then is waited for a little longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.jobs.states import WorkState
from augury.monitoring.audit.check import Check, Finding
from augury.storage.database import Database
from augury.storage.tables import work, workers

_MOST_LEASES = 10_000
_LOOK_S = 0.1


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


LEASE_CHECKS: tuple[Check[Leases], ...] = (
    Check(
        name="work_lease",
        examine=_dead,
        advice="nobody works on this, and the sweeper should have given it to somebody else: see "
        "that it runs (`augury up`, `augury doctor`)",
    ),
)
