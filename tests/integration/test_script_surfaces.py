"""Script jobs over HTTP and on the command line, and what audit says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from api_world import Api, serve
from audit_world import Corruptions, Snapshot
from cli_world import Cli
from script_world import ScriptWorld, succeeded

from augury.engine import Engine
from augury.execution.local_executor import LocalExecutor
from augury.ids import digest
from augury.monitoring.audit import audit
from augury.processes.valkey import ValkeyServer
from augury.resources.documents import parse_document
from augury.scripts.artifacts import key_of
from augury.settings import Settings
from augury.storage.tables import run_output, runs, work

_SCRIPT = b"print('hello')\n"
_DOCS = Path(__file__).parents[2] / "docs" / "jobs.md"
_CORRUPTIONS = Corruptions[ScriptWorld]()
type Corruption = Callable[[ScriptWorld], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[ScriptWorld]:
    """One installation with one run that succeeded."""
    folder = tmp_path_factory.mktemp("surfaces")
    settings = Settings(
        home=folder / "home", redis_url=valkey.url, namespace=folder.name,
        lease_timeout_s=0.2, sweep_s=0.05,
    )  # fmt: skip
    with Engine(settings) as engine:
        found = ScriptWorld(engine, folder / "files")
        found.script("hello.py", _SCRIPT.decode())
        succeeded(found.ran("hello.py"))
        yield found
        found.close()


# --- HTTP -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(world: ScriptWorld) -> Iterator[Api]:
    with serve(world.settings) as found:
        yield found


def test_an_artifact_is_uploaded_and_named_by_a_job(api: Api, world: ScriptWorld) -> None:
    uploaded = api.request("POST", "/v1/job-artifacts?file_name=up.py", raw=_SCRIPT)
    assert (uploaded.status, uploaded.body) == (
        201,
        {"digest": digest(_SCRIPT), "file_name": "up.py", "size_bytes": len(_SCRIPT)},
    )
    put = api.request("PUT", "/v1/jobs/up", {"kind": "script", "artifact": uploaded.body})
    assert (put.status, put.body["change"]) == (201, "created")
    run = api.request("POST", "/v1/runs", {"job": "up", "arguments": "a b"})
    assert (run.status, run.body["spec"]["arguments"]) == (201, ["a", "b"])
    world.executor.wake("script")
    world.until(lambda: api.get(f"/v1/runs/{run.body['id']}").body["exit_code"] == 0, "it ran")
    logs = api.get(f"/v1/runs/{run.body['id']}/logs?stream=stdout").body["items"]
    assert [line["message"] for line in logs] == ["hello"]
    behind = api.get(f"/v1/runs/{run.body['id']}/logs?after={logs[0]['cursor']}").body["items"]
    assert [line["message"] for line in behind][:1] == ["Infrastructure provisioning."]


def test_pages_of_a_log_are_the_whole_log(api: Api, world: ScriptWorld) -> None:
    run = next(iter(api.get("/v1/runs?job=hello.py").body["items"]))["id"]
    whole = api.get(f"/v1/runs/{run}/logs").body["items"]
    assert {line["stream"] for line in whole} == {"service", "stdout"}
    paged, after = [], ""
    while after is not None:
        page = api.get(f"/v1/runs/{run}/logs?limit=2&after={after}").body
        paged += page["items"]
        after = page["next"]
    assert paged == whole


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/runs/hello.py/logs?after=x", "expected the cursor of a line"),
        ("/v1/runs/hello.py/logs?stream=stdin", "stream"),
    ],
)
def test_a_bad_question_about_a_log(api: Api, path: str, told: str) -> None:
    run = api.get("/v1/runs?job=hello.py").body["items"][0]["id"]
    answer = api.get(path.replace("hello.py", run))
    assert answer.status == 400
    assert told in answer.body["message"]


def test_what_no_job_can_run_is_not_taken(api: Api) -> None:
    for name, status, told in (
        ("model.bin", 400, "expected a .py or .sh file"),
        ("a.zip", 422, "is no readable archive"),
        ("a%2Fb.py", 400, "file_name"),
    ):
        answer = api.request("POST", f"/v1/job-artifacts?file_name={name}", raw=b"\x00\x01")
        assert (answer.status, told in answer.body["message"]) == (status, True), answer.body
    missing = {"digest": "0" * 64, "file_name": "a.py", "size_bytes": 1}
    answer = api.request("PUT", "/v1/jobs/none", {"kind": "script", "artifact": missing})
    assert (answer.status, "none with digest 0000" in answer.body["message"]) == (400, True)
    answer = api.request("PUT", "/v1/jobs/none", {"kind": "container"})
    assert "expected one of inference, script, found 'container'" in answer.body["message"]


def test_every_fault_of_a_script_job_is_named(api: Api) -> None:
    body = {
        "kind": "script",
        "artifact": "/no/such/file.py",
        "environment": {"1A": "x"},
        "arguments": "'",
        "memory": 1,
    }
    faults = api.request("PUT", "/v1/jobs/none", body).body["faults"]
    assert {fault["path"].rpartition(".")[2] for fault in faults} >= {
        "artifact",
        "environment",
        "arguments",
        "memory",
    }


def test_there_is_nothing_to_plan(api: Api) -> None:
    answer = api.request("POST", "/v1/plan", {"job": "hello.py"})
    assert (answer.status, "runs a script" in answer.body["message"]) == (400, True)


def test_a_script_cannot_go_on_in_its_middle(api: Api, world: ScriptWorld) -> None:
    world.script("fails.sh", "exit 1\n")
    run = world.ran("fails.sh")
    answer = api.request("POST", f"/v1/runs/{run.id}/resume")
    assert (answer.status, "start a new run" in answer.body["message"]) == (409, True)


# --- documents ------------------------------------------------------------------------------------


def test_the_examples_of_the_page_are_taken(world: ScriptWorld) -> None:
    text = _DOCS.read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    world.file("train.py", "")
    result = world.engine.apply(parse_document(text, base=world.folder), dry_run=True)
    assert [(item.kind, item.name, item.change) for item in result.items] == [
        ("job", "train", "created")
    ]


def test_a_rule_starts_a_script_with_its_object(world: ScriptWorld) -> None:
    from augury.actions.spec import parse_actions
    from augury.actions.start_run import resolve_run

    (action,) = parse_actions([{"start_run": {"job": "hello.py", "environment": {"A": "1"}}}])
    event = {"data": {"uri": "s3://landing/a.csv", "tag": "t"}}
    request = resolve_run(action, event)
    run, _ = world.engine.start_run(request.job_name, request.overrides)
    world.executor.wake("script")
    run = succeeded(world.finished(run))
    assert run.spec["input"] == [{"uri": "s3://landing/a.csv", "tag": "t"}]
    assert run.spec["environment"] == {"A": "1"}


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line_applies_by_path(cli: Cli) -> None:
    cli.write("hello.py", _SCRIPT.decode())
    cli.write("jobs.yaml", "jobs: [{name: hello, kind: script, artifact: hello.py}]")
    assert "created" in cli.ok("apply", "-f", "jobs.yaml")
    assert "unchanged" in cli.ok("apply", "-f", "jobs.yaml")
    cli.write("hello.py", "print('more')")
    assert "updated" in cli.ok("apply", "-f", "jobs.yaml")
    run = json.loads(cli.ok("runs", "start", "hello", "--args", "a 'b c'", "--json"))
    assert run["spec"]["arguments"] == ["a", "b c"]
    assert "Infrastructure provisioning." in cli.ok("runs", "logs", run["id"])
    assert cli.ok("runs", "logs", run["id"], "--stream", "stdout") == ""


def test_the_command_line_shows_a_script_run(cli: Cli) -> None:
    cli.write("run.sh", "printf 'a\\tb\\033[2J\\n'; exit $CODE\n")
    cli.write("jobs.yaml", "jobs: [{name: run, kind: script, artifact: run.sh, output: out/}]")
    cli.ok("apply", "-f", "jobs.yaml")
    local = LocalExecutor(cli.engine.database, cli.engine.settings, queues=("script",)).start()
    try:
        for code in (0, 3):
            run = cli.ok("runs", "start", "run", "--env", f"CODE={code}").strip()
            local.wake("script")
            said = cli.run("runs", "watch", run)
            assert said.code == (code and 1)
            assert "stdout   a\tb\\x1b[2J\n" in said.out
            ended = f"{run} SUCCEEDED: exit code 0" if code == 0 else f"{run} FAILED: Job run"
            assert ended in said.out
            assert "rows" not in said.out
    finally:
        local.close()
    listed = cli.json("runs", "list")
    assert [item["exit_code"] for item in listed] == [3, 0]
    assert cli.run("runs", "logs", run, "--stream", "stdin").code == 2


# --- audit ----------------------------------------------------------------------------------------


def _change(world: ScriptWorld, statement: sa.Executable) -> None:
    world.database.transact(lambda connection: connection.execute(statement))


@_CORRUPTIONS.breaks("run_script")
def a_success_with_another_exit_code(world: ScriptWorld) -> None:
    _change(world, sa.update(runs).values(exit_code=3))


@_CORRUPTIONS.breaks("run_script")
def a_success_by_a_signal(world: ScriptWorld) -> None:
    _change(world, sa.update(runs).values(exit_signal="SIGKILL"))


@_CORRUPTIONS.breaks("run_script")
def a_success_whose_work_is_not_done(world: ScriptWorld) -> None:
    _change(world, sa.update(work).values(state="CANCELED"))


@_CORRUPTIONS.breaks("run_script")
def a_failure_that_is_committed(world: ScriptWorld) -> None:
    changes = {"state": "CANCELED", "reason": "canceled"}
    _change(world, sa.update(runs).values(**changes))


@_CORRUPTIONS.breaks("run_work")
def a_script_with_a_plan(world: ScriptWorld) -> None:
    with world.database.read() as connection:
        item = dict(connection.execute(sa.select(work)).first()._mapping)
    _change(world, sa.insert(work).values(**{**item, "id": "work_more", "kind": "plan"}))


@_CORRUPTIONS.breaks("run_log")
def a_log_with_a_gap(world: ScriptWorld) -> None:
    _change(world, sa.update(run_output).values(first_number=2, last_number=2))


@_CORRUPTIONS.breaks("job_artifact")
def an_artifact_that_is_gone(world: ScriptWorld) -> None:
    world.engine.store.delete(key_of(digest(_SCRIPT)))


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_audit_names_what_is_broken(world: ScriptWorld, check: str, corrupt: Corruption) -> None:
    snapshot = Snapshot(world.database)
    assert _broken(world) == set()
    corrupt(world)
    found = _broken(world)
    snapshot.restore()
    world.engine.store.put(key_of(digest(_SCRIPT)), _SCRIPT)
    assert found - {"run_event"} == {check}


def _broken(world: ScriptWorld) -> set[str]:
    report = audit(world.database, world.engine.bus, world.settings, deep=True)
    return {violation.check for violation in report.violations}
