"""Webhooks against a real server with faults: what is sent, what is tried again, what ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from effects_world import QUICK, Answer, EffectsWorld, Outside, running
from routing_world import event

from augury import clock
from augury.actions import effects
from augury.actions.webhook import sign
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[EffectsWorld]:
    world = EffectsWorld(database, live_settings)
    yield world
    world.bus.close()


def webhook(url: str, **fields: Any) -> dict[str, Any]:
    retry = fields.pop("retry", QUICK)
    return {"notify": {"webhook": {"url": url, **fields}, "retry": retry}}


def test_a_signed_webhook_arrives_once_under_the_outcomes_id(
    world: EffectsWorld, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_SECRET_HOOK_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    monkeypatch.setenv("AUGURY_SECRET_TOKEN", "Bearer s3cret")
    action = webhook(
        outside.url + "/hook?x=1",
        signing_secret="HOOK_KEY",
        headers={"x-kind": "${type}"},
        secret_headers={"authorization": "TOKEN"},
    )
    sent = event(id="a", n=1)
    world.owe(action, events=[sent])
    world.settle(world.dispatcher())
    (request,) = outside.received
    (effect,) = world.effects()
    assert (request.path, request.json()) == ("/hook?x=1", sent)
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == effect.id
    assert request.headers["x-kind"] == "acme.thing"
    assert request.headers["authorization"] == "Bearer s3cret"
    timestamp = int(request.headers["webhook-timestamp"])
    assert abs(timestamp - clock.utc_now().timestamp()) < 60
    expected = sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", effect.id, timestamp, request.body)
    assert request.headers["webhook-signature"] == expected
    assert world.states() == [("a", "DELIVERED", None)]
    assert (effect.state, effect.attempts, effect.worker_id) == ("DELIVERED", 1, None)
    assert effect.queued_at <= effect.first_attempt_at <= effect.done_at
    assert "s3cret" not in str(effect)


def test_transient_failures_are_tried_again_under_the_same_id(
    world: EffectsWorld, outside: Outside
) -> None:
    faults = [Answer(500), Answer(reset=True), Answer(408)]
    world.owe(webhook(outside.will("/flaky", *faults)), events=[event(id="a")])
    dispatcher = world.dispatcher()
    world.until(lambda: world.states()[0][1] == "RETRYING", dispatcher)
    assert "answered with 500: ok" in str(world.states()[0][2])
    world.settle(dispatcher)
    assert world.states() == [("a", "DELIVERED", None)]
    assert len({request.headers["webhook-id"] for request in outside.to("/flaky")}) == 1
    assert (len(outside.to("/flaky")), world.effects()[0].attempts) == (4, 4)


def test_a_slow_answer_is_a_failure_and_holds_nobody_else(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    """Byte by byte or not at all: the whole exchange has one deadline."""
    world = effects_world
    wait = threading.Event()
    slow = webhook(outside.will("/slow", Answer(wait=wait)), timeout_s=0.2) | {"name": "slow"}
    world.owe(slow, webhook(outside.url + "/quick"), events=[event(id="a")])
    dispatcher = world.dispatcher()
    world.until(lambda: outside.to("/quick"), dispatcher)
    world.until(lambda: ("a", "RETRYING", "no answer within 0.2 s") in world.states(), dispatcher)
    wait.set()
    world.settle(dispatcher)
    assert {state for _, state, _ in world.states()} == {"DELIVERED"}


def test_retry_after_is_honoured(effects_world: EffectsWorld, outside: Outside) -> None:
    """Also by what else waits for the same target."""
    world = effects_world
    limited = Answer(429, {"retry-after": "1"})
    url = outside.will("/limited", limited)
    world.owe(webhook(url), events=[event(id="a")])
    dispatcher = world.dispatcher()
    world.until(lambda: world.states()[0][1] == "RETRYING", dispatcher)
    (effect,) = world.effects()
    assert (effect.next_attempt_at - effect.last_attempt_at).total_seconds() >= 1.0
    world.publish(event(id="b"))
    world.drain()
    dispatcher.step()
    assert len(outside.to("/limited")) == 1
    world.settle(dispatcher)
    assert [state for _, state, _ in world.states()] == ["DELIVERED", "DELIVERED"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(400, body=b"no such field"), "answered with 400: no such field"),
        (Answer(404), "answered with 404: ok"),
        (Answer(410), "answered with 410: ok"),
        (Answer(302, {"location": "http://169.254.169.254/"}), "which is never followed"),
    ],
)
def test_permanent_failures_are_dead_at_once(
    effects_world: EffectsWorld, outside: Outside, answer: Answer, reason: str
) -> None:
    world = effects_world
    world.owe(
        webhook(outside.will("/dead", answer), body={"n": "${data.n}"}), events=[event(id="a", n=7)]
    )
    world.settle(world.dispatcher())
    ((_, state, why),) = world.states()
    assert state == "DEAD"
    assert reason in str(why)
    (letter,) = world.rows(tables.dead_letters)
    assert (letter.kind, letter.state, letter.attempts, letter.reason) == ("action", "OPEN", 1, why)
    assert (letter.rule_version, letter.action) == (1, "notify")
    assert letter.request["body"] == {"n": 7}
    assert '"id":"a"' in letter.payload
    assert len(outside.to("/dead")) == 1


def test_the_budget_ends_what_never_works(effects_world: EffectsWorld, outside: Outside) -> None:
    world = effects_world
    outside.always["/never"] = Answer(503)
    by_number = webhook(outside.url + "/never", retry={**QUICK, "max_attempts": 3})
    by_time = webhook(outside.url + "/never", retry={"first_delay_s": 9, "max_time_s": 1})
    world.owe(by_number, by_time | {"name": "timed"}, events=[event(id="a")])
    world.settle(world.dispatcher())
    reasons = {action: str(reason) for _, action, state, reason in world.outcomes()}
    assert "(given up after 3 attempts)" in reasons["notify"]
    assert "(given up: the next attempt would come after its time, 1 s)" in reasons["timed"]
    assert sorted(effect.attempts for effect in world.effects()) == [1, 3]
    assert len(world.rows(tables.dead_letters)) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "127.1", "0x7f.1"])
def test_addresses_that_are_not_public_are_never_reached(
    effects_world: EffectsWorld, outside: Outside, host: str
) -> None:
    world = effects_world
    port = outside.url.rpartition(":")[2]
    world.owe(webhook(f"http://{host}:{port}/inside"), events=[event(id="a")])
    world.settle(world.dispatcher(webhook_networks=""))
    ((_, state, reason),) = world.states()
    assert (state, "not a public address" in str(reason)) == ("DEAD", True)
    assert outside.received == []


def test_a_missing_secret_is_named_and_a_present_one_never_shown(
    effects_world: EffectsWorld, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = effects_world
    secret_path = "/services/T0/B0/very-secret"
    monkeypatch.setenv("AUGURY_SECRET_SLACK_HOOK", outside.url + secret_path)
    outside.always[secret_path] = Answer(404, body=f"no hook at {secret_path}".encode())
    missing = {"notify": {"slack": {"url_secret": "NOBODY", "text": "t"}}, "name": "missing"}
    slack = {"notify": {"slack": {"url_secret": "SLACK_HOOK", "text": "${id} ${data.n}"}}}
    world.owe(missing, slack, events=[event(id="a", n=3)])
    world.settle(world.dispatcher())
    reasons = {action: str(reason) for _, action, _, reason in world.outcomes()}
    assert "give AUGURY_SECRET_NOBODY to the process" in reasons["missing"]
    assert reasons["notify"] == "answered with 404: no hook at ***"
    (request,) = outside.to(secret_path)
    assert request.json() == {"text": "a 3"}
    assert "very-secret" not in str(world.rows(tables.dead_letters))


def test_a_dead_target_costs_an_attempt_now_and_then(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    """After five failures in a row its circuit is open; the others do not even notice."""
    world = effects_world
    outside.always["/broken"] = Answer(500)
    slow = {"first_delay_s": 60}
    world.rule("broken", {"type": ["acme.thing"]}, [webhook(outside.url + "/broken", retry=slow)])
    world.publish(*(event(id=f"e{number}") for number in range(30)))
    world.drain()
    dispatcher = world.dispatcher()
    world.until(lambda: len(outside.to("/broken")) >= 5, dispatcher)
    world.until(lambda: not dispatcher._in_flight, dispatcher)
    for _ in range(20):
        dispatcher.step()
        clock.sleep_s(0.005)
    assert 5 <= len(outside.to("/broken")) <= 5 + world.settings.dispatch_concurrency
    others = Outside()
    try:
        world.rule("fine", {"type": ["acme.other"]}, [webhook(others.url + "/fine")])
        world.publish(event("acme.other", id="other"))
        world.drain()
        world.until(lambda: others.to("/fine"), dispatcher)
    finally:
        others.close()


def test_what_waits_for_a_broken_target_ends_with_its_time(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    world = effects_world
    outside.always["/broken"] = Answer(500)
    retry = {**QUICK, "max_time_s": 0.3, "max_attempts": 2}
    world.owe(
        webhook(outside.url + "/broken", retry=retry), events=[event(id=f"e{n}") for n in range(40)]
    )
    world.settle(world.dispatcher())
    reasons = [str(reason) for _, _, reason in world.states()]
    assert {state for _, state, _ in world.states()} == {"DEAD"}
    assert any("its time is over, and http://127.0.0.1" in reason for reason in reasons)
    assert len(world.rows(tables.dead_letters)) == 40


def test_two_dispatchers_deliver_each_effect_once(world: EffectsWorld, outside: Outside) -> None:
    world.owe(webhook(outside.url + "/x"), events=[event(id=f"e{n}") for n in range(60)])
    with running(world.dispatcher()), running(world.dispatcher()):
        world.until(lambda: not world.open())
    ids = [request.headers["webhook-id"] for request in outside.to("/x")]
    assert len(ids) == len(set(ids)) == 60
    workers = world.rows(tables.workers, tables.workers.c.stopped_at.is_(None))
    assert workers == []


def test_a_lost_dispatcher_is_fenced_off(world: EffectsWorld, outside: Outside) -> None:
    """What it held is delivered by another one under the same id; its late report is nothing."""
    wait = threading.Event()
    world.owe(webhook(outside.will("/x", Answer(wait=wait))), events=[event(id="a")])
    lost = world.dispatcher()
    lost.step()
    world.until(lambda: outside.to("/x"))
    (row,) = world.rows(tables.workers)
    held = world.database.transact(
        lambda c: effects.expire(world.database, c, lost.id, row.heartbeat)
    )
    assert [effect.attempts for effect in held] == [1]
    heir = world.dispatcher()
    world.until(lambda: len(outside.to("/x")) == 2, heir)
    world.until(lambda: world.states() == [("a", "DELIVERED", None)], heir)
    wait.set()
    world.until(lambda: not lost._in_flight, lost)
    lost.step()
    (effect,) = world.effects()
    assert (effect.state, effect.attempts, effect.token) == ("DELIVERED", 2, 2)
    assert len({request.headers["webhook-id"] for request in outside.to("/x")}) == 1


def test_a_dispatcher_that_stops_ends_what_has_begun(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    world = effects_world
    wait = threading.Event()
    world.owe(webhook(outside.will("/x", Answer(wait=wait))), events=[event(id="a")])
    with running(world.dispatcher()):
        world.until(lambda: outside.to("/x"))
        threading.Timer(0.1, wait.set).start()
    assert world.states() == [("a", "DELIVERED", None)]


def test_a_dispatcher_that_must_stop_counts_what_it_cuts_off(
    effects_world: EffectsWorld, outside: Outside
) -> None:
    world = effects_world
    wait = threading.Event()
    world.owe(webhook(outside.will("/x", Answer(wait=wait))), events=[event(id="a")])
    with running(world.dispatcher(drain_s=0.1)):
        world.until(lambda: outside.to("/x"))
    wait.set()
    assert world.states() == [("a", "RETRYING", "the dispatcher had to stop before an answer came")]
    (effect,) = world.effects()
    assert (effect.state, effect.attempts, effect.worker_id) == ("WAITING", 1, None)


def test_tls_is_verified_against_the_name_not_the_address(
    effects_world: EffectsWorld, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = effects_world
    secure = Outside(certificate)
    try:
        right = webhook(secure.url.replace("127.0.0.1", "localhost") + "/right")
        wrong = webhook(secure.url + "/wrong", retry={"first_delay_s": 60}) | {"name": "wrong"}
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        world.owe(right, wrong, events=[event(id="a")])
        dispatcher = world.dispatcher()
        world.until(
            lambda: {state for _, state, _ in world.states()} == {"DELIVERED", "RETRYING"},
            dispatcher,
        )
    finally:
        secure.close()
    reasons = {action: str(reason) for _, action, _, reason in world.outcomes()}
    assert "certificate verify failed" in reasons["wrong"]
    assert [request.path for request in secure.received] == ["/right"]
