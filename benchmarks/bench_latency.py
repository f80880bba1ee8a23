"""From an event to predictions: published (or landed) to run started, and to output committed.

Warm workers, files of 1,000 rows, one every half second (faster ones queue up). Times are those of
the ledger and of this process, on one host and so on one clock. Run it with

    python benchmarks/bench_latency.py [--events 200] [--workers 2] [--pause 0.5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.engine import Engine
from augury.events.envelope import new_event
from augury.storage.tables import events, runs
from installation import apply, augury_up, model_and_job, quantiles, train, until, write_rows

NUM_ROWS = 1_000
_WARM_UP = 10


def rules() -> dict[str, Any]:
    """One rule for published events, one for files that land."""
    action = {"start_run": {"job": "score"}}
    published = {"type": ["bench.file.ready"]}
    landed = {"type": ["augury.object.created"], "data": {"source": ["landing"]}}
    return {
        "sources": [{"name": "landing", "uri": "./landing/"}],
        "rules": [
            {"name": "published", "pattern": published, "actions": [action]},
            {"name": "landed", "pattern": landed, "actions": [action]},
        ],
    }


def publish_all(engine: Engine, folder: Path, count: int, pause_s: float) -> dict[str, float]:
    """Publishes one event a file; gives the instant of each acknowledgement by file name."""
    at = {}
    for number in range(count):
        path = folder / "in" / f"{number:05}.parquet"
        write_rows(path, NUM_ROWS, seed=number)
        event = new_event("bench.file.ready", {"uri": path.as_uri()}, source="/bench")
        at[path.name] = time.time()
        engine.publish([event])
        time.sleep(pause_s)
    return at


def land_all(folder: Path, count: int, pause_s: float) -> dict[str, float]:
    """Renames one file after another into the watched folder."""
    at = {}
    for number in range(count):
        path = folder / "landing" / f"landed-{number:05}.parquet"
        write_rows(path, NUM_ROWS, seed=number)
        at[path.name] = time.time()
        time.sleep(pause_s)
    return at


def figures(engine: Engine, at: dict[str, float]) -> dict[str, Any]:
    """Waits for the runs of these files and gives the latencies."""
    query = sa.select(events.c.body, runs.c.time_started, runs.c.time_committed).join(
        runs, runs.c.position == events.c.position
    )

    def found() -> dict[str, Any]:
        with engine.database.read() as connection:
            rows = connection.execute(query.where(runs.c.state == "SUCCEEDED")).all()
        named = {msgspec.json.decode(r.body)["data"]["uri"].rpartition("/")[2]: r for r in rows}
        return {name: row for name, row in named.items() if name in at}

    until(lambda: len(found()) == len(at), "all runs succeeded")
    rows = found()
    names = list(at)[_WARM_UP:]
    since = {name: datetime.fromtimestamp(at[name], UTC) for name in names}
    return {
        "runs": len(names),
        "to_started": quantiles(
            [(rows[name].time_started - since[name]).total_seconds() for name in names]
        ),
        "to_committed": quantiles(
            [(rows[name].time_committed - since[name]).total_seconds() for name in names]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        train(folder, num_trees=20)
        with augury_up(folder, workers=options.workers) as engine:
            apply(folder, {**model_and_job(), **rules()})
            time.sleep(1.5)  # the source is picked up
            published = publish_all(engine, folder, options.events + _WARM_UP, options.pause)
            result = {"published": figures(engine, published)}
            landed = land_all(folder, options.events + _WARM_UP, options.pause)
            result["landed"] = figures(engine, landed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
