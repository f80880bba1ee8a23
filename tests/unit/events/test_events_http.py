from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.errors import InvalidError
from augury.events.envelope import Event, parse_event
from augury.events.http import BATCHED, STRUCTURED, parse_request

EVENT = {"specversion": "1.0", "source": "/s", "id": "1", "type": "acme.done", "data": {"n": 1}}
BINARY = {"ce-specversion": "1.0", "ce-source": "/s", "ce-id": "1", "ce-type": "acme.done"}


def parse(content_type: str, body: Any, **headers: str) -> list[Event]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_request({"Content-Type": content_type, **headers}, raw)


@pytest.mark.parametrize(
    "content_type", [STRUCTURED, f"{STRUCTURED}; charset=UTF-8", "application/json"]
)
def test_structured(content_type: str) -> None:
    (event,) = parse(content_type, EVENT)
    assert (event.source, event.id, event.type, event.data) == ("/s", "1", "acme.done", {"n": 1})


@pytest.mark.parametrize("content_type", [BATCHED, "application/json"])
def test_batched(content_type: str) -> None:
    events = parse(content_type, [EVENT, {**EVENT, "id": "2"}])
    assert [event.id for event in events] == ["1", "2"]
    assert parse(content_type, []) == []


def test_binary_json() -> None:
    headers = {
        **BINARY,
        "CE-Subject": "a%20b%C3%A9",
        "ce-time": "2026-01-01T00:00:00Z",
        "ce-trace": "x",
    }
    (event,) = parse("application/json; charset=utf-8", {"n": 2}, **headers)
    assert event.data == {"n": 2}
    assert event.subject == "a bé"
    assert event.extensions == {"trace": "x"}
    assert event.datacontenttype == "application/json; charset=utf-8"


def test_binary_other_content() -> None:
    assert parse("text/plain", "grüße".encode(), **BINARY)[0].data == "grüße"
    raw = b"\x00\xff"
    for content_type in ("application/octet-stream", "text/plain"):
        (event,) = parse(content_type, raw, **BINARY)
        assert (event.data, event.data_base64) == (None, base64.b64encode(raw).decode())
        assert parse_event(event.to_json()) == event
    assert parse_request(BINARY, b"")[0].data is None


def test_headers_may_be_pairs() -> None:
    assert parse_request([("content-type", STRUCTURED)], json.dumps(EVENT).encode())[0].id == "1"


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("text/plain", b"hello", "expected content type"),
        ("", b"{}", "found content type 'nothing'"),
        ("application/cloudevents+avro", b"x", "expected the JSON event format"),
        (STRUCTURED, b"{", "not JSON"),
        (STRUCTURED, b"[]", "expected a JSON object, found list"),
        (BATCHED, b"{}", "expected a JSON array of events"),
        (BATCHED, b"[1", "expected a JSON array of events"),
        (f"{STRUCTURED}; charset=latin-1", b"{}", "UTF-8"),
        (STRUCTURED, b'{"data":' + b"[" * 50_000, "not JSON"),
        (BATCHED, b"[" * 50_000, "expected a JSON array of events"),
        (STRUCTURED, b'{"data_base64": "?"}', "data_base64: expected bytes in base 64"),
    ],
)
def test_what_is_no_event_is_refused(content_type: str, body: bytes, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        parse_request({"content-type": content_type}, body)


def test_binary_data_must_be_what_it_says() -> None:
    with pytest.raises(InvalidError, match="data: expected JSON"):
        parse("application/json", b"{", **BINARY)


def test_every_fault_of_an_event_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        parse(STRUCTURED, {"specversion": "0.3", "id": "", "time": "noon", "Bad-Name": 1})
    assert {fault.path for fault in caught.value.faults} == {
        "specversion", "source", "id", "type", "time", "Bad-Name",
    }  # fmt: skip


def test_every_fault_of_a_batch_is_named_with_its_index() -> None:
    with pytest.raises(InvalidError) as caught:
        parse(BATCHED, [EVENT, {**EVENT, "type": ""}, 7, {**EVENT, "id": 3, "source": None}])
    assert [fault.path for fault in caught.value.faults] == [
        "[1].type",
        "[2]",
        "[3].source",
        "[3].id",
    ]


def test_the_size_limit_is_inclusive_and_per_event() -> None:
    raw = json.dumps(EVENT).encode()
    assert parse_request({"content-type": STRUCTURED}, raw, max_bytes=len(raw))
    batch = b"[" + b",".join([raw] * 10) + b"]"
    assert len(parse_request({"content-type": BATCHED}, batch, max_bytes=len(raw))) == 10
    for content_type, body in ((STRUCTURED, raw), (BATCHED, batch)):
        with pytest.raises(InvalidError, match="too large"):
            parse_request({"content-type": content_type}, body, max_bytes=len(raw) - 1)


def test_attributes_that_no_index_holds_are_refused() -> None:
    with pytest.raises(InvalidError, match="source: expected at most 1024 bytes"):
        parse(STRUCTURED, {**EVENT, "source": "é" * 513})


@given(
    content_type=st.sampled_from(
        [STRUCTURED, BATCHED, "application/json", "text/plain", "", ";", "x/"]
    ),
    headers=st.dictionaries(
        st.sampled_from(
            ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-data", "ce-x"]
        ),
        st.text(max_size=10),
    ),
    body=st.binary(max_size=60) | st.just(json.dumps(EVENT).encode()),
)
def test_nothing_but_the_declared_error_comes_out(
    content_type: str, headers: dict[str, str], body: bytes
) -> None:
    try:
        events = parse_request({"content-type": content_type, **headers}, body)
    except InvalidError:
        return
    assert all(isinstance(event, Event) for event in events)
