"""Hours of bad luck in minutes: many events, doubled and out of order, while everything is killed.

`make soak` runs it with 100,000 events; `AUGURY_SOAK_EVENTS` and `AUGURY_SOAK_SEED` say otherwise.
What was sent is known here, so what the ledger holds is compared with it event by event, and then
`augury audit` looks with its own eyes. A seed fixes what is sent and in which order processes are
killed, not the moments: those are the machine's.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from harness import Augury
from scored import Scored, write_file

from augury import clock
from augury.storage import tables

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
type Start = Callable[..., Augury]

NUM_EVENTS = int(os.environ.get("AUGURY_SOAK_EVENTS", "100000"))  # noqa: TID251 - of the test
SEED = int(os.environ.get("AUGURY_SOAK_SEED", "1"))  # noqa: TID251 - of the test
BATCH = 100
NUM_FILES = 60
WINDOW = 500  # how far an event may come out of order
VICTIMS = ("router", "relay", "sources", "sweeper", "api", "worker-1", "valkey")
PAUSE_S = (0.2, 2.0)


def _sent(chance: random.Random) -> list[dict[str, Any]]:
    """Every event once, one in twenty twice, all of them shuffled within a window."""
    numbers = [*range(NUM_EVENTS), *chance.sample(range(NUM_EVENTS), NUM_EVENTS // 20)]
    places = [(number + chance.uniform(0, WINDOW), number) for number in numbers]
    return [_event(number) for _, number in sorted(places)]


def _event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "source": "/soak",
        "id": f"soak-{number}",
        "type": "soak.counted" if number % 10 else "soak.wanted",
        "data": {"number": number},
    }


def _batches(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(events), BATCH):
        yield events[start : start + BATCH]


def _publish(augury: Augury, events: list[dict[str, Any]]) -> int:
    """Sends until it is accepted; returns how often it was tried."""
    for attempt in range(1, 1_000):
        try:
            status, _ = augury.http(
                "POST", "/v1/events", events, content_type="application/cloudevents-batch+json"
            )
        except OSError:  # the API was killed under the request
            status = 0
        if status == 202:
            return attempt
        assert status in {0, 503}, status
        clock.sleep_s(0.05)
    raise AssertionError("the API does not come back")


class _Killer(threading.Thread):
    """Kills one process after another, each once the one before is up again."""

    def __init__(self, augury: Augury, chance: random.Random) -> None:
        super().__init__(name="killer", daemon=True)
        self.kills: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._augury = augury
        self._chance = chance
        self._stop = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop.is_set():
                victim = self._chance.choice(VICTIMS)
                old = self._augury.kill(victim)
                self.kills[victim] += 1
                self._augury.until_restarted(victim, old)
                clock.sleep_s(self._chance.uniform(*PAUSE_S), until=self._stop)
        except BaseException as error:  # told by `end`, in the thread of the test
            self.error = error

    def end(self) -> None:
        self._stop.set()
        self.join(120)
        if self.error is not None:
            raise self.error


def test_everything_is_killed_and_nothing_is_lost_or_doubled(start_augury: Start) -> None:
    augury = start_augury(workers=2)
    world = Scored(augury)
    write_file(augury.folder / "asked.parquet", 10)
    world.apply()
    world.apply_document(
        {
            "rules": [
                {
                    "name": "wanted",
                    "pattern": {
                        "type": ["soak.wanted"],
                        "data": {"number": [{"numeric": ["<", 500]}]},
                    },
                    "actions": [{"start_run": {"job": "score", "input": "./asked.parquet"}}],
                }
            ]
        },
        "wanted.yaml",
    )
    chance = random.Random(SEED)
    killer = _Killer(augury, random.Random(SEED + 1))
    killer.start()
    landed = 0
    try:
        for number, events in enumerate(_batches(_sent(chance))):
            _publish(augury, events)
            if number * BATCH * NUM_FILES >= landed * NUM_EVENTS and landed < NUM_FILES:
                write_file(world.landing / f"{landed:03}.parquet", 1_000, seed=landed)
                landed += 1
    finally:
        killer.end()
    _check(world, landed)
    assert sum(killer.kills.values()) > 0


def _check(world: Scored, landed: int) -> None:
    """Every event once in the ledger, every doubled one a duplicate, every file scored once."""
    world.augury.until(
        lambda: _num_distinct(world) == NUM_EVENTS, "every event is routed", timeout_s=300
    )
    wanted = len(range(0, min(500, NUM_EVENTS), 10))
    runs = world.until_finished(landed + wanted, timeout_s=300)
    assert {run.state for run in runs} == {"SUCCEEDED"}
    assert Counter(run.rows_predicted for run in runs) == {1_000: landed, 10: wanted}
    world.until_routed(timeout_s=120)
    done = world.augury.run("audit", "--json", timeout_s=900)
    assert done.returncode == 0, done.stdout + done.stderr


def _num_distinct(world: Scored) -> int:
    events = tables.events
    with world.database.read() as connection:
        found = connection.scalar(
            sa.select(sa.func.count())
            .select_from(events)
            .where(events.c.source == "/soak", events.c.duplicate_of.is_(None))
        )
    return int(found or 0)
