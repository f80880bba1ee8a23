"""The sixty seconds of the README, as a user types them; and the habits of a good command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import AUGURY, Augury
from scored import Scored, write_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    """One installation for all tests of this module."""
    augury = Augury(tmp_path_factory.mktemp("cli"), workers=1)
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
    assert [len(status["workers"]), status["bus"]["durability"]] == [1, "durable"]
    findings = world.augury.json("doctor")
    assert [found for found in findings if found["level"] == "problem"] == []


def test_ctrl_c_is_a_clean_end(world: Scored) -> None:
    """Events are shown as they come, through a pipe as well; then the user has seen enough."""
    told = world.folder / "tail.txt"
    with told.open("wb") as out:
        tail = subprocess.Popen(
            [AUGURY, "events", "tail", "--type", "marker.*"],
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
