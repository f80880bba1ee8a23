"""A rule in shadow says what it would do, does nothing, and keeps nothing from acting later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from routing_world import World, dropped, event

from augury.monitoring.audit import audit
from augury.routing.arrivals import read_deliveries
from augury.routing.decisions import ActiveRules
from augury.routing.outcomes import write_outcomes
from augury.rules.ruleset import load_ruleset
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

LANDED = {"type": ["augury.object.created"]}


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[World]:
    world = World(database, live_settings)
    world.job()
    yield world
    world.bus.close()


def test_shadow_records_what_it_would_have_done(world: World) -> None:
    actions = [
        {"start_run": {"job": "score"}},
        {"name": "lost", "start_run": {"job": "missing"}},
        {"name": "unfilled", "start_run": {"job": "score", "output": "${data.no}"}},
        {"notify": {"webhook": {"url": "https://example.com/hook"}}},
    ]
    world.rule("landing", LANDED, actions, shadow=True)
    world.publish(dropped("a", id="1"), dropped("a", id="2"))
    world.drain()
    found = {(event_id, action): (state, reason) for event_id, action, state, reason
             in world.outcomes()}  # fmt: skip
    assert found["1", "start_run"] == ("SHADOW", "would start job 'score' on file:///in/a")
    assert found["1", "lost"] == ("SHADOW", "would fail: no job named 'missing'")
    state, reason = found["1", "unfilled"]
    assert state == "SHADOW"
    assert reason is not None
    assert reason.startswith("would fail: the event does not fill")
    assert found["1", "notify"] == ("SHADOW", "would deliver webhook to https://example.com")
    assert found["2", "start_run"] == ("SUPPRESSED", "same object")
    assert world.rows(tables.runs) == []
    assert world.rows(tables.effects) == []
    assert audit(world.database, world.bus, world.settings).violations == ()


def test_out_of_the_shadow_the_same_object_acts(world: World) -> None:
    world.rule("landing", LANDED, shadow=True)
    world.publish(dropped("a", id="1"))
    world.drain()
    world.rule("landing", LANDED)
    world.publish(dropped("a", id="2"))
    world.drain()
    assert [row[:1] + row[2:3] for row in world.outcomes()] == [("1", "SHADOW"), ("2", "STARTED")]
    assert audit(world.database, world.bus, world.settings).violations == ()


def test_another_epoch_decides_the_same_event_anew_and_once(world: World) -> None:
    world.rule("landing", LANDED)
    world.publish(dropped("a", id="1"), event(id="2"))
    deliveries = world.bus.entries("", 10)
    world.drain()
    arrivals, _ = read_deliveries(deliveries)
    with world.database.read() as connection:
        rules = ActiveRules(load_ruleset(connection, 1))
    positions = {row.event_id: row.position for row in world.rows(tables.events)}
    decided = [
        (positions[decision.arrival.event_id], intent)
        for decision in rules.decide(arrivals)
        for intent in decision.intents
    ]
    started = world.database.transact(
        lambda c: write_outcomes(world.database, c, decided, epoch="again", duplicates={})
    )
    assert dict(started) == {"mini_batch": 1}
    found = [(row.epoch, row.state) for row in world.rows(tables.outcomes)]
    assert sorted(found) == [("0", "STARTED"), ("again", "STARTED")]
    assert len({row.run_key for row in world.rows(tables.runs)}) == 2
    found_by_audit = audit(world.database, world.bus, world.settings).violations
    # there is no row of a replay here; else nothing is wrong
    assert {violation.check for violation in found_by_audit} == {"replay_epoch"}
