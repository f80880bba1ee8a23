"""The bus on a server that dies, loses its persistence, or never was there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from augury.bus.redis_bus import RedisBus, _version
from augury.errors import UnavailableError
from augury.processes.valkey import ValkeyServer


@pytest.fixture
def bus(own_valkey: ValkeyServer) -> Iterator[RedisBus]:
    bus = RedisBus(own_valkey.url, namespace="own")
    yield bus
    bus.close()


@pytest.fixture
def server(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_valkey.url) as client:
        yield client


def test_no_server_is_unavailable_in_every_method() -> None:
    bus = RedisBus("redis://user:secret@127.0.0.1:1/0", namespace="none")
    for call in (
        lambda: bus.publish([b"x"]),
        lambda: bus.read("a", count=1, block_s=0),
        lambda: bus.claim_stale("a", idle_s=1, count=1),
        lambda: bus.ack(["1-0"]),
        bus.trim,
        bus.incarnation,
        bus.durability,
        bus.status,
        lambda: bus.entries("", 1),
        lambda: bus.retire("a"),
    ):
        with pytest.raises(UnavailableError, match=r"redis://127\.0\.0\.1:1/0") as caught:
            call()
        assert "secret" not in str(caught.value)


def test_what_was_accepted_survives_kill_9(own_valkey: ValkeyServer, bus: RedisBus) -> None:
    entry_ids = bus.publish([b"a", b"b"])
    bus.read("gone", count=1, block_s=0)
    incarnation = bus.incarnation()
    own_valkey.kill()
    with pytest.raises(UnavailableError):
        bus.publish([b"c"])
    own_valkey.start()
    assert bus.incarnation() == incarnation
    assert [delivery.body for delivery in bus.read("b", count=10, block_s=0)] == [b"b"]
    assert [entry.entry_id for entry in bus.entries("", 10)] == entry_ids
    assert bus.publish([b"d"])


def test_durability_follows_the_configuration(
    server: redis.Redis, own_valkey: ValkeyServer
) -> None:
    def look() -> tuple[bool, str]:
        bus = RedisBus(own_valkey.url, namespace="own")
        try:
            durability = bus.durability()
        finally:
            bus.close()
        return durability.ok, durability.advice

    assert look() == (True, "")
    server.config_set("appendfsync", "everysec")
    assert look() == (True, "")  # WAITAOF makes it so
    server.config_set("maxmemory", "100mb")
    server.config_set("maxmemory-policy", "allkeys-lru")
    ok, advice = look()
    assert not ok
    assert "noeviction" in advice
    server.config_set("appendonly", "no")
    ok, advice = look()
    assert not ok
    assert "appendonly yes" in advice


def test_a_relaxed_fsync_is_waited_for(
    server: redis.Redis, bus: RedisBus, own_valkey: ValkeyServer
) -> None:
    server.config_set("appendfsync", "everysec")
    assert len(bus.publish([b"x"])) == 1
    own_valkey.kill()
    own_valkey.start()
    assert [entry.body for entry in bus.entries("", 10)] == [b"x"]


def test_publishing_without_persistence_works_and_is_told(
    server: redis.Redis, bus: RedisBus
) -> None:
    server.config_set("appendonly", "no")
    assert len(bus.publish([b"x"])) == 1
    assert not bus.durability().ok


def test_a_full_server_refuses_and_appends_nothing(server: redis.Redis, bus: RedisBus) -> None:
    bus.publish([b"x"])
    server.config_set("maxmemory", "1")
    with pytest.raises(UnavailableError, match="refused"):
        bus.publish([b"y"])
    server.config_set("maxmemory", "0")
    assert [entry.body for entry in bus.entries("", 10)] == [b"x"]


def test_a_key_of_another_kind_is_told(server: redis.Redis, bus: RedisBus) -> None:
    server.set("own:events", "not a stream")
    with pytest.raises(UnavailableError, match="WRONGTYPE"):
        bus.publish([b"x"])
    with pytest.raises(UnavailableError, match="WRONGTYPE"):
        bus.read("a", count=1, block_s=0)


def test_versions_of_both_kinds_are_understood() -> None:
    assert _version({"redis_version": "7.0.15"}) == (7, 0)
    assert _version(
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}
    ) == (9, 1)
    assert _version({}) == (0,)
