"""Sources that die anywhere: at every statement of an announcement or tick, and by kill -9."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sources_world import SourcesWorld, parquet, wait_until

from augury import clock
from augury.bus import relay
from augury.settings import Settings, child_environment
from augury.sources.schedules import Schedules
from augury.storage import tables
from augury.storage.database import Database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROUNDS = 3


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[SourcesWorld]:
    world = SourcesWorld(database, live_settings)
    yield world
    world.bus.close()


# --- at every statement ---------------------------------------------------------------------------


class Crash(BaseException):
    """Like kill -9 as far as the code under test is concerned: nothing catches it."""


@contextmanager
def crash_at(database: Database, number: int) -> Iterator[None]:
    """Raises `Crash` before the `number`-th SQL statement (from 0)."""
    left = itertools.count(number, -1)

    def before(*_: Any) -> None:
        if next(left) == 0:
            raise Crash

    engine = database._engine
    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


def crash_everywhere(
    world: SourcesWorld, work: Callable[[], object], check: Callable[[], None]
) -> int:
    """Lets the work die at its first statement, its second, and so on until it survives."""
    for number in range(100):
        try:
            with crash_at(world.database, number):
                work()
        except Crash:
            check()
        else:
            return number
    pytest.fail("it never survived")


def test_a_tick_is_whole_or_not_at_all(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="* * * * *")

    def tick() -> None:
        with clock.frozen(NOON + timedelta(minutes=3)):
            Schedules(world.database, world.bus, world.settings).step()

    def row_and_event_agree() -> None:
        rows = [row for row in world.rows(tables.ticks) if row.state == "FIRED"]
        events = world.emitted("augury.schedule.ticked")
        assert [clock.iso(row.nominal_at) for row in rows] == [
            event["data"]["nominal_at"] for event in events
        ]

    assert crash_everywhere(world, tick, row_and_event_agree) > 5
    row_and_event_agree()
    assert [event["data"] for event in world.emitted("augury.schedule.ticked")] == [
        {"schedule": "nightly", "nominal_at": "2026-01-01T12:03:00.000000Z", "missed_count": 2}
    ]
    assert [(row.state, row.missed_count) for row in world.rows(tables.ticks)] == [
        ("MISSED", 2),
        ("FIRED", 2),
    ]


def test_an_announcement_is_whole_or_not_at_all(world: SourcesWorld, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    for name in ("a", "b"):
        parquet(landing / f"{name}.parquet")
    world.source(landing)

    def rows_and_events_agree() -> None:
        announced = [key for key, state in world.states().items() if state == "ANNOUNCED"]
        assert sorted(announced) == sorted(key for _, key in world.told())

    watch = lambda: world.watcher().reconcile()  # noqa: E731 - a name for what is done
    assert crash_everywhere(world, watch, rows_and_events_agree) > 5
    assert world.told() == [("created", "a.parquet"), ("created", "b.parquet")]


# --- at random ------------------------------------------------------------------------------------


def start(world: SourcesWorld) -> subprocess.Popen[bytes]:
    environment = child_environment(
        AUGURY_DATABASE_URL=world.database.url,
        AUGURY_REDIS_URL=world.settings.effective_redis_url,
        AUGURY_NAMESPACE=world.settings.namespace,
        AUGURY_LIST_S="0.3",
        AUGURY_LOG_LEVEL="ERROR",
    )
    return subprocess.Popen([sys.executable, "-m", "augury.processes", "sources"], env=environment)


@pytest.mark.slow
def test_killed_processes_neither_double_nor_lose(world: SourcesWorld, tmp_path: Path) -> None:
    chance = random.Random(7)
    landing = tmp_path / "landing"
    world.source(landing)
    world.schedule(cron="* * * * * *", missed="last")
    processes: list[subprocess.Popen[bytes]] = []
    dropped = 0
    try:
        processes += [start(world), start(world)]
        wait_until(lambda: world.emitted("augury.schedule.ticked"), timeout_s=60)
        for number in range(ROUNDS):
            for _ in range(6):
                parquet(landing / f"{dropped:03}.parquet")
                dropped += 1
                clock.sleep_s(chance.uniform(0.0, 0.02))
            victim = number % 2
            processes[victim].kill()
            processes[victim].wait()
            processes[victim] = start(world)
            wait_until(lambda count=dropped: len(world.told()) >= count, timeout_s=60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert Counter(world.told()) == {("created", f"{n:03}.parquet"): 1 for n in range(dropped)}
    check_every_second(world)
    everything_is_sent(world)


def everything_is_sent(world: SourcesWorld) -> None:
    """What a process claimed and did not send before it died is sent by whoever comes next."""
    world.bus.ack([delivery.entry_id for delivery in world.bus.read("r", count=9999, block_s=0.0)])
    relay.flush(world.database, world.bus, resend_s=0.0)
    sent = {(event["source"], event["id"]) for event in world.on_bus("augury.")}
    assert sent >= {(event["source"], event["id"]) for event in world.emitted("augury.")}


def check_every_second(world: SourcesWorld) -> None:
    """Each second is one tick: fired with its event, or counted in the one row of the missed."""
    rows: list[Any] = world.rows(tables.ticks)
    fired = [row.nominal_at for row in rows if row.state == "FIRED"]
    events = world.emitted("augury.schedule.ticked")
    assert sorted(clock.iso(at) for at in fired) == sorted(e["data"]["nominal_at"] for e in events)
    missed = sum(row.missed_count for row in rows if row.state == "MISSED")
    seconds = (fired[-1] - fired[0]) // timedelta(seconds=1) + 1
    assert len(fired) + missed == seconds + rows[0].missed_count * (rows[0].state == "MISSED")
