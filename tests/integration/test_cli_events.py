"""`augury publish`, `events`, `deadletters`, `status`, `audit`, `doctor`."""

from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper
from typing import Any

import msgspec
import pytest
from cli_world import Cli
from routing_world import WakeUps

from augury.routing.incidents import note_missing
from augury.routing.router import Router


def _bus(cli: Cli) -> list[dict[str, Any]]:
    return [msgspec.json.decode(entry.body) for entry in cli.engine.bus.entries("", 1000)]


def _route(cli: Cli) -> None:
    engine = cli.engine
    router = Router(engine.database, engine.bus, WakeUps(), engine.settings)
    while router.step(block_s=0.05):
        pass


def test_publish_one(cli: Cli) -> None:
    told = cli.json(
        "publish", "shop.order.placed", "--data", '{"amount": 12}', "--subject", "o/1",
        "--source", "shop", "--id", "o-1",
    )  # fmt: skip
    assert told == {"ids": ["o-1"], "durability": "durable"}
    (event,) = _bus(cli)
    assert (event["id"], event["source"], event["subject"]) == ("o-1", "shop", "o/1")
    assert event["data"] == {"amount": 12}
    assert cli.ok("publish", "a.b").startswith("evt_")


def test_publish_data_from_a_file(cli: Cli) -> None:
    cli.write("data.json", "[1, 2]")
    cli.ok("publish", "a.b", "--data", "@data.json")
    assert _bus(cli)[0]["data"] == [1, 2]
    assert "expected JSON" in cli.run("publish", "a.b", "--data", "text").err
    assert "no file" in cli.run("publish", "a.b", "--data", "@nowhere").err


@pytest.mark.parametrize("form", ["one", "array", "lines", "indented"])
def test_publish_whole_events(cli: Cli, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        {"specversion": "1.0", "id": str(number), "source": "/f", "type": "a.b"}
        for number in range(1 if form in {"one", "indented"} else 3)
    ]
    text = {
        "one": json.dumps(events[0]),
        "array": json.dumps(events),
        "lines": "\n".join(json.dumps(event) for event in events) + "\n\n",
        "indented": json.dumps(events[0], indent=2),
    }[form]
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    assert cli.ok("publish", "--file", "-").split() == [event["id"] for event in events]
    assert [event["id"] for event in _bus(cli)] == [event["id"] for event in events]


def test_publish_refuses_what_is_no_event(cli: Cli) -> None:
    cli.write(
        "e.json", '[{"specversion": "1.0", "id": "1", "source": "/f", "type": "a"}, {"id": 2}]'
    )
    said = cli.run("publish", "--file", "e.json")
    assert said.code == 1
    assert "[1].source" in said.err
    assert "[1].type" in said.err
    assert _bus(cli) == []
    large = cli.run("publish", "a.b", "--data", json.dumps("x" * 300_000))
    assert large.code == 1
    assert "262144" in large.err


def test_events_are_listed_and_shown(cli: Cli) -> None:
    for number in range(3):
        cli.ok("publish", f"a.{number}", "--id", f"e{number}")
    cli.ok("publish", "a.0", "--id", "e0")
    _route(cli)
    listed = cli.json("events", "list")
    assert [item["event_id"] for item in listed] == ["e0", "e2", "e1", "e0"]
    assert listed[0]["duplicate_of"] == listed[-1]["position"]
    assert [item["event_id"] for item in cli.json("events", "list", "--type", "a.1")] == ["e1"]
    older = cli.json("events", "list", "--before", str(listed[1]["position"]), "--limit", "1")
    assert [item["event_id"] for item in older] == ["e1"]
    assert cli.ok("events", "list").splitlines()[1].split()[0] == str(listed[0]["position"])
    shown = cli.json("events", "show", "e1")
    assert (shown["event"]["type"], shown["outcomes"]) == ("a.1", [])
    assert '"type": "a.1"' in cli.ok("events", "show", str(shown["position"]))
    assert cli.run("events", "show", "nobody").code == 1


def test_dead_letters(cli: Cli) -> None:
    cli.engine.bus.publish([b"{"])
    _route(cli)
    (letter,) = cli.json("deadletters", "list", "--state", "open")
    assert letter["payload"] == "{"
    assert letter["id"] in cli.ok("deadletters", "list")
    assert "payload" in cli.ok("deadletters", "show", letter["id"])
    refused = cli.run("deadletters", "redrive", letter["id"])
    assert (refused.code, "not JSON" in refused.err) == (1, True)
    assert "discarded" in cli.ok("deadletters", "discard", letter["id"])
    assert cli.run("deadletters", "discard", letter["id"]).code == 1
    assert cli.json("deadletters", "list", "--state", "OPEN") == []


def test_status(cli: Cli) -> None:
    cli.ok("publish", "a.b")
    status = cli.json("status")
    assert (status["bus"]["length"], status["bus"]["durability"]) == (1, "durable")
    assert status["workers"] == []
    assert "1 entries, 1 unread" in cli.ok("status")


def test_audit_holds_and_fails(cli: Cli) -> None:
    cli.ok("publish", "a.b")
    _route(cli)
    assert cli.json("audit")["violations"] == []
    assert "both laws hold" in cli.ok("audit", "--shallow")
    incarnation = cli.engine.bus.incarnation()
    assert incarnation is not None
    note_missing(cli.engine.database, incarnation, ["1-1"])
    failed = cli.run("audit")
    assert failed.code == 4
    assert "INCIDENT" in failed.out
    (incident,) = json.loads(cli.run("audit", "--json").out)["incidents"]
    assert "acknowledged" in cli.ok("audit", "acknowledge", incident["id"])
    cli.ok("audit")
    assert cli.run("audit", "acknowledge", "incident_x").code == 1


def test_audit_without_a_bus_is_unavailable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_REDIS_URL", "redis://127.0.0.1:1")
    said = cli.run("audit")
    assert said.code == 3
    assert said.err.startswith("error: bus ")


def test_doctor_finds_what_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("AUGURY_PROT", "80")
    said = cli.run("doctor", "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert "problem" in {finding["level"] for finding in found}
    assert any("AUGURY_PROT" in finding["message"] for finding in found)
