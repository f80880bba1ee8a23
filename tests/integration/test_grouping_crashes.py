"""Groupers that die anywhere, and groupers that fight over every lane."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from grouping_world import LANDED, GroupingWorld
from routing_world import Crash, crash_at_statement, dropped, event

from augury import clock
from augury.routing.router import Router
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

MAX_ACTIVE = 2
NUM_RUNS = 24


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[GroupingWorld]:
    world = GroupingWorld(database, live_settings)
    world.job()
    yield world
    world.bus.close()


def test_a_crash_before_any_sql_statement_neither_loses_nor_doubles(world: GroupingWorld) -> None:
    """Every kind of thing that a grouper does, in one look, and a death before each statement."""
    slots = {"group": {"batch": {"max_events": 2}}, "max_active": 1}
    world.rule("queued", LANDED, **slots)
    world.rule("coalesced", LANDED, when_full="coalesce", **slots)
    world.rule("seen", LANDED, group={"at_least": {"events": 3, "within_s": 60}})
    world.rule("gone", LANDED, [{"start_run": {"job": "gone"}}], **slots)
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(8)))
    world.drain()
    for number in range(300):
        with crash_at_statement(world.database, number):
            try:
                world.grouper().group()
            except Crash:
                continue
        break
    else:
        raise AssertionError("a look has more than 300 statements")
    assert number > 30
    world.settle()
    found = Counter((row.num_events, row.why, row.state) for row in world.groups())
    assert found == {
        (2, "full", "STARTED"): 2,  # one of each that has a place
        (2, "full", "QUEUED"): 3 + 1,
        (2, "full", "JOINED"): 2,
        (2, "full", "DEAD"): 4,
        (3, "counted", "STARTED"): 2,
        (2, None, "OPEN"): 1,
    }
    assert len(world.rows(tables.runs)) == 4
    assert len(world.rows(tables.dead_letters)) == 4
    world.check()


def test_no_more_runs_are_active_than_allowed_whoever_groups(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=MAX_ACTIVE)
    world.publish(*(dropped(f"k{n:02}", id=f"e{n:02}") for n in range(NUM_RUNS)))
    errors: list[BaseException] = []
    done = threading.Event()

    def group() -> None:
        routes = world.router(router_batch=5)
        try:
            while not done.is_set():
                routes.step(0.0)
                routes._grouper.group()
        except BaseException as error:
            errors.append(error)

    groupers = [threading.Thread(target=group) for _ in range(4)]
    for thread in groupers:
        thread.start()
    finished: list[str] = []
    deadline = clock.monotonic_s() + 60
    while len(finished) < NUM_RUNS and clock.monotonic_s() < deadline:
        active = sorted(world.active(), key=lambda run: run.id)
        assert len(active) <= MAX_ACTIVE
        for run in active[:1]:
            world.finish(run.id)
            finished.append(run.spec["input"][0]["uri"])
    done.set()
    for thread in groupers:
        thread.join(30)
    world.drain()
    assert errors == []
    # in the order of the stream, but for those that are active together
    order = [f"file:///in/k{n:02}" for n in range(NUM_RUNS)]
    assert sorted(finished) == order
    assert all(abs(finished.index(uri) - n) < MAX_ACTIVE for n, uri in enumerate(order))
    world.check()


def test_a_rule_that_is_changed_decides_what_comes_next_in_a_running_router(
    world: GroupingWorld,
) -> None:
    """Every event that is published after the change is decided by the new version, at once."""
    stop = threading.Event()
    router = Router(world.database, world.bus, world.executor, world.settings)
    thread = threading.Thread(target=router.run, args=(stop,))
    thread.start()
    slowest_s = 0.0
    try:
        for version in range(1, 16):
            world.rule("things", {"type": ["acme.thing"], "data": {"n": [version]}})
            began_s = clock.monotonic_s()
            world.publish(
                event(id=f"old{version}", n=version - 1), event(id=f"v{version}", n=version)
            )
            while f"v{version}" not in world.states():
                took_s = clock.monotonic_s() - began_s
                assert took_s < 30
                clock.sleep_s(0.005)
            slowest_s = max(slowest_s, clock.monotonic_s() - began_s)
    finally:
        stop.set()
        thread.join(30)
    assert slowest_s < 5  # it is some milliseconds, on a machine that does nothing else
    names = {row.position: row.event_id for row in world.rows(tables.events)}
    found = {names[row.position]: row.rule_version for row in world.rows(tables.outcomes)}
    assert found == {f"v{version}": version for version in range(1, 16)}
    world.check()
