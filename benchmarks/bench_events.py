"""Events a second through publish, route and ledger, on one machine.

A publisher process sends batches of 100 events of about 600 bytes to an embedded Valkey (AOF
always) while this process routes them into the ledger with 10 rules, of which one matches 10 % of
the events and starts a run for each. Both wait for the disk. Run it with

    python benchmarks/bench_events.py [--events 30000] [--database URL] [--matching 0.1] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from augury.bus.redis_bus import RedisBus
from augury.processes.valkey import ValkeyServer
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.ledger import count_events, count_outcomes
from augury.routing.router import Router
from augury.rules.spec import RuleSpec
from augury.rules.store import apply_rule
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.migrations import migrate

BATCH = 100


class NobodyWaits:
    """An executor without workers."""

    def wake(self, queue: str, count: int = 1) -> None:
        """Does nothing."""

    def depth(self, queue: str) -> int:
        """Nothing waits."""
        return 0


def make_event(number: int, matching: float) -> bytes:
    wanted = number % 1000 < matching * 1000
    uri = f"s3://landing/day={number % 365:03}/part-{number:08}.parquet"
    data = {
        "bucket": "landing" if wanted else "elsewhere",
        "key": uri.removeprefix("s3://landing/"),
        "uri": uri,
        "size_bytes": 1000 + number,
        "tag": f"{number:032x}",
        "identity": f"{uri}#{number:032x}",
        "metadata": {"owner": "bench", "labels": ["a", "b", "c"], "note": "x" * 150},
    }
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "source": "augury/sources/landing" if wanted else "/bench",
            "id": f"evt_{number:026}",
            "type": "augury.object.created",
            "time": "2026-01-01T00:00:00Z",
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def publish(url: str, count: int, matching: float) -> None:
    """The publisher process."""
    bus = RedisBus(url, namespace="bench")
    for start in range(0, count, BATCH):
        bus.publish([make_event(number, matching) for number in range(start, start + BATCH)])


def set_up(database: Database) -> None:
    migrate(database)
    job = {"model": "m@champion", "output": "s3://out/"}
    database.transact(lambda c: store.put(database, c, Kind.JOB, "score", job))
    for number in range(10):
        bucket = "landing" if number == 0 else f"other-{number}"
        pattern = {"type": ["augury.object.created"], "data": {"bucket": [bucket]}}
        spec = RuleSpec(pattern=pattern, actions=[{"start_run": {"job": "score"}}])
        database.transact(
            lambda c, name=f"r{number}", spec=spec: apply_rule(database, c, name, spec)
        )


def route_all(router: Router, database: Database, count: int) -> list[float]:
    steps: list[float] = []
    routed = 0
    while routed < count:  # the runs' own events come on top
        started = time.perf_counter()
        routed += router.step(0.2)
        steps.append(time.perf_counter() - started)
    return steps


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    database = Database(options.database or f"sqlite:///{folder / 'augury.db'}")
    set_up(database)
    server = ValkeyServer(folder / "data", folder / "run" / "valkey.sock")
    server.start()
    bus = RedisBus(server.url, namespace="bench")
    router = Router(database, bus, NobodyWaits(), Settings(home=folder))
    arguments = [__file__, "--publisher", server.url]
    arguments += ["--events", str(options.events), "--matching", str(options.matching)]
    publisher = subprocess.Popen([sys.executable, *arguments])
    started = time.perf_counter()
    try:
        steps = route_all(router, database, options.events)
        seconds = time.perf_counter() - started
        with database.read() as connection:
            counts = count_events(connection)
            outcomes = {str(state): n for state, n in count_outcomes(connection).items()}
    finally:
        publisher.wait()
        server.stop()
    return {
        "events": options.events,
        "seconds": round(seconds, 3),
        "events_per_second": round(counts["accepted"] / seconds),
        "published_per_second": round(options.events / seconds),
        "step_p50_s": round(quantile(steps, 0.5), 4),
        "step_p99_s": round(quantile(steps, 0.99), 4),
        "outcomes": outcomes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--matching", type=float, default=0.1)
    parser.add_argument("--database", default="")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--publisher", default="")
    options = parser.parse_args()
    if options.publisher:
        publish(options.publisher, options.events, options.matching)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        profile = cProfile.Profile()
        result = (
            profile.runcall(measure, options, Path(folder))
            if options.profile
            else measure(options, Path(folder))
        )
    print(json.dumps(result))
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
