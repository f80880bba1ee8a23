"""From published to routed: 500 events a second in batches of 10, 1,000 rules, 5 of them matching.

`augury up` routes; this process publishes at that pace and looks every 2 ms at what the ledger
shows. An event is routed when a reader sees it there, with its five outcomes. The five rules that
match gather mini-batches of 200 events, each of which starts a run; so do nearly all who let a
stream of arrivals start runs. Both clocks are this process's. Run it with

    python benchmarks/bench_routed.py [--seconds 20] [--rules 1000] [--matching 5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from augury.engine import Engine
from augury.events.envelope import Event, new_event
from augury.resources.documents import Entry
from augury.storage.tables import events, outcomes
from installation import apply, augury_up, model_and_job, quantiles, train, until, write_rows

BATCH = 10
PACE_S = BATCH / 500
GROUP = 200
_LOOK_S = 0.002


def rules(count: int, matching: int) -> list[Entry]:
    """`matching` rules that want every event, the rest want other buckets."""
    action = {"start_run": {"job": "score", "input": "./in/"}}
    found = []
    for number in range(count):
        bucket = "landing" if number < matching else f"other-{number}"
        pattern = {"type": ["bench.file.ready"], "data": {"bucket": [bucket]}}
        fields: dict[str, Any] = {"pattern": pattern, "actions": [action]}
        if number < matching:
            fields["group"] = {"batch": {"max_events": GROUP, "max_wait_s": 60}}
        found.append(Entry(section="rules", name=f"r{number}", fields=fields, base=Path.cwd()))
    return found


class Observer(threading.Thread):
    """Notes when the ledger first shows each event."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.seen_s: dict[str, float] = {}
        self._engine = engine
        self._position = 0

    def run(self) -> None:
        """Looks for ever."""
        query = sa.select(events.c.position, events.c.event_id).where(events.c.source == "/bench")
        while True:
            with self._engine.database.read() as connection:
                rows = connection.execute(query.where(events.c.position > self._position)).all()
            now = time.monotonic()
            for position, event_id in rows:
                self.seen_s[event_id] = now
                self._position = max(self._position, position)
            time.sleep(_LOOK_S)


def made(first: int) -> list[Event]:
    """One batch."""
    return [
        new_event(
            "bench.file.ready",
            {"bucket": "landing", "number": number, "note": "x" * 300},
            source="/bench",
            event_id=f"e{number}",
        )
        for number in range(first, first + BATCH)
    ]


def publish_at_pace(engine: Engine, seconds: float) -> dict[str, float]:
    """Publishes; gives the moment before each event was sent."""
    sent_s: dict[str, float] = {}
    began = time.monotonic()
    for number in range(round(seconds / PACE_S)):
        time.sleep(max(0.0, began + number * PACE_S - time.monotonic()))
        batch = made(number * BATCH)
        sent_s |= dict.fromkeys((event.id for event in batch), time.monotonic())
        engine.publish(batch)
    return sent_s


def measure(engine: Engine, seconds: float) -> dict[str, Any]:
    """The latency of every event after the first second."""
    observer = Observer(engine)
    observer.start()
    began = time.monotonic()
    sent_s = publish_at_pace(engine, seconds)
    took_s = time.monotonic() - began
    until(lambda: len(observer.seen_s) == len(sent_s), "all events are routed")
    latencies = [
        observer.seen_s[event_id] - sent for event_id, sent in sent_s.items() if sent > began + 1.0
    ]
    with engine.database.read() as connection:
        num_outcomes = connection.scalar(sa.select(sa.func.count()).select_from(outcomes))
    return {
        "events": len(sent_s),
        "events_per_second": round(len(sent_s) / took_s),
        "outcomes": num_outcomes,
        "published_to_routed": quantiles(latencies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--matching", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        train(folder, num_trees=20)
        write_rows(folder / "in" / "a.parquet", 100)
        with augury_up(folder, workers=1) as engine:
            apply(folder, model_and_job())
            entries = rules(options.rules, options.matching)
            engine.apply(entries)
            print(json.dumps(measure(engine, options.seconds)))


if __name__ == "__main__":
    main()
