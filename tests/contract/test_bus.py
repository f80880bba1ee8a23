"""The contract of the bus, on every kind of server that we support."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from augury import clock
from augury.bus.redis_bus import RedisBus
from augury.settings import Settings


@pytest.fixture
def bus(every_bus_url: str, settings: Settings) -> Iterator[RedisBus]:
    bus = RedisBus(every_bus_url, namespace=settings.namespace)
    yield bus
    bus.close()


@pytest.fixture
def server(every_bus_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(every_bus_url, protocol=2) as client:
        yield client


@pytest.fixture
def stream(settings: Settings) -> str:
    return f"{settings.namespace}:events"


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(start, start + count)]


def read_all(bus: RedisBus, consumer: str = "a") -> list[bytes]:
    return [delivery.body for delivery in bus.read(consumer, count=1000, block_s=0)]


def test_publish_gives_ascending_ids_and_delivers_in_order(bus: RedisBus) -> None:
    entry_ids = bus.publish(bodies(3))
    deliveries = bus.read("a", count=10, block_s=0)
    assert [delivery.entry_id for delivery in deliveries] == entry_ids
    assert [delivery.body for delivery in deliveries] == bodies(3)
    assert {delivery.incarnation for delivery in deliveries} == {bus.incarnation()}
    assert {delivery.attempt for delivery in deliveries} == {1}


def test_publishing_nothing_does_nothing(bus: RedisBus) -> None:
    assert bus.publish([]) == []
    assert bus.incarnation() is None


def test_bodies_are_bytes_and_stay_so(bus: RedisBus) -> None:
    odd = [b"", b"\x00\xff", "ü€😀".encode(), b"x" * 1_000_000]
    bus.publish(odd)
    assert read_all(bus) == odd


def test_what_was_published_before_the_group_existed_is_delivered(bus: RedisBus) -> None:
    bus.publish(bodies(2))
    assert read_all(bus) == bodies(2)


def test_each_delivery_goes_to_one_reader(bus: RedisBus) -> None:
    bus.publish(bodies(4))
    first = bus.read("a", count=2, block_s=0)
    second = bus.read("b", count=10, block_s=0)
    assert [delivery.body for delivery in first + second] == bodies(4)
    assert read_all(bus, "c") == []


def test_reading_waits_for_a_publish(bus: RedisBus) -> None:
    bus.read("a", count=1, block_s=0)
    found: list[bytes] = []

    def reader() -> None:
        while not found:
            found.extend(delivery.body for delivery in bus.read("a", count=1, block_s=2.0))

    thread = threading.Thread(target=reader)
    thread.start()
    bus.publish([b"late"])
    thread.join(10)
    assert found == [b"late"]


def test_unacknowledged_deliveries_are_taken_over_with_their_attempt(bus: RedisBus) -> None:
    entry_ids = bus.publish(bodies(3))
    bus.read("dead", count=10, block_s=0)
    bus.ack(entry_ids[:1])
    claimed, missing = bus.claim_stale("b", idle_s=0, count=10)
    assert [delivery.entry_id for delivery in claimed] == entry_ids[1:]
    assert [delivery.body for delivery in claimed] == bodies(2, start=1)
    assert {delivery.attempt for delivery in claimed} == {2}
    assert {delivery.incarnation for delivery in claimed} == {bus.incarnation()}
    assert missing == []


def test_fresh_deliveries_are_not_taken_over(bus: RedisBus) -> None:
    bus.publish(bodies(2))
    bus.read("busy", count=10, block_s=0)
    assert bus.claim_stale("b", idle_s=60, count=10) == ([], [])


def test_claim_takes_at_most_count(bus: RedisBus) -> None:
    bus.publish(bodies(5))
    bus.read("dead", count=10, block_s=0)
    claimed, _ = bus.claim_stale("b", idle_s=0, count=2)
    assert len(claimed) == 2


def test_an_entry_that_was_handed_out_often_comes_alone(bus: RedisBus) -> None:
    bus.publish(bodies(3))
    bus.read("dead", count=10, block_s=0)

    def claim() -> list[tuple[bytes, int]]:
        claimed, _ = bus.claim_stale("b", idle_s=0, count=10)
        return [(delivery.body, delivery.attempt) for delivery in claimed]

    assert [attempt for _, attempt in claim()] == [2, 2, 2]
    assert [attempt for _, attempt in claim()] == [3, 3, 3]
    assert claim() == [(b'{"n":0}', 4)]


def test_entries_deleted_before_routing_are_told_until_acknowledged(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    entry_ids = bus.publish(bodies(3))
    bus.read("dead", count=10, block_s=0)
    server.xdel(stream, entry_ids[1])
    for _ in range(2):
        _, missing = bus.claim_stale("b", idle_s=0, count=10)
        assert missing == [entry_ids[1]]
    bus.ack(missing)
    claimed, missing = bus.claim_stale("b", idle_s=0, count=10)
    assert len(claimed) == 1  # suspicious by now
    assert missing == []


def test_trim_keeps_what_is_pending_and_what_nobody_read(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    entry_ids = bus.publish(bodies(6))
    first = bus.read("a", count=4, block_s=0)
    bus.ack([first[0].entry_id, first[1].entry_id, first[3].entry_id])
    assert bus.trim() == 2
    assert [entry.entry_id for entry in bus.entries("", 100)] == entry_ids[2:]
    bus.ack([first[2].entry_id])
    assert bus.trim() == 1
    assert [entry.entry_id for entry in bus.entries("", 100)] == entry_ids[3:]
    assert read_all(bus) == bodies(2, start=4)


def test_trim_keeps_what_another_group_has_not_read(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    bus.publish(bodies(3))
    server.xgroup_create(stream, "bridge", "0")
    bus.ack([delivery.entry_id for delivery in bus.read("a", count=10, block_s=0)])
    assert bus.trim() == 0


def test_trim_without_a_group_or_a_stream_drops_nothing(bus: RedisBus) -> None:
    assert bus.trim() == 0
    bus.publish(bodies(3))
    assert bus.trim() == 0
    assert len(bus.entries("", 10)) == 3


def test_status_counts_what_is_not_routed(bus: RedisBus) -> None:
    empty = bus.status()
    assert (empty.length, empty.pending, empty.lag, empty.oldest_age_s) == (0, 0, 0, 0.0)
    bus.publish(bodies(5))
    before_group = bus.status()
    assert (before_group.pending, before_group.lag) == (0, 5)
    first = bus.read("a", count=2, block_s=0)
    halfway = bus.status()
    assert (halfway.length, halfway.pending, halfway.lag) == (5, 2, 3)
    assert 0 <= halfway.oldest_age_s < 60
    bus.ack([delivery.entry_id for delivery in first])
    assert bus.status().pending == 0
    bus.ack([delivery.entry_id for delivery in bus.read("a", count=10, block_s=0)])
    done = bus.status()
    assert (done.lag, done.oldest_age_s) == (0, 0.0)


def test_lag_is_counted_past_deleted_entries(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    entry_ids = bus.publish(bodies(5))
    bus.read("a", count=1, block_s=0)
    server.xdel(stream, entry_ids[2])
    assert bus.status().lag == 3


def test_entries_can_be_paged_without_taking_them(bus: RedisBus) -> None:
    entry_ids = bus.publish(bodies(5))
    page = bus.entries("", 3)
    assert [entry.entry_id for entry in page] == entry_ids[:3]
    assert {entry.attempt for entry in page} == {0}
    assert [entry.entry_id for entry in bus.entries(page[-1].entry_id, 3)] == entry_ids[3:]
    assert len(read_all(bus)) == 5


def test_unsettled_is_what_was_not_given_or_not_acknowledged(bus: RedisBus) -> None:
    assert bus.unsettled([]) == set()
    entry_ids = bus.publish(bodies(4))
    assert bus.unsettled(entry_ids) == set(entry_ids)  # nobody has read: there is no group yet
    bus.read("a", count=3, block_s=0)
    assert bus.unsettled(entry_ids) == set(entry_ids)
    bus.ack([entry_ids[0], entry_ids[2]])
    assert bus.unsettled(entry_ids) == {entry_ids[1], entry_ids[3]}
    assert bus.unsettled(entry_ids[2:]) == {entry_ids[3]}


def test_the_number_of_entries_added_outlives_trimming_and_deleting(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    assert bus.status().num_added == 0
    entry_ids = bus.publish(bodies(5))
    server.xdel(stream, entry_ids[4])
    bus.read("a", count=3, block_s=0)
    bus.ack(entry_ids[:3])
    assert bus.trim() == 2
    assert bus.status().num_added == 5


@pytest.mark.parametrize("lost", ["events", "incarnation", "both"])
def test_a_lost_stream_begins_a_new_life_and_reads_from_its_start(
    bus: RedisBus, server: redis.Redis, settings: Settings, lost: str
) -> None:
    bus.publish(bodies(1))
    assert read_all(bus) == bodies(1)
    before = bus.incarnation()
    keys = ["events", "incarnation"] if lost == "both" else [lost]
    server.delete(*(f"{settings.namespace}:{key}" for key in keys))
    assert bus.incarnation() is None
    bus.publish(bodies(1, start=1))
    found = bus.read("a", count=10, block_s=0)
    assert found[-1].body == b'{"n":1}'
    assert found[-1].incarnation == bus.incarnation()
    assert bus.incarnation() not in {None, before}


def test_the_group_made_anew_by_a_reader_starts_a_new_life_too(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    bus.publish(bodies(1))
    before = bus.incarnation()
    server.delete(stream)
    assert bus.claim_stale("a", idle_s=0, count=1) == ([], [])
    assert bus.incarnation() not in {None, before}


def test_retiring_a_reader_keeps_what_it_holds(
    bus: RedisBus, server: redis.Redis, stream: str
) -> None:
    bus.publish(bodies(1))
    bus.read("holds", count=1, block_s=0)
    bus.read("empty", count=1, block_s=0)
    bus.retire("holds")
    bus.retire("empty")
    bus.retire("never seen")
    assert [entry["name"] for entry in server.xinfo_consumers(stream, "router")] == [b"holds"]
    claimed, _ = bus.claim_stale("b", idle_s=0, count=10)
    assert len(claimed) == 1


# --- the watermark --------------------------------------------------------------------------------


def place(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def test_the_watermark_stands_before_what_is_not_acknowledged(bus: RedisBus) -> None:
    first, second, third = bus.publish(bodies(3))
    assert bus.watermark() == first  # nobody has read
    deliveries = bus.read("a", count=2, block_s=0)
    assert bus.watermark() == first
    bus.ack([deliveries[1].entry_id])
    assert bus.watermark() == first  # the second one is done, the first is not
    bus.ack([first])
    assert bus.watermark() == third
    bus.ack([delivery.entry_id for delivery in bus.read("a", count=9, block_s=0)])
    passed = bus.watermark()
    assert place(second) < place(third) < place(passed)
    assert place(bus.publish(bodies(1))[0]) >= place(passed)


def test_the_watermark_moves_on_only_where_somebody_waits_and_nothing_is_left(
    bus: RedisBus,
) -> None:
    (entry_id,) = bus.publish(bodies(1))
    at = datetime.fromtimestamp(place(entry_id)[0] / 1000, UTC)
    over, later = at - timedelta(hours=1), at + timedelta(hours=1)
    assert bus.watermark(over) == entry_id
    bus.ack([delivery.entry_id for delivery in bus.read("a", count=9, block_s=0)])
    assert place(bus.watermark(later)) == (place(entry_id)[0], place(entry_id)[1] + 1)
    before = bus.status()
    while place(passed := bus.watermark(over))[0] == place(entry_id)[0]:
        pass  # the same millisecond
    # neither is anything given before that, nor is anything counted that is not there
    assert place(bus.publish(bodies(1))[0]) > place(passed)
    after = bus.status()
    assert (after.num_added, after.lag) == (before.num_added + 1, before.lag + 1)
    assert len(read_all(bus)) == 1


def test_the_watermark_of_a_bus_that_holds_nothing_is_the_present(bus: RedisBus) -> None:
    passed = bus.watermark(clock.utc_now())
    assert place(bus.publish(bodies(1))[0]) >= place(passed)
