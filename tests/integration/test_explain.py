"""`augury explain` and the API's: the pattern's answer beside what the ledger knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_world import serve
from cli_world import Cli, command_line
from routing_world import World, event

from augury.settings import Settings
from augury.storage.database import Database

RULE = {"type": ["acme.thing"], "data": {"n": [1]}}


@pytest.fixture
def wired(settings: Settings, sqlite_database: Database, bus_url: str) -> Settings:
    return settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})


@pytest.fixture
def world(wired: Settings, sqlite_database: Database) -> World:
    world = World(sqlite_database, wired)
    world.job()
    world.rule("things", RULE)
    world.publish(event(id="met", n=1), event(id="missed", n="1"))
    world.drain()
    return world


@pytest.fixture
def cli(
    wired: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    with command_line(wired, tmp_path, monkeypatch, capsys) as found:
        yield found


def test_an_event_that_matched(world: World, cli: Cli) -> None:
    told = cli.json("explain", "met", "things")
    assert (told["matches"], told["failure"], told["rule_version"]) == (True, None, 1)
    (outcome,) = told["outcomes"]
    assert (outcome["state"], outcome["run_id"] is not None) == ("STARTED", True)
    said = cli.ok("explain", str(told["position"]), "things")
    assert "matches event met" in said
    assert outcome["run_id"] in said


def test_an_event_that_did_not(world: World, cli: Cli) -> None:
    said = cli.ok("explain", "missed", "things")
    assert "does not match event missed" in said
    assert "field     data.n" in said
    assert 'near miss (number-as-string): "1" at data.n' in said
    (miss,) = cli.json("explain", "missed", "things")["failure"]["near_misses"]
    assert miss["kind"] == "number-as-string"


def test_files_instead_of_what_the_ledger_holds(world: World, cli: Cli) -> None:
    cli.write("event.json", json.dumps(event(n=2)))
    cli.write("pattern.json", json.dumps({"data": {"n": [2]}}))
    cli.write("rule.yaml", "pattern: {data: {n: [3]}}\n")
    cli.write(
        "all.yaml",
        "rules:\n"
        "  - {name: two, pattern: {data: {n: [2]}}, actions: [{start_run: {job: score}}]}\n"
        "  - {name: three, pattern: {data: {n: [3]}}, actions: [{start_run: {job: score}}]}\n",
    )
    assert cli.json("explain", "event.json", "pattern.json")["matches"]
    assert not cli.json("explain", "event.json", "rule.yaml")["matches"]
    assert cli.json("explain", "event.json", "all.yaml", "--rule", "two")["matches"]
    refused = cli.run("explain", "event.json", "all.yaml")
    assert (refused.code, "say which with --rule" in refused.err) == (1, True)
    cli.write("shown.json", json.dumps(cli.json("events", "show", "met")))
    assert cli.json("explain", "shown.json", "things")["matches"]
    assert "expected an event in JSON" in cli.run("explain", "all.yaml", "things").err


def test_a_rule_that_has_changed_since(world: World, cli: Cli) -> None:
    world.rule("things", {"data": {"n": ["1"]}})
    assert "the rule was changed since" in cli.run("explain", "met", "things").err
    assert "it did not match when" in cli.run("explain", "missed", "things").err
    world.rule("things", {"data": {"n": ["1"]}}, enabled=False)
    assert "disabled" in cli.run("explain", "missed", "things").err
    assert cli.run("explain", "nobody", "things").code == 1
    assert "there are: things" in cli.run("explain", "met", "thing").err


def test_the_api_explains(world: World, wired: Settings) -> None:
    with serve(wired) as api:
        told = api.get("/v1/events/missed/explain?rule=things").body
        assert (told["matches"], told["failure"]["path"]) == (False, "data.n")
        assert api.get("/v1/events/met/explain?rule=things").body["matches"]
        assert api.get("/v1/events/met/explain?rule=nobody").status == 404
        assert api.get("/v1/events/met/explain").status == 400


def test_apply_warns_of_what_is_most_often_a_mistake(
    world: World, cli: Cli, wired: Settings
) -> None:
    rule = "rules:\n  - {{name: r, pattern: {}, actions: [{{start_run: {{job: score}}}}]}}\n"
    cli.write("a.yaml", rule.format('{type: [acme.thing], data: {n: ["1"], m: [2]}}'))
    said = cli.run("apply", "-f", "a.yaml")
    assert said.code == 0
    assert "rule 'r': never-seen: data.m: none of the last 2 events of this kind" in said.err
    cli.write("b.yaml", rule.format("{type: [x], $and: [{type: [y]}]}"))
    (warning,) = cli.json("apply", "-f", "b.yaml", "--dry-run")["warnings"]
    assert "never-matches: no event can ever match" in warning
    with serve(wired) as api:
        spec = {"pattern": {"n": [1]}, "actions": [{"start_run": {"job": "score"}}]}
        (warning,) = api.request("PUT", "/v1/rules/r", spec).body["warnings"]
        assert "write `data.n`" in warning
