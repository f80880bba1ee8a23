"""A forked child keeps nothing of the supervisor's but what it was given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from augury.processes.forked import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="forking is safe on Linux only")


def _forked(main: str, folder: Path, before: str = "") -> tuple[int, str]:
    """Runs `main` in a fork of a fresh interpreter; returns its exit code and output."""
    script = (
        "import os, sys\n"
        "from augury.processes.forked import ForkedProcess\n"
        f"{before}\n"
        f"def main():\n    {main}\n"
        f"with open({str(folder / 'out')!r}, 'wb') as out:\n"
        "    child = ForkedProcess(main, output_fd=out.fileno(), keep_fds=(20,))\n"
        "print(child.wait(10))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return int(done.stdout), (folder / "out").read_text()


def test_only_what_was_given_stays_open(tmp_path: Path) -> None:
    before = "lock = open('/dev/zero'); os.dup2(lock.fileno(), 20); os.dup2(lock.fileno(), 30)"
    main = "print(*[fd for fd in range(100) if os.path.exists(f'/proc/self/fd/{fd}')]); return 0"
    assert _forked(main, tmp_path, before) == (0, "0 1 2 20\n")


def test_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    code, out = _forked("print(os.getsid(0) == os.getpid()); return 0", tmp_path)
    assert (code, out) == (0, "True\n")


@pytest.mark.parametrize(
    ("main", "code"),
    [("return 3", 3), ("sys.exit(4)", 4), ("sys.exit()", 0), ("os.kill(os.getpid(), 9)", -9)],
)
def test_exit_codes(tmp_path: Path, main: str, code: int) -> None:
    assert _forked(main, tmp_path)[0] == code


def test_failure_is_told_in_its_log(tmp_path: Path) -> None:
    code, out = _forked("raise ValueError('why')", tmp_path)
    assert code == 1
    assert "ValueError: why" in out


def test_text_of_the_supervisor_is_not_written_twice(tmp_path: Path) -> None:
    before = "sys.stdout.write('')"
    assert _forked("return 0", tmp_path, before) == (0, "")
