"""Foreign queues, on the real RabbitMQ and others: acknowledged once durable, told once."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import notifications as sent
import pytest
from kombu import Connection
from sources_world import SourcesWorld, wait_until

from augury.bus.redis_bus import RedisBus
from augury.errors import UnavailableError
from augury.resources.store import Resource
from augury.settings import Settings
from augury.sources.queues import QueueConsumer
from augury.sources.spec import SourceSpec
from augury.sources.store import apply_source
from augury.storage import tables
from augury.storage.database import Database

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"
_numbers = itertools.count()


@pytest.fixture
def world(sqlite_database: Database, settings: Settings, bus_url: str) -> Iterator[SourcesWorld]:
    urls = {"database_url": sqlite_database.url, "redis_url": bus_url}
    world = SourcesWorld(sqlite_database, settings.model_copy(update=urls))
    yield world
    world.bus.close()


class Foreign:
    """A queue of this test's own on a foreign broker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"augury-test-{os.getpid()}-{next(_numbers)}"
        self.connection = Connection(url)
        self.queue = self.connection.SimpleQueue(self.name)

    def send(self, *bodies: Any, **properties: Any) -> None:
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields = {"content_type": "", "content_encoding": "binary", **properties}
            self.queue.producer.publish(raw, **fields)

    def left(self) -> int:
        """Messages that nobody has taken."""
        return int(self.queue.qsize())

    def close(self) -> None:
        self.queue.queue.delete()
        self.queue.close()
        self.connection.close()


@pytest.fixture
def rabbit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Foreign]:
    try:
        socket.create_connection(("127.0.0.1", 5672), timeout=1).close()
    except OSError:
        pytest.skip("RabbitMQ at 127.0.0.1:5672 does not answer")
    monkeypatch.setenv("AUGURY_SECRET_RABBIT", RABBITMQ)
    foreign = Foreign(RABBITMQ)
    yield foreign
    foreign.close()


def source(world: SourcesWorld, foreign: Foreign, **fields: Any) -> Resource:
    where = {"url_secret": "RABBIT"} if foreign.url == RABBITMQ else {"url": foreign.url}
    spec = SourceSpec(**{"kind": "queue", "queue": foreign.name, **where, **fields})
    resource, _ = world.database.transact(lambda c: apply_source(world.database, c, "orders", spec))
    return resource


def consumer(world: SourcesWorld, foreign: Foreign, **fields: Any) -> QueueConsumer:
    return QueueConsumer(
        world.database, world.bus, world.settings, source(world, foreign, **fields)
    )


def consume(consumer: QueueConsumer, count: int) -> None:
    """Steps until so many messages are acknowledged."""
    done = 0

    def enough() -> bool:
        nonlocal done
        done += consumer.step(0.2)
        return done >= count

    wait_until(enough)
    assert done == count


def test_everything_a_queue_holds_reaches_the_bus(world: SourcesWorld, rabbit: Foreign) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order.placed"}
    rabbit.send(event, content_type="application/cloudevents+json")
    rabbit.send({"n": 1}, {"n": 2}, b"\xff")
    found = consumer(world, rabbit)
    consume(found, 4)
    found.close()
    assert rabbit.left() == 0
    assert [e["id"] for e in world.on_bus("shop.")] == ["1"]
    received = world.on_bus("augury.message.received")
    assert [e.get("data", e.get("data_base64")) for e in received] == [{"n": 1}, {"n": 2}, "/w=="]
    assert {e["source"] for e in received} == {"augury/sources/orders"}


def test_notifications_become_events_about_objects(world: SourcesWorld, rabbit: Foreign) -> None:
    rabbit.send(sent.SNS, sent.S3, sent.S3_TEST, sent.S3_REMOVED)
    found = consumer(world, rabbit, provider="s3")
    consume(found, 4)
    found.close()
    assert world.told() == [("created", "in/day one/café+1.parquet"), ("deleted", "in/a.parquet")]
    assert len(world.on_bus("augury.object.")) == 2
    assert [e["data"] for e in world.on_bus("augury.message.received")] == [sent.S3_TEST]


def test_what_was_not_acknowledged_is_a_duplicate_when_it_comes_again(
    world: SourcesWorld, rabbit: Foreign
) -> None:
    rabbit.send({"n": 1}, sent.S3)
    found = consumer(world, rabbit, provider="s3")
    found._drain(5.0)
    wait_until(lambda: len(found._held) == 2 or found._drain(0.2))
    found._store([found._read(_plain(message)) for message in found._held])
    found.close()  # as a crash between the commit and the acknowledgement
    consume(found, 2)
    found.close()
    one, same = world.on_bus("augury.message.received")
    assert one == same  # the ledger knows (source, id)
    assert len(world.told()) == 1
    assert rabbit.left() == 0


