"""The heartbeat child: beats while its worker lives and moves, and no longer."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from augury import clock
from augury.execution import pulse as module
from augury.execution.pulse import Pulse


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE workers (id TEXT, heartbeat INTEGER, stopped_at TEXT)")
        connection.execute("INSERT INTO workers VALUES ('w', 0, 'lost'), ('other', 0, NULL)")
    connection.close()
    return path


def _row(ledger: Path, worker_id: str = "w") -> tuple[int, str | None]:
    connection = sqlite3.connect(ledger)
    select = "SELECT heartbeat, stopped_at FROM workers WHERE id = ?"
    (found,) = connection.execute(select, (worker_id,)).fetchall()
    connection.close()
    return found[0], found[1]


def _until(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic_s() + 20
    while not condition():
        assert clock.monotonic_s() < deadline
        clock.sleep_s(0.01)


def test_it_moves_its_own_counter_and_says_that_the_worker_lives(ledger: Path) -> None:
    pulse = Pulse(f"sqlite:///{ledger}", "w", 0.02)
    pulse.start()
    _until(lambda: _row(ledger)[0] > 3)
    pulse.stop()
    stopped = _row(ledger)
    assert stopped[1] is None
    assert _row(ledger, "other") == (0, None)
    clock.sleep_s(0.1)
    assert _row(ledger) == stopped
    pulse.stop()


def test_starting_twice_is_one_child_and_a_dead_one_is_replaced(ledger: Path) -> None:
    pulse = Pulse(f"sqlite:///{ledger}", "w", 0.02)
    pulse.start()
    first = pulse.pid
    pulse.start()
    assert pulse.pid == first
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def is_replaced() -> bool:
        pulse.start()
        return pulse.pid != first

    _until(is_replaced)
    before = _row(ledger)[0]
    _until(lambda: _row(ledger)[0] > before + 2)
    pulse.stop()


def _worker(ledger: Path) -> subprocess.Popen[bytes]:
    """A process with a pulse, that does nothing itself."""
    script = (
        "import sys, time\nfrom augury.execution.pulse import Pulse\n"
        "Pulse(sys.argv[1], 'w', 0.02).start()\ntime.sleep(60)"
    )
    return subprocess.Popen([sys.executable, "-c", script, f"sqlite:///{ledger}"])


def test_it_ends_with_a_worker_that_is_killed(ledger: Path) -> None:
    worker = _worker(ledger)
    _until(lambda: _row(ledger)[0] > 2)
    worker.kill()
    worker.wait()
    clock.sleep_s(0.3)
    last = _row(ledger)[0]
    clock.sleep_s(0.2)
    assert _row(ledger)[0] == last


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_frozen_worker_has_no_pulse(ledger: Path) -> None:
    worker = _worker(ledger)
    _until(lambda: _row(ledger)[0] > 2)
    worker.send_signal(signal.SIGSTOP)
    clock.sleep_s(0.3)
    last = _row(ledger)[0]
    clock.sleep_s(0.2)
    assert _row(ledger)[0] == last
    worker.send_signal(signal.SIGCONT)
    _until(lambda: _row(ledger)[0] > last)
    worker.kill()
    worker.wait()


def test_it_outlives_a_database_that_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    pulse = Pulse(f"sqlite:///{folder}/ledger.db", "w", 0.02)
    pulse.start()
    clock.sleep_s(0.2)
    folder.mkdir()
    path = folder / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE workers (id TEXT, heartbeat INTEGER, stopped_at TEXT)")
    connection.execute("INSERT INTO workers VALUES ('w', 0, NULL)")
    connection.commit()
    connection.close()
    _until(lambda: _row(path)[0] > 1)
    pulse.stop()


def test_the_child_imports_nothing_of_ours(ledger: Path) -> None:
    """It must not grow: one of them runs beside every worker."""
    order = {"database": str(ledger), "worker_id": "w", "every_s": 60, "parent": os.getpid()}
    script = (
        "import runpy, sys\nrunpy.run_path(sys.argv[1], run_name='__main__')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('augury', 'sqlalchemy', 'numpy', 'pydantic')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, module.__file__],
        input=json.dumps(order) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
