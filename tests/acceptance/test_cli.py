"""The sixty seconds of the README, as a user types them; and the habits of a good command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from harness import AUGURY, Augury
from scored import Scored, write_file

pytestmark = pytest.mark.slow

FUNCTIONS = """\
import pathlib
import augury

@augury.function
def note(call: augury.FunctionCall) -> None:
    pathlib.Path(call.arguments["path"]).write_text(call.id)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    """One installation for all tests of this module."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "functions_of_ops.py").write_text(FUNCTIONS)
    augury = Augury(folder, workers=1, functions="functions_of_ops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        augury.up()
    world = Scored(augury)
    world.apply()
    try:
        yield world
    finally:
        world.database.close()
        assert augury.down() == 0


def test_the_sixty_seconds(world: Scored) -> None:
    waiting = world.folder / "day.parquet"
    write_file(waiting, 5_000, seed=3)
    shutil.copy(waiting, world.landing / "day.parquet")  # as `cp` does it: not at once
    watched = world.augury.run("runs", "watch", timeout_s=90)
    assert watched.returncode == 0, watched.stderr + watched.stdout
    assert "SUCCEEDED: 5,000 rows predicted" in watched.stdout
    (run,) = world.augury.json("runs", "list", "--state", "SUCCEEDED")
    assert (run["job_name"], run["rows_predicted"]) == ("score", 5_000)
    assert Path(run["manifest_uri"].removeprefix("file://")).is_file()
    world.until_routed()
    audited = world.augury.run("audit")
    assert audited.returncode == 0, audited.stdout
    assert "both laws hold" in audited.stdout


def test_status_and_doctor_of_a_healthy_installation(world: Scored) -> None:
    status = world.augury.json("status")
    # one process, which takes scripts beside its other work
    processes = {worker["pid"] for worker in status["workers"]}
    assert [len(processes), status["bus"]["durability"]] == [1, "durable"]
    findings = world.augury.json("doctor")
    assert [found for found in findings if found["level"] == "problem"] == []


def test_actions_outside_are_delivered_by_dispatcher_and_worker(world: Scored) -> None:
    """By real processes, the dispatcher just killed; what failed for good is a dead letter."""
    bus, noted = world.augury.settings.effective_redis_url, world.folder / "noted.txt"
    actions = [
        {"stream": {"redis": {"url": bus, "stream": "told", "body": "${data.n}"}}},
        {"call": {"function": "note", "arguments": {"path": str(noted)}}},
        {"notify": {"slack": {"url_secret": "NOT_SET", "text": "t"}}},
    ]
    rule = {"name": "tell", "pattern": {"type": ["acme.told"]}, "actions": actions}
    world.apply_document({"rules": [rule]}, "tell.yaml")
    world.augury.kill("dispatcher")
    published = world.augury.run("publish", "acme.told", "--data", '{"n": 7}')
    event_id = published.stdout.strip()
    open_states = {"QUEUED", "RETRYING"}

    def outcomes() -> dict[str, dict[str, str]]:
        status, shown = world.augury.http("GET", f"/v1/events/{event_id}")
        return {one["action"]: one for one in shown["outcomes"]} if status == 200 else {}

    world.augury.until(
        lambda: outcomes() and not open_states & {one["state"] for one in outcomes().values()},
        "every action is over",
    )
    found = outcomes()
    states = {action: one["state"] for action, one in found.items()}
    assert states == {"stream": "DELIVERED", "call": "DELIVERED", "notify": "DEAD"}
    with redis.Redis.from_url(bus, decode_responses=True) as client:
        ((_, entry),) = client.xrange("told")
    assert entry == {"id": found["stream"]["id"], "type": "acme.told", "body": "7"}
    assert noted.read_text() == found["call"]["id"]
    (letter,) = world.augury.json("deadletters", "list", "--kind", "action", "--state", "open")
    assert (letter["outcome_id"], letter["attempts"]) == (found["notify"]["id"], 1)
    assert "AUGURY_SECRET_NOT_SET" in letter["reason"]
    assert world.augury.run("deadletters", "discard", letter["id"]).returncode == 0


def test_ctrl_c_is_a_clean_end(world: Scored) -> None:
    """Events are shown as they come, through a pipe as well; then the user has seen enough."""
    told = world.folder / "tail.txt"
    with told.open("wb") as out:
        tail = subprocess.Popen(
            [AUGURY, "events", "tail", "-f", "--type", "marker.*"],
            cwd=world.folder,
            env=world.augury.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:

        def is_shown() -> bool:
            world.augury.json("publish", "marker.was.set")
            return "marker.was.set" in told.read_text()

        world.augury.until(is_shown, "the event is shown", timeout_s=60)
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130
    finally:
        tail.kill()
        tail.wait()
    assert "Traceback" not in told.read_text()


def test_a_reader_that_goes_away_is_no_error(world: Scored) -> None:
    shown = subprocess.run(
        f"{AUGURY} events list --json --limit 1000 | head -c 10",
        shell=True,
        cwd=world.folder,
        env=world.augury.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("[")
    assert "Traceback" not in shown.stderr


def test_logs_are_not_results(world: Scored) -> None:
    """With `--json` stdout is JSON and nothing else, however much there is to say."""
    done = world.augury.run("publish", "a.thing.happened", "--json")
    assert json.loads(done.stdout)["ids"]
    run = world.augury.run("runs", "start", "score", "--input", world.landing.as_uri() + "/")
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    assert line.startswith("run_")
    assert world.augury.run("runs", "watch", line, timeout_s=90).returncode == 0
