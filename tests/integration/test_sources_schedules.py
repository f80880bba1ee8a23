"""When schedules tick, and that each tick happens once whatever clocks and schedulers do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sources_world import SourcesWorld, wait_until

from augury import clock
from augury.settings import Settings
from augury.sources import schedules
from augury.sources.schedules import Schedules
from augury.storage import tables
from augury.storage.database import Database

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[SourcesWorld]:
    world = SourcesWorld(database, live_settings)
    yield world
    world.bus.close()


def scheduler(world: SourcesWorld) -> Schedules:
    return Schedules(world.database, world.bus, world.settings)


def step_at(world: SourcesWorld, *instants: datetime) -> None:
    """One scheduler, looking at the clock at each of these instants."""
    clockwork = scheduler(world)
    for instant in instants:
        with clock.frozen(instant):
            clockwork.step()


def fired(world: SourcesWorld) -> list[tuple[str, int]]:
    """(hour and minute, missed_count) of every tick's event, in the order they were emitted."""
    return [
        (event["data"]["nominal_at"][11:16], event["data"]["missed_count"])
        for event in world.emitted("augury.schedule.ticked")
    ]


def recorded(world: SourcesWorld) -> list[tuple[str, str, int]]:
    return [
        (f"{row.nominal_at:%H:%M}", row.state, row.missed_count) for row in world.rows(tables.ticks)
    ]


def test_a_tick_is_a_row_and_an_event(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        schedule = world.schedule(cron="*/5 * * * *", timezone="Europe/Berlin")
    step_at(world, NOON, NOON + 4 * MINUTE)
    assert world.emitted("augury.schedule.ticked") == []
    step_at(world, NOON + 5 * MINUTE, NOON + 5 * MINUTE, NOON + 6 * MINUTE)
    (event,) = world.emitted("augury.schedule.ticked")
    assert event["type"] == "augury.schedule.ticked"
    assert event["source"] == "augury/schedules/nightly"
    assert event["subject"] == "nightly"
    assert event["id"] == f"{schedule.id}:2026-01-01T12:05:00.000000Z"
    assert event["data"] == {
        "schedule": "nightly",
        "nominal_at": "2026-01-01T12:05:00.000000Z",
        "missed_count": 0,
    }
    assert recorded(world) == [("12:05", "FIRED", 0)]
    assert [e["id"] for e in world.on_bus("augury.schedule.ticked")] == [event["id"]]


def test_a_schedule_says_when_to_look_again(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="*/5 * * * *")
    clockwork = scheduler(world)
    with clock.frozen(NOON):
        assert clockwork.step() == 1.0
    with clock.frozen(NOON + timedelta(minutes=4, seconds=59, milliseconds=750)):
        assert clockwork.step() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("missed", "events", "rows"),
    [
        ("last", [("12:04", 3)], [("12:03", "MISSED", 3), ("12:04", "FIRED", 3)]),
        ("none", [], [("12:04", "MISSED", 4)]),
        (
            "all",
            [("12:01", 0), ("12:02", 0), ("12:03", 0), ("12:04", 0)],
            [(f"12:0{minute}", "FIRED", 0) for minute in (1, 2, 3, 4)],
        ),
    ],
)
def test_missed_ticks_follow_the_policy(
    world: SourcesWorld,
    missed: str,
    events: list[tuple[str, int]],
    rows: list[tuple[str, str, int]],
) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="* * * * *", missed=missed)
    late = NOON + timedelta(minutes=4, seconds=40)
    step_at(world, late, late)
    step_at(world, late)
    assert fired(world) == events
    assert recorded(world) == rows
    step_at(world, NOON + 5 * MINUTE)
    assert fired(world) == [*events, ("12:05", 0)]


