"""Scripts through `augury up`: applied, run, followed, canceled, and lost with their worker."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import AUGURY, Augury

pytestmark = pytest.mark.slow
_EXAMPLE = Path(__file__).parents[2] / "examples" / "script-job"


def _state(augury: Augury, run: str) -> str:
    return str(augury.http("GET", f"/v1/runs/{run}")[1]["state"])


def _following(augury: Augury, run: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [AUGURY, "runs", "logs", run, "-f", "--stream", "stdout", "--json"],
        env=augury.environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def _events(augury: Augury, run: str) -> list[dict[str, Any]]:
    """All server-sent events of a run, once it is over."""
    with urllib.request.urlopen(f"{augury.url}/v1/runs/{run}/logs/live", timeout=60) as answer:
        text = answer.read().decode()
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


def test_a_script_is_applied_run_followed_canceled_and_lost(
    start_augury: Callable[..., Augury],
) -> None:
    folder_of = start_augury(workers=1, lease_timeout_s="2", heartbeat_s="0.5")
    augury = folder_of
    shutil.copytree(_EXAMPLE, augury.folder / "job")
    applied = augury.json("apply", "-f", "job/augury.yaml")
    assert [item["change"] for item in applied["items"]] == ["created", "created"]

    run = augury.json("runs", "start", "hello", "--args", "--name Ada", "--env", "GREETING=Hi")
    lines = [
        json.loads(line)
        for line in _following(augury, run["id"]).communicate(timeout=60)[0].splitlines()
    ]
    assert [line["message"] for line in lines] == [f"Hi from {run['id']} to Ada"]
    shown = augury.json("runs", "show", run["id"])
    assert (shown["state"], shown["exit_code"]) == ("SUCCEEDED", 0)
    assert (augury.folder / "job/output" / run["id"] / "greeting.txt").read_text() == "Hi, Ada!\n"
    events = _events(augury, run["id"])
    assert json.loads(events[-1]["data"]) == {"state": "SUCCEEDED"}
    texts = [json.loads(event["data"])["message"] for event in events[:-1]]
    assert texts.index("Job run artifact execution in progress.") < texts.index(lines[0]["message"])

    run = augury.json("runs", "start", "countdown")
    with _following(augury, run["id"]) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["message"] == "600"  # long before its end
        assert augury.run("runs", "cancel", run["id"]).returncode == 0
        *_, last = following.stdout.read().splitlines()
    assert json.loads(last)["message"].startswith("stopped at ")
    assert _state(augury, run["id"]) == "CANCELED"

    run = augury.json("runs", "start", "countdown")
    augury.until(lambda: _state(augury, run["id"]) == "IN_PROGRESS", "it runs")
    augury.kill("worker-1")
    augury.until(lambda: _state(augury, run["id"]) == "FAILED", "it is known to be lost")
    shown = augury.json("runs", "show", run["id"])
    assert (shown["reason"], shown["exit_code"]) == ("worker_lost", None)
    assert _countdowns(augury) == []
    assert augury.run("audit").returncode == 0
    assert augury.down() == 0


def _countdowns(augury: Augury) -> list[int]:
    """Processes that still work in a folder of a run."""
    scratch = str(augury.home / "work")
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(scratch in part for part in process.info["cmdline"] or ())
    ]
