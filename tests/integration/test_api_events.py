"""`POST /v1/events`: all three modes, durable or refused, and what became of them."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from api_world import Api, serve
from routing_world import WakeUps

from augury.api.limits import MOST_BODY_BYTES
from augury.processes.valkey import ValkeyServer
from augury.routing.router import Router
from augury.settings import Settings
from augury.storage.database import Database


@pytest.fixture
def api(live_settings: Settings) -> Iterator[Api]:
    with serve(live_settings) as found:
        yield found


def _event(**changes: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": "1", "source": "/t", "type": "a.b.happened"}
    return {name: value for name, value in {**event, **changes}.items() if value is not None}


def _on_the_bus(api: Api) -> list[dict[str, Any]]:
    return [msgspec.json.decode(entry.body) for entry in api.engine.bus.entries("", 10_000)]


def _route(api: Api) -> None:
    engine = api.engine
    router = Router(engine.database, engine.bus, WakeUps(), engine.settings)
    while router.step(block_s=0.05):
        pass


def test_health_asks_nobody(settings: Settings) -> None:
    nobody = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    with serve(nobody) as api:
        answer = api.get("/v1/health")
    assert answer.status == 200
    assert answer.body["state"] == "ok"


@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/json"])
def test_structured(api: Api, content_type: str) -> None:
    event = _event(data={"amount": 12}, subject="o/1", myext="x")
    answer = api.request("POST", "/v1/events", event, Content_Type=content_type)
    assert answer.status == 202
    assert answer.body == {"accepted": 1, "ids": ["1"], "durability": "durable"} or (
        answer.body["durability"] == "relaxed" and answer.body["advice"]
    )
    assert _on_the_bus(api) == [event | {"datacontenttype": "application/json"}] or _on_the_bus(
        api
    ) == [event]


def test_binary(api: Api) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "/bin",
        "ce-type": "a.b",
        "ce-subject": "caf%C3%A9",
    }
    answer = api.request("POST", "/v1/events", raw=b'{"x": [1]}', **headers)
    assert (answer.status, answer.body["ids"]) == (202, ["7"])
    (found,) = _on_the_bus(api)
    assert (found["data"], found["subject"]) == ({"x": [1]}, "café")
    of_image = {**headers, "Content-Type": "image/png", "ce-id": "8"}
    image = api.request("POST", "/v1/events", raw=b"\x89PNG", **of_image)
    assert image.status == 202
    found = _on_the_bus(api)[1]
    assert found["data_base64"] == base64.b64encode(b"\x89PNG").decode()
    assert "data" not in found


def test_batched(api: Api) -> None:
    events = [_event(id=str(number)) for number in range(100)]
    answer = api.request(
        "POST", "/v1/events", events, Content_Type="application/cloudevents-batch+json"
    )
    assert answer.status == 202
    assert answer.body["ids"] == [event["id"] for event in events]
    assert [event["id"] for event in _on_the_bus(api)] == answer.body["ids"]
    assert api.request("POST", "/v1/events", []).body["accepted"] == 0


def test_one_bad_event_refuses_the_batch_and_names_everything(api: Api) -> None:
    events = [_event(), _event(id=""), _event(type=None, specversion="0.3")]
    answer = api.request("POST", "/v1/events", events)
    assert answer.status == 400
    assert answer.body["code"] == "invalid"
    paths = {fault["path"] for fault in answer.body["faults"]}
    assert paths == {"[1].id", "[2].specversion", "[2].type"}
    assert _on_the_bus(api) == []


_MALFORMED = [
    (b"{", "application/json"),
    (b"[1, 2", "application/json"),
    (b"", "application/json"),
    (b"[[]]", "application/json"),
    (b'"text"', "application/cloudevents+json"),
    (b"\xff\xfe", "application/cloudevents+json"),
    (b"<event/>", "application/cloudevents+xml"),
    (b"a=1", "application/x-www-form-urlencoded"),
    (b"{}", "application/json; charset=utf-16"),
    (b"[" * 100_000, "application/json"),
]


def test_malformed(api: Api) -> None:
    for raw, content_type in _MALFORMED:
        answer = api.request("POST", "/v1/events", raw=raw, Content_Type=content_type)
        assert answer.status == 400, (raw[:20], answer)
        assert answer.body["message"]
    assert _on_the_bus(api) == []


def test_oversized(api: Api) -> None:
    large = _event(data="x" * api.engine.settings.max_event_bytes)
    answer = api.request("POST", "/v1/events", large)
    assert answer.status == 413
    assert str(api.engine.settings.max_event_bytes) in answer.body["message"]
    in_batch = api.request("POST", "/v1/events", [_event(), large])
    assert in_batch.status == 400
    assert in_batch.body["faults"][0]["path"] == "[1]"
    assert _on_the_bus(api) == []


def test_announced_body_that_is_too_large_is_never_read(api: Api) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (MOST_BODY_BYTES + 1)
        )
        answer = connection.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_unannounced_body_is_cut_off_at_the_bound(api: Api) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    chunk = b"%x\r\n%s\r\n" % (2**20, b"x" * 2**20)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent = 0
        try:
            while sent < 4 * MOST_BODY_BYTES:
                connection.sendall(chunk)
                sent += 2**20
        except OSError:
            pass  # cut off
        else:
            pytest.fail("the server read all of it")
        with contextlib.suppress(ConnectionResetError):  # then what it said was lost
            assert b" 413 " in connection.recv(65536).split(b"\r\n")[0]


def test_too_many_events(api: Api) -> None:
    many = b"[" + b",".join([json.dumps(_event()).encode()] * 10_001) + b"]"
    answer = api.request("POST", "/v1/events", raw=many)
    assert answer.status == 413
    assert "10000" in answer.body["message"]
    assert _on_the_bus(api) == []


def test_silent_bus_is_503(settings: Settings, sqlite_database: Database) -> None:
    nobody = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1", "database_url": sqlite_database.url}
    )
    with serve(nobody) as api:
        answer = api.request("POST", "/v1/events", _event())
        assert answer.status == 503
        assert answer.body["code"] == "unavailable"
        assert answer.headers["retry-after"] == "1"
        assert api.get("/v1/status").body["bus"]["available"] is False


def test_bus_that_comes_back(
    settings: Settings, sqlite_database: Database, own_valkey: ValkeyServer
) -> None:
    wired = settings.model_copy(
        update={"redis_url": own_valkey.url, "database_url": sqlite_database.url}
    )
    with serve(wired) as api:
        assert api.request("POST", "/v1/events", _event()).status == 202
        own_valkey.kill()
        assert api.request("POST", "/v1/events", _event(id="2")).status == 503
        own_valkey.start()
        assert api.request("POST", "/v1/events", _event(id="2")).status == 202
        assert [event["id"] for event in _on_the_bus(api)] == ["1", "2"]


def test_list_and_show_what_was_accepted(api: Api) -> None:
    events = [_event(id=f"e{number}", type=f"a.{number % 2}.b") for number in range(5)]
    events.append(_event(id="e0", type="a.0.b"))
    assert api.request("POST", "/v1/events", events).status == 202
    _route(api)
    first = api.get("/v1/events?limit=2").body
    assert [item["event_id"] for item in first["items"]] == ["e0", "e4"]
    second = api.get(f"/v1/events?limit=4&before={first['next']}").body
    assert [item["event_id"] for item in second["items"]] == ["e3", "e2", "e1", "e0"]
    assert second["next"] is None
    assert first["items"][0]["duplicate_of"] == second["items"][-1]["position"]
    assert len(api.get("/v1/events?type=a.1.b").body["items"]) == 2
    assert len(api.get("/v1/events?type=a.*&source=/t").body["items"]) == 6
    position = second["items"][0]["position"]
    for name in (position, "e3"):
        shown = api.get(f"/v1/events/{name}").body
        assert shown["event"]["id"] == "e3"
        assert shown["outcomes"] == []
    assert api.get("/v1/events/nowhere/at/all").status == 404
    assert api.get("/v1/status").body["events"] == {
        "accepted": 6,
        "duplicates": 1,
        "dead_letters": 0,
    }


def test_dead_letters_are_redriven_once(api: Api) -> None:
    api.engine.bus.publish([b"no event", msgspec.json.encode(_event())])
    _route(api)
    (letter,) = api.get("/v1/deadletters?state=OPEN").body["items"]
    assert letter["payload"] == "no event"
    refused = api.request("POST", f"/v1/deadletters/{letter['id']}/redrive")
    assert refused.status == 400
    assert api.get(f"/v1/deadletters/{letter['id']}").body["state"] == "OPEN"
    assert api.request("POST", f"/v1/deadletters/{letter['id']}/discard").status == 200
    assert api.request("POST", f"/v1/deadletters/{letter['id']}/discard").status == 409
    assert api.request("POST", "/v1/deadletters/dead_x/redrive").status == 404
    assert api.get("/v1/deadletters?state=OPEN").body["items"] == []
