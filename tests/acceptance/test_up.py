"""`augury up`: starts everything, keeps it running, and leaves nothing behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import Augury

from augury import clock

pytestmark = pytest.mark.slow

_CHILDREN = {
    *("valkey", "api", "router", "worker-1", "sources", "relay", "sweeper", "dispatcher"),
}
type Start = Callable[..., Augury]


def _is_healthy(augury: Augury) -> bool:
    status, _ = augury.http("GET", "/v1/health")
    return status == 200


def test_starts_serves_and_stops_in_order(start_augury: Start) -> None:
    augury = start_augury()
    ready = [n["child"] for n in augury.notices() if n["action"] == "child_ready"]
    assert set(ready) == _CHILDREN
    assert _is_healthy(augury)
    assert augury.down() == 0
    assert augury.notices()[-1]["action"] == "stopped"
    assert not (augury.home / "ready.json").exists()
    assert augury.left_running() == []
    killed = [n["message"] for n in augury.notices() if n["action"] == "child_killed"]
    assert killed == [], augury.story()


def test_second_up_on_the_same_home_says_so(start_augury: Start) -> None:
    augury = start_augury(workers=0)
    second = augury.run("up", "--port", "0")
    assert second.returncode == 1
    for told in ("already up", str(augury.home), str(augury.process and augury.process.pid)):
        assert told in second.stderr, second.stderr
    assert _is_healthy(augury)


@pytest.mark.parametrize("child", sorted(_CHILDREN))
def test_child_that_dies_is_started_again(start_augury: Start, child: str) -> None:
    augury = start_augury()
    old_pid = augury.kill(child)
    augury.until_restarted(child, old_pid)
    (ended,) = [n for n in augury.notices() if n["action"] == "child_ended"]
    assert ended["child"] == child
    assert "signal 9 (SIGKILL)" in ended["message"]
    augury.until(lambda: _is_healthy(augury), "healthy again")
    assert augury.down() == 0


def test_requests_wait_while_the_api_restarts(start_augury: Start) -> None:
    augury = start_augury(workers=0)
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(augury.http("GET", "/v1/health")[0])
            except ConnectionResetError:  # the one request that died with the process
                answers.append(0)
            except OSError as error:
                answers.append(-1 if "refused" in str(error) else 0)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        augury.until_restarted("api", augury.kill("api"))
        before = len(answers)
        augury.until(lambda: len(answers) > before + 3, "answers again")
    finally:
        stop.set()
        asking.join()
    assert -1 not in answers
    assert answers[-1] == 200


def test_two_ctrl_c_stop_at_once(start_augury: Start) -> None:
    augury = start_augury()
    assert augury.process is not None
    augury.process.send_signal(signal.SIGINT)
    augury.until(
        lambda: any(n["action"] == "stopping" for n in augury.notices()), "it heard the first"
    )
    asked_s = clock.monotonic_s()
    assert augury.down() in {0, 130}  # 0: it had drained before it heard the second
    assert clock.monotonic_s() - asked_s < 2.0
    assert augury.left_running() == []


def test_killed_supervisor_leaves_nothing_and_its_home_works_again(start_augury: Start) -> None:
    augury = start_augury()
    augury.kill_supervisor()
    deadline = clock.monotonic_s() + 20
    while left := augury.left_running():
        assert clock.monotonic_s() < deadline, left
        clock.sleep_s(0.05)
    augury.up()
    assert _is_healthy(augury)
    assert augury.down() == 0


def test_supervisor_killed_and_started_in_the_same_moment(start_augury: Start) -> None:
    augury = start_augury()
    augury.kill_supervisor()
    augury.up()
    assert _is_healthy(augury)
    assert augury.down() == 0


def test_port_that_is_taken_is_named(start_augury: Start) -> None:
    first = start_augury(workers=0)
    port = first.url.rpartition(":")[2]
    other = Augury(first.folder / "..", workers=0)
    other.home = first.folder / "other-home"
    done: Any = other.run("up", "--port", port)
    assert done.returncode == 3, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert other.left_running() == []
