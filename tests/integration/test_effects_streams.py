"""Messages into a real Redis stream and real brokers, RabbitMQ among them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
import redis
from effects_world import QUICK, EffectsWorld
from routing_world import event

from augury.storage import tables

RABBIT = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")  # noqa: TID251
_IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}  # noqa: TID251


@pytest.fixture
def rabbit(effects_world: EffectsWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection to the machine's RabbitMQ; rules call it $RABBIT."""
    try:
        socket.create_connection(("127.0.0.1", 5672), timeout=1).close()
    except OSError:
        if _IN_CI:
            pytest.fail("CI has no RabbitMQ, which it must have")
        pytest.skip("RabbitMQ does not answer")
    monkeypatch.setenv("AUGURY_SECRET_RABBIT", RABBIT)
    with kombu.Connection(RABBIT) as connection:
        yield connection


def test_an_entry_of_a_redis_stream(effects_world: EffectsWorld, bus_url: str) -> None:
    key = f"{effects_world.settings.namespace}:out"
    target = {"url": bus_url, "stream": key, "max_length": 100, "body": {"n": "${data.n}"}}
    effects_world.owe({"stream": {"redis": target}}, events=[event(id="a", n=5)])
    effects_world.settle(effects_world.dispatcher())
    (effect,) = effects_world.effects()
    with redis.Redis.from_url(bus_url, decode_responses=True) as client:
        ((_, fields),) = client.xrange(key)
        assert fields == {"id": effect.id, "type": "acme.thing", "body": '{"n":5}'}
        client.set(f"{key}:text", "no stream")
    wrong = {"stream": {"redis": target | {"stream": f"{key}:text"}}, "name": "wrong"}
    effects_world.owe(wrong, events=[event(id="b", n=5)])
    effects_world.settle(effects_world.dispatcher())
    assert ("b", "DEAD") in {(name, state) for name, state, _ in effects_world.states()}


def test_a_message_of_rabbitmq_is_confirmed_and_durable(
    effects_world: EffectsWorld, rabbit: Any
) -> None:
    name = effects_world.settings.namespace
    queue = kombu.Queue(f"{name}.q", kombu.Exchange(""), routing_key=f"{name}.q", auto_delete=True)
    bound = queue(rabbit.channel())
    bound.declare()
    sent = event(id="a", n=5)
    effects_world.owe(
        {"stream": {"queue": {"url_secret": "RABBIT", "queue": f"{name}.q"}}}, events=[sent]
    )
    effects_world.settle(effects_world.dispatcher())
    assert effects_world.states() == [("a", "DELIVERED", None)]
    message = bound.get(no_ack=True)
    (effect,) = effects_world.effects()
    bound.delete()
    assert message.properties["message_id"] == message.headers["augury-id"] == effect.id
    assert message.properties["delivery_mode"] == 2
    assert message.content_type == "application/cloudevents+json"
    assert kombu.utils.json.loads(message.body) == sent


def test_an_exchange_routes_by_key(effects_world: EffectsWorld, rabbit: Any) -> None:
    name = effects_world.settings.namespace
    channel = rabbit.channel()
    exchange = kombu.Exchange(f"{name}.x", "topic", durable=False, auto_delete=True)
    bound = kombu.Queue(f"{name}.t", exchange, routing_key="score.#", exclusive=True)(channel)
    bound.declare()
    target = {"url_secret": "RABBIT", "exchange": f"{name}.x", "routing_key": "score.${data.n}"}
    effects_world.owe({"stream": {"queue": target}}, events=[event(id="a", n=5)])
    effects_world.settle(effects_world.dispatcher())
    message = bound.get(no_ack=True)
    assert message.delivery_info["routing_key"] == "score.5"


def test_a_message_that_no_queue_takes_is_not_swallowed(
    effects_world: EffectsWorld, rabbit: Any
) -> None:
    nowhere = {"url_secret": "RABBIT", "queue": f"{effects_world.settings.namespace}.nowhere"}
    no_exchange = {"url_secret": "RABBIT", "exchange": "no-such-exchange"}
    effects_world.owe(
        {"stream": {"queue": nowhere, "retry": QUICK}},
        {"stream": {"queue": no_exchange, "retry": QUICK}, "name": "lost"},
        events=[event(id="a")],
    )
    effects_world.settle(effects_world.dispatcher())
    reasons = {action: str(reason) for _, action, _, reason in effects_world.outcomes()}
    assert "no queue takes it" in reasons["stream"]
    assert "NOT_FOUND" in reasons["lost"]
    assert {effect.attempts for effect in effects_world.effects()} == {1}
    assert "guest:guest" not in str(effects_world.rows(tables.dead_letters))


def test_other_brokers_that_kombu_speaks(effects_world: EffectsWorld, redis_url: str) -> None:
    name = f"{effects_world.settings.namespace}.q"
    effects_world.owe(
        {"stream": {"queue": {"url": redis_url, "queue": name}}},
        {"stream": {"queue": {"url": "carrier-pigeon://x", "queue": name}}, "name": "pigeon"},
        {"stream": {"queue": {"url": "amqp://127.0.0.1:1//", "queue": name}}, "name": "away"},
        events=[event(id="a")],
    )
    dispatcher = effects_world.dispatcher()
    found: dict[str, tuple[str, str | None]] = {}

    def attempted() -> bool:
        found.update({a: (state, reason) for _, a, state, reason in effects_world.outcomes()})
        return all(state != "QUEUED" for state, _ in found.values())

    effects_world.until(attempted, dispatcher)
    assert found["stream"] == ("DELIVERED", None)
    assert found["pigeon"][0] == "DEAD"
    assert "no broker of this kind" in str(found["pigeon"][1])
    assert found["away"][0] == "RETRYING"
    with kombu.Connection(redis_url) as connection:
        message = connection.SimpleQueue(name).get(timeout=5)
        delivered = tables.effects.c.action == "stream"
        (effect,) = effects_world.rows(tables.effects, delivered)
        assert message.headers["augury-id"] == effect.id
        message.ack()
