"""`augury events list|show|tail` and the API's lists: filters, outcomes, runs."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from api_world import serve
from cli_world import Cli
from routing_world import World, event

from augury import clock


@pytest.fixture
def world(cli: Cli) -> World:
    world = World(cli.engine.database, cli.engine.settings)
    world.job()
    world.rule("things", {"type": ["acme.thing"]})
    world.rule("no job", {"data": {"n": [2]}}, [{"start_run": {"job": "missing"}}])
    world.publish(event(id="one", n=1), event(id="two", n=2), event("acme.other", id="three"))
    world.drain()
    return world


def _listed(cli: Cli, *options: str) -> list[str]:
    found = cli.json("events", "list", "--type", "acme.*", *options)
    return [item["event_id"] for item in found]


def test_filters(world: World, cli: Cli) -> None:
    assert _listed(cli) == ["three", "two", "one"]
    assert _listed(cli, "--rule", "things") == ["two", "one"]
    assert _listed(cli, "--rule", "no job", "--outcome", "dead") == ["two"]
    assert _listed(cli, "--outcome", "STARTED", "--limit", "1") == ["two"]
    assert _listed(cli, "--since", "1h") == ["three", "two", "one"]
    assert _listed(cli, "--until", "1h") == []
    assert _listed(cli, "--since", "2020-01-01", "--until", clock.iso(clock.utc_now())) != []
    assert _listed(cli, "--source", "/nobody") == []
    said = cli.run("events", "list", "--since", "yesterday")
    assert (said.code, "expected a time such as" in said.err) == (1, True)
    assert "expected one of PENDING" in cli.run("events", "list", "--outcome", "x").err
    assert "no rule named" in cli.run("events", "list", "--rule", "x").err
    assert "1 DEAD, 1 STARTED" in cli.ok("events", "list", "--rule", "no job")


def test_one_event_with_outcomes_and_runs(world: World, cli: Cli) -> None:
    said = cli.ok("events", "show", "two")
    assert "things" in said
    assert "no job named 'missing'" in said
    assert "ACCEPTED" in said  # the run's state
    assert len(cli.json("events", "show", "two")["outcomes"]) == 2


def test_the_last_ones(world: World, cli: Cli) -> None:
    lines = cli.ok("events", "tail", "--type", "acme.*", "-n", "2").splitlines()
    assert [line.split()[2:4] for line in lines] == [["acme.thing", "two"], ["acme.other", "three"]]
    assert lines[1].endswith("no rule")
    assert cli.ok("events", "tail", "-n", "0") == ""


def test_following(world: World, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[event(id="four", n=1), event("other", id="five")], [event(id="six", n=2)]])

    def sleep(_s: float, until: Any = None) -> bool:
        coming = next(looks, None)
        if coming is None:
            raise KeyboardInterrupt
        world.publish(*coming)
        monkeypatch.undo()
        world.drain()
        monkeypatch.setattr("augury.cli.events.clock.sleep_s", sleep)
        return False

    monkeypatch.setattr("augury.cli.events.clock.sleep_s", sleep)
    said = cli.run("events", "tail", "-f", "--rule", "things", "-n", "1", "--json")
    told = [json.loads(line)["event_id"] for line in said.out.splitlines()]
    assert (said.code, told) == (130, ["two", "four", "six"])


def test_the_api_filters(world: World, cli: Cli) -> None:
    with serve(cli.engine.settings) as api:
        found = api.get("/v1/events?rule=things&outcome=started&since=1h").body["items"]
        assert [item["event_id"] for item in found] == ["two", "one"]
        assert {outcome["state"] for outcome in found[0]["outcomes"]} == {"STARTED", "DEAD"}
        assert api.get("/v1/events?since=never").status == 400
        assert api.get("/v1/events?rule=nobody").status == 404


def test_the_api_tells_of_events_as_they_come(world: World, cli: Cli) -> None:
    with serve(cli.engine.settings) as api:
        address = f"{api.url}/v1/events/stream?rule=things&after=0"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            told = _told(answer, 2)
            world.publish(event(id="four", n=1))
            world.drain()
            told += _told(answer, 1)
        assert [item["event_id"] for item in told] == ["one", "two", "four"]
        since = urllib.request.Request(f"{api.url}/v1/events/stream?type=acme.*")
        since.add_header("Last-Event-ID", str(told[0]["position"]))
        with urllib.request.urlopen(since, timeout=30) as answer:
            assert _told(answer, 1)[0]["event_id"] == "two"


def _told(answer: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        line = answer.readline().decode()
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
    return found
