"""Ticks that come due while the run that the previous one started is active."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from routing_world import World

from augury import clock
from augury.bus.relay import flush
from augury.settings import Settings
from augury.sources import schedules
from augury.sources.schedules import Schedules
from augury.sources.spec import ScheduleSpec
from augury.sources.store import apply_schedule, delete_schedule
from augury.storage import tables
from augury.storage.database import Database

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class TickingWorld(World):
    """A schedule of every minute, whose ticks start runs that end when the test says so."""

    def schedule(self, name: str = "minutely", **fields: object) -> None:
        spec = ScheduleSpec.model_validate({"every_s": 60, **fields})
        with clock.frozen(NOON):
            self.database.transact(lambda c: apply_schedule(self.database, c, name, spec))

    def step(self, minutes: float, *, route: bool = True) -> None:
        """Lets a scheduler, and then a router, look once."""
        with clock.frozen(NOON + minutes * MINUTE):
            Schedules(self.database, self.bus, self.settings).step()
        if route:
            self.route()

    def route(self) -> None:
        flush(self.database, self.bus)
        self.drain()

    def end_runs(self) -> None:
        over = sa.update(tables.runs).values(state="SUCCEEDED")
        self.database.transact(lambda c: c.execute(over))

    def states(self) -> str:
        """State of each tick, and how many before it did not fire if any."""
        rows = self.rows(tables.ticks)
        return " ".join(f"{row.state}{row.missed_count or ''}" for row in rows)

    def ticked(self) -> list[str]:
        """Minutes of the ticks whose events were routed, in order."""
        first = tables.events.c.duplicate_of.is_(None)  # what was sent in the past is sent again
        ticked = tables.events.c.type == "augury.schedule.ticked"
        return [row.event_id[-13:-11] for row in self.rows(tables.events, ticked, first)]


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[TickingWorld]:
    world = TickingWorld(database, live_settings)
    world.job()
    world.rule("ticks", {"type": ["augury.schedule.ticked"]})
    yield world
    world.bus.close()


def test_skip_waits_for_the_router_and_for_the_run(world: TickingWorld) -> None:
    world.schedule(overlap="skip")
    world.step(1, route=False)
    world.step(2)  # nobody knows yet what the first one starts
    world.step(3)  # its run is active
    assert world.states() == "FIRED SKIPPED SKIPPED"
    world.end_runs()
    world.step(4)
    assert world.states() == "FIRED SKIPPED SKIPPED FIRED"
    assert world.ticked() == ["01", "04"]
    assert len(world.rows(tables.runs)) == 2
    world.check_laws()


def test_queue_fires_each_once_the_previous_run_is_over(world: TickingWorld) -> None:
    world.schedule(overlap="queue")
    for minute in (1, 2, 3):
        world.step(minute)
    assert world.states() == "FIRED QUEUED QUEUED"
    world.end_runs()
    world.step(3.1)
    world.step(3.2)  # the second one's run is active
    assert world.states() == "FIRED FIRED QUEUED"
    world.end_runs()
    world.step(4)  # a tick that is due now comes after the one that waits
    assert world.states() == "FIRED FIRED FIRED QUEUED"
    world.end_runs()
    world.step(4.1)
    assert world.ticked() == ["01", "02", "03", "04"]
    world.check_laws()


def test_a_tick_that_starts_nothing_holds_up_nothing(world: TickingWorld) -> None:
    world.drop_rule("ticks")
    world.schedule(overlap="skip")
    for minute in (1, 2):
        world.step(minute)
    assert world.states() == "FIRED FIRED"


def test_after_an_absence_both_policies_hold(
    world: TickingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_DECIDED_AT_ONCE", 4)
    world.schedule(overlap="queue", missed="bounded", missed_limit=2)
    world.step(9.5)
    # two parts of which the newest were decided later, and at last the bound
    assert world.states() == "MISSED2 MISSED2 MISSED2 MISSED1 FIRED1 QUEUED"
    world.end_runs()
    world.step(9.6)
    assert world.ticked() == ["08", "09"]


def test_of_two_schedulers_one_releases(world: TickingWorld) -> None:
    world.schedule(overlap="queue")
    world.step(1)
    world.step(2)
    world.end_runs()
    with clock.frozen(NOON + 2 * MINUTE):
        live = schedules.enabled(world.database, schedules.Kind.SCHEDULE)
        assert [schedules.release(world.database, live) for _ in range(2)] == [1, 0]


def test_a_deleted_schedule_fires_nothing_that_waited(world: TickingWorld) -> None:
    world.schedule(overlap="queue")
    world.step(1)
    world.step(2)
    world.database.transact(lambda c: delete_schedule(world.database, c, "minutely"))
    world.end_runs()
    world.step(3)
    assert world.states() == "FIRED SKIPPED"
    assert world.ticked() == ["01"]


def test_one_time_ticks_once(world: TickingWorld) -> None:
    world.schedule(every_s=None, at="2026-01-01T13:01", timezone="Europe/Berlin")
    for minute in (0, 1, 2, 90):
        world.step(minute)
    assert world.ticked() == ["01"]
