"""`augury apply`, `delete`, and the commands of every kind of resource."""

from __future__ import annotations

from io import BytesIO, TextIOWrapper

import pytest
import sqlalchemy as sa
from cli_world import Cli

from augury.storage import tables

_DOCUMENT = """\
sources:
  - name: landing
    uri: ./landing/
schedules:
  - name: daily
    cron: "0 6 * * *"
    timezone: Europe/Berlin
jobs:
  - name: score
    model: label@champion
    input: [{uri: ./in/}]
    output: ./out/
rules:
  - name: arrivals
    pattern: {type: [augury.object.created], data: {source: [landing]}}
    actions:
      - start_run: {job: score}
"""


def test_apply_makes_everything_once(cli: Cli) -> None:
    cli.write("demo/augury.yaml", _DOCUMENT)
    first = cli.json("apply", "-f", "demo/augury.yaml")
    assert [(item["kind"], item["change"]) for item in first["items"]] == [
        ("source", "created"), ("schedule", "created"), ("job", "created"), ("rule", "created"),
    ]  # fmt: skip
    again = cli.json("apply", "-f", "demo/augury.yaml")
    assert {(item["change"], item["version"]) for item in again["items"]} == {("unchanged", 1)}
    job = cli.json("jobs", "show", "score")
    base = f"file://{cli.folder}/demo"
    assert job["spec"]["output"] == f"{base}/out/"
    assert job["spec"]["input"] == [{"uri": f"{base}/in/", "tag": None}]
    assert cli.json("sources", "show", "landing")["spec"]["uri"] == f"{base}/landing/"


def test_apply_warns_of_what_is_not_there_yet(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT.replace("job: score", "job: scoer"))
    said = cli.run("apply", "-f", "a.yaml")
    assert said.code == 0
    assert "warning: job 'score'" in said.err
    assert "label" in said.err
    assert "'scoer', which does not exist" in said.err
    assert "warning" not in said.out


def test_apply_refuses_everything_or_nothing(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    cli.write("b.yaml", "jobs:\n- name: score\n  model: m\n  outptu: x\n- {name: 'a b'}\n")
    said = cli.run("apply", "-f", "a.yaml", "-f", "b.yaml")
    assert said.code == 1
    assert "line 5: b.yaml: jobs.1.name" in said.err
    cli.write("b.yaml", "jobs:\n- name: score\n  model: m\n  outptu: x\n")
    said = cli.run("apply", "-f", "a.yaml", "-f", "b.yaml")
    assert said.code == 1
    assert "line 4: b.yaml: jobs.score.outptu: unknown field; did you mean 'output'?" in said.err
    assert "the first is in line" in said.err
    assert "Traceback" not in said.err
    assert cli.json("sources", "list") == []


def test_apply_dry_run_writes_nothing(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    assert "created" in cli.ok("apply", "-f", "a.yaml", "--dry-run")
    assert cli.json("rules", "list") == []
    with cli.engine.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.outbox)) == 0


def test_apply_from_stdin_is_relative_to_here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(_DOCUMENT.encode())))
    cli.ok("apply", "-f", "-")
    assert cli.json("jobs", "show", "score")["spec"]["output"] == f"file://{cli.folder}/out/"


def test_files_that_are_not_there(cli: Cli) -> None:
    said = cli.run("apply", "-f", "nowhere.yaml")
    assert (said.code, said.err) == (1, "error: no file nowhere.yaml\n")
    assert cli.run("apply", "-f", ".").code == 1
    cli.write("m.yaml", "models: [{name: m, path: nowhere.ubj}]")
    assert f"found none at {cli.folder}/nowhere.ubj" in cli.run("apply", "-f", "m.yaml").err


def test_every_kind_is_listed_shown_and_deleted(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    cli.ok("apply", "-f", "a.yaml")
    names = {"sources": "landing", "schedules": "daily", "jobs": "score", "rules": "arrivals"}
    for noun, name in names.items():
        assert [item["name"] for item in cli.json(noun, "list")] == [name]
        listed = cli.ok(noun, "list").splitlines()
        assert listed[0].startswith("name")
        assert listed[1].startswith(name)
        assert name in cli.ok(noun, "show", name)
        assert cli.ok(noun, "delete", name) == f"{noun[:-1]} {name} deleted\n"
        gone = cli.run(noun, "show", name)
        assert gone.code == 1
        assert f"no {noun[:-1]} named '{name}'" in gone.err


def test_resources_are_switched(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    cli.ok("apply", "-f", "a.yaml")
    for noun, name in (("rules", "arrivals"), ("schedules", "daily"), ("sources", "landing")):
        assert "disabled (updated, version 2)" in cli.ok(noun, "disable", name)
        assert cli.json(noun, "show", name)["enabled"] is False
        assert "enabled (updated, version 3)" in cli.ok(noun, "enable", name)
        assert "enabled (unchanged, version 3)" in cli.ok(noun, "enable", name)


def test_delete_by_document_and_by_name(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    cli.ok("apply", "-f", "a.yaml")
    assert cli.ok("delete", "rule", "arrivals") == "rule arrivals deleted\n"
    said = cli.run("delete", "-f", "a.yaml")
    assert said.code == 0
    assert said.out.splitlines() == [
        "job score deleted", "schedule daily deleted", "source landing deleted",
    ]  # fmt: skip
    assert "no rule arrivals" in said.err
    assert cli.run("delete", "job", "score").code == 1


def test_changes_are_on_the_bus_at_once(cli: Cli) -> None:
    cli.write("a.yaml", _DOCUMENT)
    cli.ok("apply", "-f", "a.yaml")
    assert len(cli.engine.bus.entries("", 100)) == 4


def test_without_a_bus_changes_wait_in_the_outbox(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_REDIS_URL", "redis://127.0.0.1:1")
    cli.write("a.yaml", _DOCUMENT)
    cli.ok("apply", "-f", "a.yaml")
    with cli.engine.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.outbox)) == 4
