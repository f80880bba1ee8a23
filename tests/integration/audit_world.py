"""A small healthy system to audit, and ways to break exactly one thing in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from routing_world import World, dropped, event
from scoring_world import Sums, Version, damage, nothing, numbers, regression, write

from augury.bus.relay import flush
from augury.errors import AuguryError
from augury.ids import new_id
from augury.inference import coordinator
from augury.inference.plan import Plan, ShardSpec
from augury.inference.planning import plan_run
from augury.inference.score import score_shard
from augury.jobs import reports, work, workers
from augury.jobs.reports import Failure, Planned
from augury.jobs.runs import Run, cancel, get_run, start_run
from augury.jobs.spec import RunOverrides
from augury.jobs.work import WorkItem
from augury.monitoring.audit import AuditReport, audit
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.objects import locate, open_store

LANDED = {"type": ["augury.object.created"]}
# nothing in these tests takes long, and a lease that nobody holds is waited for
QUICK = {"lease_timeout_s": 0.2, "sweep_s": 0.05}


class Corruptions[W](list[tuple[str, Callable[[W], None]]]):
    """Functions that each break exactly one thing, with the name of the check that must see it."""

    def breaks(self, check: str) -> Callable[[Callable[[W], None]], Callable[[W], None]]:
        """Registers a function that breaks exactly what `check` looks at."""

        def register(corruption: Callable[[W], None]) -> Callable[[W], None]:
            self.append((check, corruption))
            return corruption

        return register

    @property
    def ids(self) -> list[str]:
        """Names of the test cases."""
        return [f"{check}-{corrupt.__name__}" for check, corrupt in self]


class Snapshot:
    """All rows of a ledger, to put back after a test has broken one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.read() as connection:
            self._rows = {
                table: [dict(row._mapping) for row in connection.execute(sa.select(table))]
                for table in tables.metadata.sorted_tables
            }

    def restore(self) -> None:
        def work(connection: sa.Connection) -> None:
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(sa.delete(table))
            for table, rows in self._rows.items():
                if rows:
                    connection.execute(sa.insert(table), rows)

        self._database.transact(work)


def sqlite_settings(folder: Path, template: Path, redis_url: str) -> Settings:
    """For a world that many tests share: a ledger of its own on the session's Valkey."""
    path = folder / "augury.db"
    shutil.copyfile(template, path)
    return Settings(
        home=folder / "home",
        namespace=new_id("audit"),
        port=0,
        database_url=f"sqlite:///{path}",
        redis_url=redis_url,
    )


