"""A rule that groups, over past events again: the same groups, in an epoch of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from grouping_world import LANDED, GroupingWorld
from routing_world import dropped

from augury.engine.replaying import PastRequest, begin_replay
from augury.routing import history as history_module
from augury.routing import replay
from augury.routing.backtest import backtest
from augury.routing.history import History
from augury.routing.replay import ReplayState, carry_on, get_replay, rule_version
from augury.routing.retention import Retention
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

KINDS: dict[str, dict[str, Any]] = {
    "batch": {"batch": {"max_events": 3, "max_wait_s": 60}, "group_by": ["folder(data.key)"]},
    "complete": {"complete": {"marker": "_SUCCESS"}, "group_by": ["folder(data.key)"]},
    "at_least": {"at_least": {"events": 4, "within_s": 600}},
}


@pytest.fixture
def world(
    database: Database, live_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GroupingWorld]:
    monkeypatch.setattr(history_module, "PAGE_EVENTS", 4)
    world = GroupingWorld(database, live_settings)
    world.job()
    for name, group in KINDS.items():
        world.rule(name, LANDED, group=group)
    keys = ["a/1", "a/2", "b/1", "a/3", "b/2", "a/4", "a/_SUCCESS", "b/3", "b/_SUCCESS", "c/1"]
    world.publish(*(dropped(key, id=f"e{n}") for n, key in enumerate(keys)))
    world.publish(dropped("a/1", id="again"))
    world.settle()
    yield world
    world.bus.close()


def contents(world: GroupingWorld, rule: str, epoch: str) -> list[list[str]]:
    """Event ids of each closed group of a rule in an epoch."""
    groups, members = tables.groups, tables.group_members
    select = (
        sa.select(groups.c.id, tables.events.c.event_id)
        .join(members, members.c.group_id == groups.c.id)
        .join(tables.lanes, tables.lanes.c.id == groups.c.lane_id)
        .join(tables.rules, tables.rules.c.id == groups.c.rule_id)
        .join(tables.events, tables.events.c.position == members.c.position)
        .where(tables.rules.c.name == rule, tables.lanes.c.epoch == epoch)
        .where(groups.c.state == "STARTED")
        .order_by(groups.c.first_order, members.c.entry_order)
    )
    found: dict[str, list[str]] = {}
    with world.database.read() as connection:
        for group_id, event_id in connection.execute(select):
            found.setdefault(group_id, []).append(event_id)
    return list(found.values())


def began(world: GroupingWorld, rule: str, **asked: Any) -> replay.Replay:
    request = PastRequest(rule=rule, epoch=f"again-{rule}", **asked)
    wired: Any = type("Wired", (), {"database": world.database, "settings": world.settings})
    return begin_replay(wired, History(world.database, world.settings), request)[0]


@pytest.mark.parametrize("rule", KINDS)
def test_a_replay_makes_the_groups_that_the_stream_made(world: GroupingWorld, rule: str) -> None:
    past, running = History(world.database, world.settings), began(world, rule)
    while running.state is ReplayState.RUNNING:
        carry_on(world.database, past, running)
        with world.database.read() as connection:
            running = get_replay(connection, running.id)
        if running.state is ReplayState.RUNNING:
            world.settle()  # while it appends, nothing is folded: to the stream it is all long past
            assert contents(world, rule, running.id) == []
            world.check()
    world.settle()
    assert contents(world, rule, running.id) == contents(world, rule, "0")
    assert len(contents(world, rule, "0")) >= 2
    epochs = {run.epoch: run.priority for run in world.rows(tables.runs)}
    assert epochs == {"0": 0, running.id: 10}
    world.check()


@pytest.mark.parametrize("rule", KINDS)
def test_a_backtest_counts_the_runs_of_groups(world: GroupingWorld, rule: str) -> None:
    row = next(row for row in world.rows(tables.rules) if row.name == rule)
    with world.database.read() as connection:
        version = rule_version(connection, row.id, row.version)
    found = backtest(
        world.database,
        world.settings,
        History(world.database, world.settings),
        version,
        with_rows=False,
    )
    (action,) = found.actions
    assert found.num_matched == 11
    assert action.num_runs == len(contents(world, rule, "0"))
    in_groups = sum(len(names) for names in contents(world, rule, "0"))
    assert sum(action.suppressed.values()) == 11 - in_groups
    assert action.dead == {}


def test_a_replays_model_goes_for_the_runs_of_groups(
    world: GroupingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_pinned", lambda _connection, model: model)
    running = began(world, "batch", model="other@7")
    while running.state is ReplayState.RUNNING:
        carry_on(world.database, History(world.database, world.settings), running)
        with world.database.read() as connection:
            running = get_replay(connection, running.id)
    world.settle()
    models = {(run.epoch, run.spec["model"]) for run in world.rows(tables.runs)}
    assert models == {("0", "m@champion"), ("again-batch", "other@7")}


def test_groups_whose_events_are_in_the_archive(world: GroupingWorld) -> None:
    """Their members stay, the audit knows, and a replay makes the groups again."""
    expected = contents(world, "batch", "0")
    where = {"retain_events_days": 1e-9, "archive_events": 4}
    mover = Retention(world.database, world.settings.model_copy(update=where))
    while mover.archive_once():
        pass
    kept = {row.event_id for row in world.rows(tables.events)}
    # only what is in a group that is still open
    assert kept & {f"e{n}" for n in range(10)} == {"e5", "e6", "e8", "e9"}
    world.check()
    running = began(world, "batch")
    while running.state is ReplayState.RUNNING:
        carry_on(world.database, History(world.database, world.settings), running)
        with world.database.read() as connection:
            running = get_replay(connection, running.id)
    world.settle()
    made = [len(inputs) for inputs in world.inputs()][-2:]
    assert made == [len(names) for names in expected]
    world.check()