def _plain(message: Any) -> Any:
    from augury.sources.queues import _message

    return _message(message)


def test_poison_goes_to_the_dead_letters_and_the_rest_is_taken(
    world: SourcesWorld, rabbit: Foreign
) -> None:
    rabbit.send(b"{", {"n": 1}, b"{", content_type="application/json")
    rabbit.send({"x": "x" * 300_000})
    found = consumer(world, rabbit)
    consume(found, 4)
    found.close()
    assert rabbit.left() == 0
    assert len(world.on_bus("augury.message.received")) == 1
    letters = world.rows(tables.dead_letters)
    assert sorted(len(letter.payload) for letter in letters) == [1, 300_009]
    assert {letter.state for letter in letters} == {"OPEN"}
    assert any("expected JSON" in letter.reason for letter in letters)


def test_nothing_is_acknowledged_that_is_not_durable(
    world: SourcesWorld, rabbit: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbit.send({"n": 1})
    found = consumer(world, rabbit)

    def down(self: RedisBus, bodies: Any) -> Any:
        raise UnavailableError("the bus is down")

    with monkeypatch.context() as patch:
        patch.setattr(RedisBus, "publish", down)
        with pytest.raises(UnavailableError):
            consume(found, 1)
        found.close()
    wait_until(lambda: rabbit.left() == 1)
    consume(found, 1)
    found.close()
    assert len(world.on_bus("augury.message.received")) == 1


def test_one_message_that_cannot_be_taken_does_not_stop_the_others(
    world: SourcesWorld, rabbit: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = RedisBus.publish

    def cursed(self: RedisBus, bodies: list[bytes]) -> Any:
        if any(b"cursed" in body for body in bodies):
            raise ValueError("no bus can hold this")
        return publish(self, bodies)

    monkeypatch.setattr(RedisBus, "publish", cursed)
    rabbit.send({"n": 1}, {"n": "cursed"}, {"n": 2})
    found = consumer(world, rabbit)
    consume(found, 3)
    found.close()
    assert [e["data"]["n"] for e in world.on_bus("augury.message.received")] == [1, 2]
    (letter,) = world.rows(tables.dead_letters)
    assert "no bus can hold this" in letter.reason


def test_no_more_than_prefetch_is_held(world: SourcesWorld, rabbit: Foreign) -> None:
    rabbit.send(*({"n": n} for n in range(10)))
    found = consumer(world, rabbit, prefetch=3)
    found._drain(5.0)
    wait_until(lambda: len(found._held) == 3 or found._drain(0.2))
    wait_until(lambda: rabbit.left() == 7)
    found.close()
    wait_until(lambda: rabbit.left() == 10)


def test_a_queue_that_does_not_exist_is_said_and_waited_for(
    world: SourcesWorld, rabbit: Foreign
) -> None:
    found = consumer(world, rabbit, queue=f"{rabbit.name}-missing")
    with pytest.raises(UnavailableError, match="NOT_FOUND"):
        found.step()
    found.close()
    assert rabbit.left() == 0


def test_a_running_process_reconnects(world: SourcesWorld, rabbit: Foreign) -> None:
    resource = source(world, rabbit)
    found = QueueConsumer(world.database, world.bus, world.settings, resource)
    stop = threading.Event()
    thread = threading.Thread(target=found.run, args=(stop,))
    thread.start()
    try:
        rabbit.send({"n": 1})
        wait_until(lambda: len(world.on_bus("augury.message.received")) == 1)
        found._connection.connection.sock.shutdown(socket.SHUT_RDWR)
        rabbit.send({"n": 2})
        wait_until(lambda: len(world.on_bus("augury.message.received")) == 2)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("transport", ["redis", "memory"])
def test_other_transports_of_kombu(world: SourcesWorld, transport: str, redis_url: str) -> None:
    foreign = Foreign(redis_url if transport == "redis" else "memory://")
    try:
        foreign.send({"n": 1}, {"n": 2})
        found = consumer(world, foreign)
        consume(found, 2)
        found.close()
        data = [event["data"] for event in world.on_bus("augury.message.received")]
        assert data == [{"n": 1}, {"n": 2}]
    finally:
        foreign.close()


def test_augury_sources_runs_them(world: SourcesWorld, rabbit: Foreign) -> None:
    with world.running():
        source(world, rabbit)
        rabbit.send({"n": 1})
        wait_until(lambda: world.on_bus("augury.message.received"))
    assert rabbit.left() == 0