class AuditWorld(World):
    """A ledger with events of every outcome, all routed by the real router."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(database, settings.model_copy(update=QUICK))

    def fill(self) -> None:
        """Events that match one rule, two actions, another rule's version, nothing; duplicates."""
        self.job()
        twice = [{"start_run": {"job": "score"}}, {"name": "again", "start_run": {"job": "score"}}]
        self.rule("landing", LANDED, twice)
        self.publish(event(id="nobody wants me"), dropped("a"), dropped("a"))
        self.drain()
        self.rule("things", {"type": ["acme.thing"], "data": {"n": [1]}})
        thing = event(id="thing", n=1)
        self.publish(thing, thing, {**thing, "data": {"n": 1, "m": 2}}, dropped("b"))
        self.drain()
        self.rule("landing", {**LANDED, "source": ["/test"]})
        self.rule("no job", {"type": ["acme.other"]}, [{"start_run": {"job": "missing"}}])
        self.publish(dropped("c"), event("acme.other"))
        self.bus.publish([b"{not json"])
        self.drain()

    def audit(self, *, deep: bool = False, **changes: Any) -> AuditReport:
        settings = self.settings.model_copy(update=changes)
        return audit(self.database, self.bus, settings, deep=deep)

    def change(self, *statements: sa.Executable) -> None:
        """Does to the ledger what no code of ours does."""

        def work(connection: sa.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        self.database.transact(work)

    def broken(self, *, deep: bool = False, **changes: Any) -> set[str]:
        """Names of the checks that found something."""
        report = self.audit(deep=deep, **changes)
        assert report.ok == (not report.violations and not report.incidents)
        return {violation.check for violation in report.violations}


class ScoredWorld(AuditWorld):
    """A ledger with runs in every state, their files in `folder`; the worker's steps are real."""

    queues = ("mini_batch", "batch", "distributed")
    signature = regression("a", "b")

    def __init__(
        self, database: Database, settings: Settings, folder: Path, *, output: str = ""
    ) -> None:
        super().__init__(database, settings)
        self.folder = folder
        self.output = output or f"{folder}/out/"
        self.worker_id = "worker-1"

    def fill(self) -> None:
        """Succeeded runs of one file, and of two (its last row rejected) and two damaged ones.

        Also a failed run and a canceled one.
        """
        self.database.transact(
            lambda c: workers.register(
                c, self.worker_id, host="here", pid=1, queues=self.queues, cpus=1
            )
        )
        inputs = self.folder / "in"
        self.job(output=self.output, mode="distributed", target_shard_rows=10, columns=["id"])
        self.rule("landing", LANDED)
        self.land("a.parquet", 30)
        self.drain()
        write(inputs / "b.parquet", numbers(20, start=30), row_group_size=10)
        damage(write(inputs / "c.parquet", numbers(20), row_group_size=10), 1)
        (inputs / "d.parquet").write_bytes(b"PAR1 no footer PAR1")
        self.start(
            f"{inputs}/",
            on_bad_row="reject",
            expect={"a": {"range": [0, 24]}},
            on_corrupt_file="quarantine",
        )
        self.publish(dropped("gone.parquet"))
        self.drain()
        self.work_off()
        canceled = self.start(f"{inputs}/")
        self.database.transact(lambda c: cancel(self.database, c, canceled.id))
        flush(self.database, self.bus)
        self.drain()

    def land(self, name: str, num_rows: int) -> None:
        """A file and its event."""
        path = write(self.folder / "in" / name, numbers(num_rows), row_group_size=10)
        store, key = locate(str(path), self.settings)
        info = store.head(key)
        data = {"uri": info.uri, "key": key, "tag": info.tag, "identity": info.identity}
        self.publish({**event("augury.object.created"), "data": data})

    def start(self, uri: str, **fields: Any) -> Run:
        overrides = RunOverrides.model_validate({"input": [{"uri": uri}], **fields})
        run, _ = self.database.transact(
            lambda c: start_run(self.database, c, job="score", overrides=overrides)
        )
        return run

    def runs(self, state: str = "SUCCEEDED") -> list[sa.Row[Any]]:
        return self.rows(tables.runs, tables.runs.c.state == state)

    def claim(self) -> WorkItem | None:
        return self.database.transact(
            lambda c: work.claim(self.database, c, self.worker_id, self.queues)
        )

    def work_off(self) -> None:
        """Plans, scores and commits until nothing is ready."""
        while (item := self.claim()) is not None:
            if item.is_shard:
                self._score(item)
            else:
                self._plan(item)

    def _run(self, item: WorkItem) -> Run:
        with self.database.read() as connection:
            return get_run(connection, item.run_id)

    def _plan(self, item: WorkItem) -> None:
        version: Any = Version(signature=self.signature)
        try:
            plan, shards = plan_run(self._run(item).job_spec, version, self.settings, check=nothing)
        except AuguryError as error:
            failure = Failure(code=error.code, message=error.message, is_permanent=True)
            self.database.transact(lambda c: reports.fail(self.database, c, item, failure))
            return
        planned = Planned(
            plan=plan.to_json(),
            mode=plan.mode,
            rows_in=plan.rows_in,
            shards=[shard.to_json() for shard in shards],
        )
        self.database.transact(lambda c: reports.finish_plan(self.database, c, item, planned))

    def _score(self, item: WorkItem) -> None:
        run = self._run(item)
        assert item.spec is not None and run.plan is not None
        result = score_shard(
            Plan.from_json(run.plan),
            ShardSpec.from_json(item.spec),
            Sums(self.signature),
            open_store(run.output_uri, self.settings),
            self.settings,
            num_threads=1,
            on_progress=nothing,
            check=nothing,
        )
        finished = self.database.transact(
            lambda c: reports.finish_shard(
                self.database, c, item, result.to_json(), rows_done=result.rows_in
            )
        )
        if finished.is_last:
            coordinator.advance(self.database, run.id, self.settings)
