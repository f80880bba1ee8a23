from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from augury.bus.port import Delivery
from augury.routing.arrivals import Arrival, content_digest, read_deliveries

EVENT = {"specversion": "1.0", "source": "/s", "id": "1", "type": "t", "data": {"b": 1, "a": [1.5]}}


def delivery(
    body: object, entry_id: str = "1700000000123-0", incarnation: str = "bus_a"
) -> Delivery:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Delivery(incarnation=incarnation, entry_id=entry_id, body=raw)


def read_one(body: object) -> Arrival:
    (arrival,), unreadable = read_deliveries([delivery(body)])
    assert unreadable == []
    return arrival


def test_an_event_is_read() -> None:
    arrival = read_one({**EVENT, "subject": "x"})
    assert (arrival.key, arrival.event_type, arrival.subject) == (("/s", "1"), "t", "x")
    assert arrival.entry == ("bus_a", "1700000000123-0")
    assert arrival.accepted_at == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)


def test_the_digest_does_not_depend_on_order_or_white_space() -> None:
    spread = (
        b' { "type":"t", "id" : "1", "source":"/s","data":{"a":[1.5],"b":1},"specversion":"1.0"}\n'
    )
    assert read_one(spread).content_digest == read_one(EVENT).content_digest
    assert content_digest({**EVENT, "data": {"b": 2, "a": [1.5]}}) != content_digest(EVENT)


def test_arrivals_come_in_the_streams_order() -> None:
    order = ["1700000000123-2", "1700000000123-10", "999-0"]
    arrivals, _ = read_deliveries([delivery(EVENT, entry_id) for entry_id in order])
    assert [arrival.delivery.entry_id for arrival in arrivals] == ["999-0", *order[:2]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"nul", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"{}", "in source, id, type"),
        ({**EVENT, "source": 3}, "in source"),
        ({**EVENT, "id": "x" * 1025}, "in id"),
        ({**EVENT, "type": "a\x00"}, "in type"),
        (["event"], "expected a JSON object, found list"),
    ],
)
def test_what_is_no_event_is_told_apart(body: object, reason: str) -> None:
    arrivals, (unreadable,) = read_deliveries([delivery(body)])
    assert arrivals == []
    assert reason in unreadable.reason


def test_an_entry_id_that_is_none_is_unreadable() -> None:
    for entry_id in ("x-0", "9" * 30 + "-0"):
        arrivals, unreadable = read_deliveries([delivery(EVENT, entry_id)])
        assert (arrivals, len(unreadable)) == ([], 1)
