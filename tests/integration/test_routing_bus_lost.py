"""A bus that forgets: what the ledger says about it, and what is sent again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
import sqlalchemy as sa
from routing_world import World, event

from augury import clock
from augury.bus.outbox import emit
from augury.bus.redis_bus import RedisBus
from augury.bus.relay import Relay, flush
from augury.errors import UnavailableError
from augury.events.envelope import new_event
from augury.processes.valkey import ValkeyServer
from augury.routing.incidents import note_incarnation
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database, settings: Settings, own_valkey: ValkeyServer) -> Iterator[World]:
    world = World(database, settings.model_copy(update={"redis_url": own_valkey.url}))
    yield world
    world.bus.close()


@pytest.fixture
def server(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_valkey.url) as client:
        yield client


def say(world: World, *event_ids: str) -> None:
    events = [new_event("augury.job.created", {}, source="augury", event_id=i) for i in event_ids]
    world.database.transact(lambda c: emit(world.database, c, events))


def send(world: World, resend_s: float = 30.0) -> int:
    return flush(world.database, world.bus, resend_s=resend_s)


def in_stream(world: World) -> int:
    return len(world.bus.entries("", 1000))


def test_a_new_life_of_the_bus_is_one_incident(world: World, server: redis.Redis) -> None:
    first, second = world.router(), world.router()
    world.publish(event(id="a"), event(id="b"))
    first.step()
    second.step()
    world.publish(event(id="never routed"))
    before = world.bus.incarnation()
    server.flushall()
    world.publish(event(id="c"))
    world.drain(first)
    world.drain(second)
    (incident,) = world.rows(tables.bus_incidents)
    assert incident.kind == "LOST"
    assert incident.detail == {"previous": before, "incarnation": world.bus.incarnation()}
    (last,) = world.rows(tables.events, tables.events.c.event_id == "b")
    assert incident.position == last.position
    assert [row.event_id for row in world.rows(tables.events)] == ["a", "b", "c"]
    world.check_laws()


def test_an_idle_router_notes_the_loss_too(world: World, server: redis.Redis) -> None:
    world.publish(event())
    routes = world.router()
    routes.step()
    server.flushall()
    routes.step()  # makes the group anew, and with it the new life
    routes.tidy()
    assert [row.kind for row in world.rows(tables.bus_incidents)] == ["LOST"]
    assert note_incarnation(world.database, world.bus) == world.bus.incarnation()
    assert len(world.rows(tables.bus_incidents)) == 1


def test_events_of_ours_are_sent_again_to_a_bus_that_lost_them(
    world: World, server: redis.Redis
) -> None:
    say(world, "a", "b")
    assert send(world) == 2
    assert send(world) == 0
    server.flushall()
    world.publish(event())
    assert send(world) == 2
    world.drain()
    assert world.rows(tables.outbox) == []
    assert len(world.rows(tables.events)) == 3
    world.check_laws()


def test_the_first_publish_of_a_life_marks_its_rows_with_it(world: World) -> None:
    say(world, "a")
    assert send(world) == 1
    (row,) = world.rows(tables.outbox)
    assert row.incarnation == world.bus.incarnation()
    assert send(world) == 0


def test_entries_deleted_before_routing_are_an_incident(world: World, server: redis.Redis) -> None:
    first, second, _ = world.publish(event(id="a"), event(id="b"), event(id="c"))
    world.router()._take(0.0)
    server.xdel(f"{world.settings.namespace}:events", first, second)
    world.drain()
    (incident,) = world.rows(tables.bus_incidents)
    assert incident.kind == "TRIMMED"
    assert incident.detail["entry_ids"] == sorted([first, second])
    assert [row.event_id for row in world.rows(tables.events)] == ["c"]
    assert world.bus.status().pending == 0


def test_entries_deleted_after_routing_are_none(world: World, server: redis.Redis) -> None:
    (entry_id,) = world.publish(event(id="a"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisBus, "ack", lambda *_: None)
        world.router().step()
    server.xdel(f"{world.settings.namespace}:events", entry_id)
    world.drain()
    assert world.rows(tables.bus_incidents) == []
    assert world.bus.status().pending == 0


def test_trimming_follows_routing(world: World) -> None:
    world.publish(*(event() for _ in range(50)))
    routes = world.router(router_batch=20)
    routes.step()
    routes.tidy()
    assert in_stream(world) == 31  # the last delivered one stays
    world.drain(routes)
    routes.tidy()
    assert in_stream(world) == 1
    assert len(world.rows(tables.events)) == 50


# --- the relay ------------------------------------------------------------------------------------


def test_the_relay_sends_in_order_and_in_portions(world: World) -> None:
    say(world, *(f"e{n}" for n in range(5)))
    assert flush(world.database, world.bus, limit=3) == 3
    assert flush(world.database, world.bus, limit=3) == 2
    assert flush(world.database, world.bus, limit=3) == 0
    world.drain()
    assert [row.event_id for row in world.rows(tables.events)] == [f"e{n}" for n in range(5)]


def test_a_bus_that_is_down_keeps_the_outbox_ready(world: World, own_valkey: ValkeyServer) -> None:
    say(world, "a")
    world.publish(event())
    with pytest.MonkeyPatch.context() as patch:
        real = RedisBus.publish

        def dying(self: RedisBus, bodies: list[bytes]) -> list[str]:
            own_valkey.kill()
            return real(self, bodies)

        patch.setattr(RedisBus, "publish", dying)
        with pytest.raises(UnavailableError):
            send(world)
    with pytest.raises(UnavailableError):
        send(world)
    own_valkey.start()
    assert send(world) == 1


def test_a_relay_that_died_after_claiming_is_made_good(world: World) -> None:
    say(world, "a")
    world.publish(event())
    world.drain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisBus, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            send(world)
    assert send(world) == 0
    later = clock.utc_now() + timedelta(seconds=31)
    with clock.frozen(later):
        assert send(world) == 1
    world.drain()
    assert world.rows(tables.outbox) == []


def test_what_waits_for_a_slow_router_is_not_sent_again(world: World) -> None:
    say(world, "a")
    assert send(world) == 1
    threshold = world.bus.status().oldest_age_s
    with pytest.MonkeyPatch.context() as patch:
        status = world.bus.status()
        aged = type(status)(length=status.length, pending=0, lag=1, oldest_age_s=threshold + 1000)
        patch.setattr(RedisBus, "status", lambda _: aged)
        with clock.frozen(clock.utc_now() + timedelta(seconds=1000)):
            assert send(world) == 0
    with clock.frozen(clock.utc_now() + timedelta(seconds=1000)):
        assert send(world) == 1


def test_an_event_of_ours_sent_twice_is_one_and_a_duplicate(world: World) -> None:
    say(world, "a")
    send(world)
    world.database.transact(lambda c: c.execute(sa.update(tables.outbox).values(sent_at=None)))
    send(world)
    world.drain()
    rows = world.rows(tables.events)
    assert [row.duplicate_of is None for row in rows] == [True, False]
    assert world.rows(tables.outbox) == []
    world.check_laws()


def test_the_relay_process_outlives_an_outage_of_the_bus(
    world: World, own_valkey: ValkeyServer
) -> None:
    own_valkey.kill()
    settings = world.settings.model_copy(update={"relay_s": 0.01})
    stop = threading.Event()
    relay = threading.Thread(target=Relay(world.database, world.bus, settings).run, args=(stop,))
    relay.start()
    try:
        say(world, "a", "b")
        own_valkey.start()
        for _ in range(1000):
            if all(row.sent_at is not None for row in world.rows(tables.outbox)):
                break
            stop.wait(0.01)
    finally:
        stop.set()
        relay.join(20)
    world.drain()
    assert [row.event_id for row in world.rows(tables.events)] == ["a", "b"]
    assert world.rows(tables.outbox) == []


def test_relays_at_the_same_time_send_each_event_once(world: World) -> None:
    say(world, *(f"e{n}" for n in range(200)))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while flush(world.database, world.bus, limit=7):
                pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert in_stream(world) == 200
