"""What an action outside Augury leaves in the ledger when an event is routed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from routing_world import World, dropped, event

from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

HOOK = {"notify": {"webhook": {"url": "https://hooks.example.com/x", "body": {"n": "${data.n}"}}}}


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[World]:
    world = World(database, live_settings)
    yield world
    world.bus.close()


def test_an_effect_is_owed_from_the_transaction_of_its_outcome(world: World) -> None:
    world.job()
    rule_id = world.rule("r", {"type": ["acme.thing"]}, [HOOK, {"start_run": {"job": "score"}}])
    world.publish(event(id="a", n=1))
    world.router().step()
    assert world.outcomes() == [
        ("a", "notify", "QUEUED", None),
        ("a", "start_run", "STARTED", None),
    ]
    (effect,) = world.rows(tables.effects)
    (outcome,) = world.rows(tables.outcomes, tables.outcomes.c.state == "QUEUED")
    assert (effect.id, effect.position) == (outcome.id, outcome.position)
    assert (effect.rule_id, effect.rule_version, effect.action) == (rule_id, 1, "notify")
    assert (effect.kind, effect.target) == ("webhook", "https://hooks.example.com")
    assert effect.request["body"] == {"n": 1}
    assert (effect.state, effect.attempts, effect.token) == ("WAITING", 0, 0)
    assert effect.next_attempt_at == effect.queued_at < effect.expires_at


def test_the_same_event_or_object_owes_nothing_twice(world: World) -> None:
    world.rule("r", {"type": ["acme.thing"]}, [HOOK])
    told = {"notify": {"webhook": {"url": "https://hooks.example.com/x"}}}
    world.rule("landed", {"type": ["augury.object.created"]}, [told])
    world.publish(
        event(id="a", n=1), event(id="a", n=1), dropped("k", id="b"), dropped("k", id="c")
    )
    world.drain()
    assert world.outcomes() == [
        ("a", "notify", "QUEUED", None),
        ("a", "notify", "SUPPRESSED", "duplicate"),
        ("b", "notify", "QUEUED", None),
        ("c", "notify", "SUPPRESSED", "same object"),
    ]
    assert len(world.rows(tables.effects)) == 2


def test_an_event_that_does_not_fill_the_action_is_dead_and_owes_nothing(world: World) -> None:
    world.rule("r", {"type": ["acme.thing"]}, [HOOK])
    world.publish(event(id="a"))
    world.drain()
    ((_, _, state, reason),) = world.outcomes()
    assert state == "DEAD"
    assert "nothing at data.n" in str(reason)
    assert world.rows(tables.effects) == []
