"""Runs in a ledger, carried out by hand: every report a worker could make, without scoring."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from augury import clock
from augury.jobs import commits, reports, work, workers
from augury.jobs.commits import Commitment
from augury.jobs.rejected import Rejected
from augury.jobs.reports import Failure, Finished, Planned, Stored
from augury.jobs.resume import resume
from augury.jobs.runs import Run, cancel, get_run, start_run
from augury.jobs.spec import Mode, RunOverrides
from augury.jobs.states import RunState
from augury.jobs.work import WorkItem
from augury.resources import store
from augury.resources.store import Kind
from augury.storage import tables
from augury.storage.database import Database

_numbers = itertools.count(1)
COMMITMENT = Commitment(
    manifest="{}", digest="d", rows_in=30, rows_predicted=30, rows_rejected=0, rows_filtered=0
)


class RunsWorld:
    """A ledger with one job."""

    def __init__(self, database: Database, **spec: Any) -> None:
        self.database = database
        full = {"model": "m@champion", "output": "file:///out/", **spec}
        database.transact(lambda c: store.put(database, c, Kind.JOB, "score", full))

    def start(self, *, key: str | None = None, **overrides: Any) -> Run:
        return self.database.transact(
            lambda c: start_run(
                self.database,
                c,
                job="score",
                overrides=RunOverrides.model_validate(overrides),
                idempotency_key=key,
            )
        )[0]

    def worker(self, name: str = "w") -> str:
        worker_id = f"{name}-{next(_numbers)}"
        self.database.transact(
            lambda c: workers.register(c, worker_id, host="h", pid=1, queues=["q"], cpus=1)
        )
        return worker_id

    # --- what a worker does -----------------------------------------------------------------------

    def claim(self, worker_id: str, *queues: str, run_id: str | None = None) -> WorkItem | None:
        wanted = queues or ("mini_batch", "batch", "distributed")
        return self.database.transact(
            lambda c: work.claim(self.database, c, worker_id, wanted, run_id=run_id)
        )

    def claimed(self, worker_id: str, *queues: str) -> WorkItem:
        item = self.claim(worker_id, *queues)
        assert item is not None
        return item

    def plan(
        self, item: WorkItem, num_shards: int = 3, *, mode: Mode = Mode.DISTRIBUTED, rows: int = 10
    ) -> Stored:
        planned = Planned(
            plan="{}",
            mode=mode,
            rows_in=num_shards * rows,
            shards=[{"seq": seq} for seq in range(num_shards)],
        )
        return self.database.transact(
            lambda c: reports.finish_plan(self.database, c, item, planned)
        )

    def finish(self, item: WorkItem, *, rows: int = 10, rejected: int = 0) -> Finished:
        first = [f"row {seq}" for seq in range(min(rejected, 3))]
        told = Rejected(num_rows=rejected, first=first) if rejected else None
        return self.database.transact(
            lambda c: reports.finish_shard(
                self.database, c, item, {"by": item.worker_id}, rows_done=rows, rejected=told
            )
        )

    def progress(self, item: WorkItem, rows_done: int) -> None:
        self.database.transact(lambda c: reports.report_progress(self.database, c, item, rows_done))

    def fail(self, item: WorkItem, *, permanent: bool = False) -> RunState:
        failure = Failure(code="unavailable", message="no store", is_permanent=permanent)
        return self.database.transact(lambda c: reports.fail(self.database, c, item, failure))

    def release(self, item: WorkItem) -> bool:
        return self.database.transact(lambda c: reports.release(self.database, c, item))

    def expire(self, worker_id: str) -> Mapping[str, int]:
        (row,) = self.rows(tables.workers, tables.workers.c.id == worker_id)
        return self.database.transact(
            lambda c: reports.expire(self.database, c, worker_id, row.heartbeat)
        )

    def commit(self, run_id: str) -> bool:
        return self.database.transact(lambda c: commits.commit(c, run_id, COMMITMENT))

    def resume(self, run_id: str) -> tuple[Run, Mapping[str, int]]:
        return self.database.transact(lambda c: resume(self.database, c, run_id))

    def cancel(self, run_id: str) -> Run:
        return self.database.transact(lambda c: cancel(self.database, c, run_id))

    def planned(
        self, num_shards: int = 3, *, mode: Mode = Mode.DISTRIBUTED, **overrides: Any
    ) -> Run:
        """A run whose shards are ready."""
        run = self.start(mode=mode, **overrides)
        item = self.claim(self.worker("planner"), run_id=run.id)
        assert item is not None
        self.plan(item, num_shards, mode=mode)
        return self.run(run.id)

    # --- what there is ----------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        with self.database.read() as connection:
            return get_run(connection, run_id)

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[sa.Row[Any]]:
        with self.database.read() as connection:
            order = list(table.primary_key.columns)
            return list(connection.execute(sa.select(table).where(*where).order_by(*order)))

    def work(self, run_id: str) -> list[sa.Row[Any]]:
        found = self.rows(tables.work, tables.work.c.run_id == run_id)
        return sorted(found, key=lambda row: (row.kind, row.seq))

    def states(self, run_id: str) -> list[str]:
        """States of the run's shards, in order."""
        return [row.state for row in self.work(run_id) if row.kind == "shard"]

    def first_again(self, item: WorkItem) -> None:
        """Lets an item be the next one that is claimed."""
        early = sa.update(tables.work).where(tables.work.c.id == item.id)
        long_ago = clock.parse("2026-01-01T00:00:00Z")
        self.database.transact(lambda c: c.execute(early.values(ready_at=long_ago)))

    def ready_now(self) -> None:
        """Ends all backoffs."""
        early = sa.update(tables.work).values(ready_at=tables.work.c.leased_at)
        self.database.transact(
            lambda c: c.execute(early.where(tables.work.c.leased_at.is_not(None)))
        )

    def told(self, run_id: str) -> list[str]:
        """What each event of the run said it is, in order."""
        rows = self.rows(tables.outbox)
        return [
            row.event_id.removeprefix(f"{run_id}:")
            for row in rows
            if row.event_id.startswith(f"{run_id}:")
        ]

    def event(self, run_id: str, what: str) -> dict[str, Any]:
        """The event that said so."""
        (row,) = self.rows(tables.outbox, tables.outbox.c.event_id == f"{run_id}:{what}")
        found: dict[str, Any] = msgspec.json.decode(row.body)
        return found
