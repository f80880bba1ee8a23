"""What messages of foreign queues are."""

from __future__ import annotations

import json
from typing import Any

import notifications as sent
import pytest

from augury.errors import InvalidError
from augury.events.normalise import Provider
from augury.sources.messages import Message, Read, read_message

EVENT = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order.placed"}


def read(body: bytes | Any, provider: str | None = None, **fields: Any) -> Read:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    message = Message(body=raw, **{"headers": {}, **fields})
    known = Provider(provider) if provider else None
    return read_message(message, source="orders", provider=known, max_bytes=1000)


def test_a_cloudevent_is_itself_in_every_form() -> None:
    binary = {f"cloudEvents:{name}": value for name, value in EVENT.items()}
    underscored = {f"cloudEvents_{name}": value for name, value in EVENT.items()}
    found = [
        read(EVENT, content_type="application/cloudevents+json"),
        read(EVENT, content_type="application/json"),
        read(EVENT),
        read(b'{"n": 1}', headers=binary, content_type="application/json"),
        read(b'{"n": 1}', headers=underscored, content_type="application/json"),
    ]
    assert {(each.events[0].id, each.events[0].type) for each in found} == {
        ("1", "shop.order.placed")
    }
    assert found[-1].events[0].data == {"n": 1}
    batch = read([EVENT, {**EVENT, "id": "2"}], content_type="application/cloudevents-batch+json")
    assert [event.id for event in batch.events] == ["1", "2"]


def test_notifications_are_read_if_a_provider_is_named() -> None:
    assert len(read(sent.S3_REMOVED, "s3").notices) == 1
    assert read(sent.S3_REMOVED).notices == ()
    assert read(sent.S3_REMOVED).events[0].data == sent.S3_REMOVED
    assert read({"n": 1}, "s3").events[0].data == {"n": 1}


def test_what_is_no_json_is_bytes() -> None:
    (event,) = read(b"\x00\xff", content_type="image/png").events
    assert (event.data, event.data_base64, event.datacontenttype) == (None, "AP8=", "image/png")
    assert read(b"hello").events[0].datacontenttype == "application/octet-stream"


def test_ids_follow_from_the_message() -> None:
    def event_id(body: Any, **fields: Any) -> str:
        return read(body, **fields).events[0].id

    assert event_id({"n": 1}) == event_id({"n": 1})
    assert event_id({"n": 1}) != event_id({"n": 2})
    assert event_id({"n": 1}, message_id="a") != event_id({"n": 1}, message_id="b")
    assert event_id({"n": 1}, message_id="a") == event_id({"n": 2}, message_id="a")


@pytest.mark.parametrize(
    ("body", "fields", "reason"),
    [
        (b"{", {"content_type": "application/json"}, "expected JSON"),
        (b"[" * 500, {"content_type": "application/json"}, "expected JSON"),
        (b"{", {"content_type": "application/cloudevents+json"}, "not JSON"),
        (b'{"id": "1"}', {"content_type": "application/cloudevents+json"}, "expected"),
        (b'{"specversion": "1.0"}', {}, "not a valid CloudEvent"),
        (b'{"x": "' + b"x" * 2000 + b'"}', {}, "at most 1000 bytes"),
        (b"\xff" * 2000, {}, "at most 1000 bytes"),
        (b"", {"headers": {"cloudEvents:specversion": "1.0"}}, "not a valid CloudEvent"),
    ],
)
def test_poison(body: bytes, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        read(body, **fields)
