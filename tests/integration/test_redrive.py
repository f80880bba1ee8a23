"""Dead letters of both kinds: what they keep, and what a second try makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from effects_world import QUICK, Answer, EffectsWorld, Outside
from routing_world import dropped, event

from augury.errors import ConflictError, InvalidError, NotFoundError
from augury.resources import store
from augury.resources.store import Kind
from augury.routing import dead_letters
from augury.routing.redrive import redrive
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

LANDED = {"type": ["augury.object.created"]}


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[EffectsWorld]:
    world = EffectsWorld(database, live_settings)
    yield world
    world.bus.close()


def letters(world: EffectsWorld) -> list[Any]:
    return world.rows(tables.dead_letters)


def again(world: EffectsWorld, letter_id: str) -> dict[str, int]:
    _, woken = world.database.transact(lambda c: redrive(world.database, c, letter_id))
    return dict(woken)


def test_a_run_without_its_job_is_started_once_the_job_is_there(world: EffectsWorld) -> None:
    world.rule("r", LANDED, [{"start_run": {"job": "score", "mode": "batch"}}])
    world.publish(dropped("a", id="a"))
    world.drain()
    (letter,) = letters(world)
    assert (letter.kind, letter.reason, letter.attempts) == ("action", "no job named 'score'", 0)
    assert letter.request["job"] == "score"
    assert letter.request["input"] == [{"uri": "file:///in/a", "tag": "t1"}]
    with pytest.raises(NotFoundError, match="score"):
        again(world, letter.id)
    assert letters(world)[0].state == "OPEN"
    world.job()
    assert again(world, letter.id) == {"batch": 1}
    world.drain()
    assert world.states()[0][:2] == ("a", "STARTED")
    (run,) = world.rows(tables.runs)
    assert (run.outcome_id, run.position) == (letter.outcome_id, letter.position)
    assert letters(world)[0].state == "REDRIVEN"
    world.check_laws()
    with pytest.raises(ConflictError, match="found REDRIVEN"):
        again(world, letter.id)


def test_an_object_that_was_handled_meanwhile_is_not_handled_twice(world: EffectsWorld) -> None:
    world.rule("r", LANDED)
    world.publish(dropped("a", id="first"))
    world.drain()
    world.job()
    world.publish(dropped("a", id="second"))
    world.drain()
    assert again(world, letters(world)[0].id) == {}
    assert {(name, state) for name, state, _ in world.states() if name in ("first", "second")} == {
        ("first", "SUPPRESSED"),
        ("second", "STARTED"),
    }
    world.check_laws()


def test_an_effect_is_delivered_by_the_rule_as_it_is_now(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    world = effects_world
    gone, found = outside.will("/gone", Answer(410)), outside.url + "/found"
    action = {"notify": {"webhook": {"url": gone}, "retry": QUICK}}
    world.owe(action, events=[event(id="a")])
    dispatcher = world.dispatcher()
    world.settle(dispatcher)
    (letter,) = letters(world)
    world.rule("r", {"type": ["acme.thing"]}, [{"notify": {"webhook": {"url": found}}}])
    assert again(world, letter.id) == {}
    assert world.states() == [("a", "QUEUED", None)]
    world.settle(dispatcher)
    assert world.states() == [("a", "DELIVERED", None)]
    ids = {request.headers["webhook-id"] for request in outside.received}
    assert ids == {letter.outcome_id}
    (effect,) = world.effects()
    assert (effect.attempts, effect.rule_version, effect.token) == (1, 2, 2)


def test_an_effect_that_dies_again_is_another_letter(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    world = effects_world
    outside.always["/gone"] = Answer(410)
    world.owe({"notify": {"webhook": {"url": outside.url + "/gone"}}}, events=[event(id="a")])
    dispatcher = world.dispatcher()
    world.settle(dispatcher)
    again(world, letters(world)[0].id)
    world.settle(dispatcher)
    assert [letter.state for letter in letters(world)] == ["REDRIVEN", "OPEN"]


def test_an_action_that_could_not_be_filled_can_be_mended(effects_world: EffectsWorld) -> None:
    world = effects_world
    body = {"url": "https://example.com/", "body": {"n": "${data.n}"}}
    world.owe({"notify": {"webhook": body}}, events=[event(id="a")])
    (letter,) = letters(world)
    assert letter.request is None
    with pytest.raises(InvalidError, match=r"nothing at data\.n"):
        again(world, letter.id)
    world.rule("r", {"type": ["acme.thing"]}, [{"notify": {"webhook": {**body, "body": {}}}}])
    again(world, letter.id)
    assert world.states() == [("a", "QUEUED", None)]


def test_without_its_rule_or_action_nobody_says_what_to_do(effects_world: EffectsWorld) -> None:
    world = effects_world
    world.rule("r", {"type": ["acme.thing"]})
    world.publish(event(id="a"))
    world.drain()
    (letter,) = letters(world)
    world.rule("r", {"type": ["acme.thing"]}, [{"name": "x", "start_run": {"job": "score"}}])
    with pytest.raises(ConflictError, match="has no action 'start_run' any more"):
        again(world, letter.id)
    world.drop_rule("r")
    with pytest.raises(ConflictError, match="was deleted"):
        again(world, letter.id)
    found = world.database.transact(lambda c: dead_letters.discard(world.database, c, letter.id))
    assert found.state == "DISCARDED"
    assert world.states() == [("a", "DISCARDED", "no job named 'score'")]


def test_a_job_that_refuses_the_overrides_is_named(effects_world: EffectsWorld) -> None:
    world = effects_world
    world.job()
    world.rule("r", {"type": ["acme.thing"]}, [{"start_run": {"job": "none"}}])
    world.publish(event(id="a"))
    world.drain()
    broken = {"model": "", "output": "file:///out/"}
    world.database.transact(lambda c: store.put(world.database, c, Kind.JOB, "none", broken))
    with pytest.raises(InvalidError, match="model"):
        again(world, letters(world)[0].id)
    listed = world.database.transact(
        lambda c: dead_letters.list_dead_letters(c, kind="action", state="OPEN")  # type: ignore[arg-type]
    )
    assert [letter.outcome_id for letter in listed] == [letters(world)[0].outcome_id]
