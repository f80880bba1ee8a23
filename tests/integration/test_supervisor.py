"""The supervisor over real children of every habit: started, restarted, drained, killed.

Each test runs over both kinds of children: interpreters of their own, and forks of the supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from augury import clock
from augury.processes.forked import CAN_FORK

_PROGRAM = Path(__file__).with_name("supervised.py")
_needs_fork = pytest.mark.skipif(not CAN_FORK, reason="forking is safe on Linux only")


class Supervised:
    """The program under test and what it has told so far."""

    def __init__(self, folder: Path, how: str, habits: list[str]) -> None:
        self.folder = folder
        command = [sys.executable, str(_PROGRAM), str(folder), how, *habits]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.told: list[dict[str, Any]] = []

    def until(self, action: str, child: str = "") -> dict[str, Any]:
        """Reads on until it tells of `action`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))
            if self.told[-1]["action"] == action and self.told[-1]["child"] == child:
                return self.told[-1]
        pytest.fail(f"it ended without telling {action} {child}: {self.told}")

    def end(self) -> int:
        """Waits for the end; returns the exit code."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))
        return self.process.wait(20)

    def actions(self) -> list[tuple[str, str]]:
        return [(notice["action"], notice["child"]) for notice in self.told]


@pytest.fixture(params=["started", pytest.param("forked", marks=_needs_fork)])
def supervise(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    started: list[Supervised] = []

    def start(*habits: str) -> Supervised:
        started.append(Supervised(tmp_path, request.param, list(habits)))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


def _gone(pids: dict[str, int], timeout_s: float = 5.0) -> bool:
    """True once no process of these, nor of the groups that they led, is left."""
    deadline = clock.monotonic_s() + timeout_s
    while any(_group_lives(pid) for pid in pids.values()):
        if clock.monotonic_s() > deadline:
            return False
        clock.sleep_s(0.02)
    return True


def _group_lives(pgid: int) -> bool:
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return False


def test_one_ctrl_c_drains_in_order(supervise: Any) -> None:
    run = supervise("slow", "good", "slow")
    pids = run.until("all_ready")["pids"]
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0
    assert run.actions()[-2:] == [("stopping", ""), ("stopped", "")]
    for phase in (0, 2):
        log = run.folder / "logs" / f"slow-{phase}.log"
        assert log.read_text() == "finished\n"
    first, last = (run.folder / "logs" / f"slow-{phase}.log" for phase in (0, 2))
    assert last.stat().st_mtime_ns - first.stat().st_mtime_ns > 250_000_000
    assert _gone(pids)


def test_second_ctrl_c_stops_at_once(supervise: Any) -> None:
    run = supervise("deaf", "slow")
    pids = run.until("all_ready")["pids"]
    run.process.send_signal(signal.SIGINT)
    run.until("stopping")
    asked_s = clock.monotonic_s()
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert clock.monotonic_s() - asked_s < 1.0
    assert (run.folder / "logs" / "slow-1.log").read_text() == ""
    assert _gone(pids)


def test_deaf_child_is_killed_after_its_time_and_said_so(supervise: Any) -> None:
    run = supervise("deaf", "good")
    pids = run.until("all_ready")["pids"]
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0
    assert ("child_killed", "deaf-0") in run.actions()
    assert _gone(pids)


def test_dead_child_is_started_again_and_said_so(supervise: Any) -> None:
    run = supervise("good", "good")
    before = run.until("all_ready")["pids"]
    os.kill(before["good-1"], signal.SIGKILL)
    assert "signal 9 (SIGKILL)" in run.until("child_ended", "good-1")["message"]
    after = run.until("child_ready", "good-1")["pids"]
    assert after["good-0"] == before["good-0"]
    assert after["good-1"] != before["good-1"]
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0
    assert _gone({**before, "again": after["good-1"]})


def test_restarts_back_off(supervise: Any) -> None:
    run = supervise("good")
    pids = run.until("all_ready")["pids"]
    delays = []
    for _ in range(3):
        os.kill(pids["good-0"], signal.SIGKILL)
        message = run.until("child_ended", "good-0")["message"]
        delays.append(message.partition("again in ")[2].partition(" s")[0])
        pids = run.until("child_ready", "good-0")["pids"]
    assert delays == ["0.1", "0.2", "0.4"]
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0


def test_child_that_fails_at_first_is_tried_again(supervise: Any) -> None:
    run = supervise("late")
    run.until("all_ready")
    ended = [notice["message"] for notice in run.told if notice["action"] == "child_ended"]
    assert len(ended) == 2
    assert all("exit code 5" in message for message in ended)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0


def test_hopeless_child_stops_everything_and_is_quoted(supervise: Any) -> None:
    run = supervise("good", "hopeless")
    gave_up = run.until("gave_up", "hopeless-1")
    assert "no such luck" in gave_up["message"]
    assert run.end() == 1
    assert _gone(gave_up["pids"])


def test_nothing_is_left_of_a_dead_childs_own_children(supervise: Any) -> None:
    run = supervise("parent")
    pids = run.until("all_ready")["pids"]
    assert len(psutil.Process(pids["parent-0"]).children()) == 1
    os.kill(pids["parent-0"], signal.SIGKILL)
    again = run.until("child_ready", "parent-0")["pids"]
    assert _gone(pids)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0
    assert _gone(again)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's doing on Linux")
def test_killed_supervisor_takes_its_children_with_it(supervise: Any) -> None:
    run = supervise("good", "good")
    pids = run.until("all_ready")["pids"]
    run.process.kill()
    assert _gone(pids)
