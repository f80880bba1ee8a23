"""The router's commit on SQLite while four workers write to the same file.

Workers and sweeper are real processes that score a run of thousands of small shards; the router
runs in this process, so that each of its transactions can be timed; a publisher process sends
events. Run it with

    python benchmarks/bench_router_commit.py [--events 20000] [--workers 4]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from augury.engine import Engine
from augury.jobs.spec import RunOverrides
from augury.processes.valkey import ValkeyServer
from augury.resources.documents import Entry
from augury.routing.router import Router
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import runs
from bench_events import set_up
from installation import model_and_job, quantiles, train, write_rows

_ROWS = 10
_SHARDS = 5_000


@contextmanager
def processes(settings: Settings, folder: Path, workers: int) -> Iterator[None]:
    """Workers and a sweeper as `augury up` would start them."""
    environment = {
        **os.environ,
        "AUGURY_HOME": str(settings.home),
        "AUGURY_REDIS_URL": settings.redis_url,
    }
    roles = [["worker", "--name", f"w{number}"] for number in range(workers)] + [["sweeper"]]
    with (folder / "roles.log").open("w") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "augury.processes", *role],
                env=environment,
                stdout=log,
                stderr=log,
            )
            for role in roles
        ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


class TimedDatabase(Database):
    """Remembers how long each writing transaction took."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.seconds: list[float] = []

    def transact[T](self, work: Callable[[sa.Connection], T]) -> T:
        """As ever, and timed."""
        started = time.perf_counter()
        try:
            return super().transact(work)
        finally:
            self.seconds.append(time.perf_counter() - started)


def measure(folder: Path, url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Routes all events while the workers are busy."""
    settings = Settings(home=folder / "home", redis_url=url, namespace="bench")
    database = TimedDatabase(settings.effective_database_url)
    set_up(database)
    with Engine(settings) as engine:
        document = model_and_job(input=[{"uri": (folder / "in").as_uri() + "/"}])
        sample = folder / "sample.parquet"
        engine.register_model("bench", folder / "model.ubj", sample=sample, alias="champion")
        job = {**document["jobs"][0], "output": (folder / "out").as_uri() + "/"}
        job |= {"name": "busy", "mode": "distributed", "target_shard_rows": _ROWS}
        engine.apply([Entry(section="jobs", name="busy", fields=_without_name(job))])
        engine.start_run("busy", RunOverrides())
        os.environ["AUGURY_NAMESPACE"] = "bench"
        with processes(settings, folder, options.workers):
            _until_busy(engine)
            arguments = ["--publisher", url, "--events", str(options.events), "--matching", "0"]
            publisher = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("bench_events.py")), *arguments]
            )
            router = Router(database, engine.bus, engine.executor, settings)
            database.seconds.clear()
            routed, started = 0, time.perf_counter()
            while routed < options.events:
                routed += router.step(0.2)
            seconds = time.perf_counter() - started
            publisher.wait()
            still_busy = _rows_done(engine)
    return {
        "workers": options.workers,
        "events_per_second": round(routed / seconds),
        "commit": quantiles(database.seconds),
        "worst_s": round(max(database.seconds), 4),
        "shards_scored_meanwhile": still_busy // _ROWS,
    }


def _without_name(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != "name"}


def _rows_done(engine: Engine) -> int:
    with engine.database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.sum(runs.c.rows_done))) or 0)


def _until_busy(engine: Engine) -> None:
    while not _rows_done(engine):
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        train(folder, num_trees=1, depth=1)
        write_rows(folder / "in" / "many.parquet", _SHARDS * _ROWS, row_group_rows=_ROWS)
        server = ValkeyServer(folder / "data", folder / "run" / "valkey.sock")
        server.start()
        try:
            print(json.dumps(measure(folder, server.url, options)))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