def test_a_long_absence_is_decided_part_by_part(
    world: SourcesWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_DECIDED_AT_ONCE", 10)
    monkeypatch.setattr(schedules, "_FIRED_AT_ONCE", 10)
    with clock.frozen(NOON):
        world.schedule("last", cron="* * * * *")
        world.schedule("all", cron="* * * * *", missed="all")
    step_at(world, NOON + 25 * MINUTE)
    events = world.emitted("augury.schedule.ticked")
    per_schedule = {
        name: [e for e in events if e["data"]["schedule"] == name] for name in ("last", "all")
    }
    assert [e["data"]["missed_count"] for e in per_schedule["last"]] == [4]
    assert len(per_schedule["all"]) == 25
    counts = [row.missed_count for row in world.rows(tables.ticks) if row.state == "MISSED"]
    assert counts == [10, 10, 4]


def test_a_clock_that_is_put_back_repeats_nothing(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="* * * * *")
    forth = [NOON + n * MINUTE for n in (1, 2, 3)]
    step_at(world, *forth, *reversed(forth), NOON - 60 * MINUTE, *forth, NOON + 4 * MINUTE)
    step_at(world, *forth)
    assert fired(world) == [("12:01", 0), ("12:02", 0), ("12:03", 0), ("12:04", 0)]


def test_a_clock_that_was_in_the_future_does_not_silence_a_schedule(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="* * * * *", missed="none")
    clockwork = scheduler(world)
    for instant in (NOON + MINUTE, NOON + 60 * MINUTE, NOON + 2 * MINUTE, NOON + 3 * MINUTE):
        with clock.frozen(instant):
            clockwork.step()
    with clock.frozen(NOON + 60 * MINUTE):
        clockwork.step()
    assert [at for at, _ in fired(world)] == ["12:01", "13:00", "12:02", "12:03"]
    nominal = [event["id"] for event in world.emitted("augury.schedule.ticked")]
    assert len(set(nominal)) == len(nominal)


def test_what_comes_due_while_it_is_disabled_is_not_missed(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="* * * * *")
    step_at(world, NOON + MINUTE)
    with clock.frozen(NOON + 2 * MINUTE - timedelta(seconds=1)):
        world.schedule(cron="* * * * *", enabled=False)
    step_at(world, NOON + 5 * MINUTE)
    with clock.frozen(NOON + timedelta(minutes=9, seconds=30)):
        world.schedule(cron="* * * * *")
    step_at(world, NOON + timedelta(minutes=9, seconds=40), NOON + 10 * MINUTE)
    assert fired(world) == [("12:01", 0), ("12:10", 0)]


def test_a_changed_cron_counts_from_its_change_and_a_changed_policy_does_not(
    world: SourcesWorld,
) -> None:
    with clock.frozen(NOON):
        world.schedule(cron="*/10 * * * *")
    with clock.frozen(NOON + timedelta(minutes=10, seconds=30)):
        world.schedule(cron="*/10 * * * *", missed="all")
    step_at(world, NOON + 11 * MINUTE)
    assert fired(world) == [("12:10", 0)]
    with clock.frozen(NOON + timedelta(minutes=25, seconds=30)):
        world.schedule(cron="* * * * *", missed="all")
    step_at(world, NOON + 27 * MINUTE)
    assert fired(world) == [("12:10", 0), ("12:26", 0), ("12:27", 0)]


def test_a_dropped_schedule_does_not_tick(world: SourcesWorld) -> None:
    from augury.sources.store import delete_schedule

    with clock.frozen(NOON):
        schedule = world.schedule(cron="* * * * *")
    world.database.transact(lambda c: delete_schedule(world.database, c, "nightly"))
    step_at(world, NOON + MINUTE)
    spec = schedules.ScheduleSpec.model_validate(schedule.spec)
    assert schedules.tick(world.database, schedule, spec, NOON + MINUTE) == 0
    assert recorded(world) == []


def test_many_schedulers_at_once_neither_double_nor_lose(world: SourcesWorld) -> None:
    with clock.frozen(NOON):
        for number in range(3):
            world.schedule(f"s{number}", cron="* * * * *")
    clockworks = [scheduler(world) for _ in range(4)]
    for minute in range(1, 8):
        barrier = threading.Barrier(len(clockworks))

        def step(clockwork: Schedules, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            clockwork.step()

        with clock.frozen(NOON + minute * MINUTE):
            threads = [threading.Thread(target=step, args=(c,)) for c in clockworks]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert sorted(fired(world)) == sorted((f"12:0{m}", 0) for m in range(1, 8) for _ in range(3))
    assert {row.state for row in world.rows(tables.ticks)} == {"FIRED"}


def test_a_running_process_ticks_in_real_time(world: SourcesWorld) -> None:
    with world.running():
        world.schedule(cron="* * * * * *")
        wait_until(lambda: len(world.on_bus("augury.schedule.ticked")) >= 3)
    for event in world.emitted("augury.schedule.ticked"):
        behind = clock.parse(event["time"]) - clock.parse(event["data"]["nominal_at"])
        assert timedelta(0) <= behind < timedelta(seconds=5)
    instants = [row.nominal_at for row in world.rows(tables.ticks)]
    steps = {later - earlier for earlier, later in pairwise(instants)}
    assert steps == {timedelta(seconds=1)}
