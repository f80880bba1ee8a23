"""A program for test_supervisor.py: a real supervisor over small children with known habits.

`python supervised.py FOLDER HOW HABIT...` starts one child per habit, named `{habit}-{phase}`,
phases counting from 0, and tells what happens as JSON lines. HOW is `started` (an interpreter of
its own) or `forked`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from augury.processes.children import ChildSpec
from augury.processes.supervisor import Notice, Supervisor
from augury.settings import child_environment

_READY = "import os, sys, time, signal, subprocess; os.write({fd}, b'%d\\n' % os.getpid()); "
_HABITS = {
    # ends as soon as it is asked
    "good": _READY + "time.sleep(600)",
    # finishes what it does, and says so, before it ends
    "slow": "import os, signal, time; "
    "signal.signal(15, lambda *a: (time.sleep(.3), print('finished', flush=True), os._exit(0))); "
    + _READY
    + "time.sleep(600)",
    # does not listen
    "deaf": "import signal; signal.signal(15, signal.SIG_IGN); " + _READY + "time.sleep(600)",
    # leaves a process behind that does not listen either
    "parent": "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import signal, "
    "time; signal.signal(15, signal.SIG_IGN); time.sleep(600)']); " + _READY + "time.sleep(600)",
    # never gets anywhere
    "hopeless": "import sys; print('no such luck', flush=True); sys.exit(3)",
    # two failures, then it works
    "late": "import pathlib, sys; p = pathlib.Path({folder!r}, 'tries'); "
    "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1)); "
    "n < 2 and sys.exit(5); " + _READY + "time.sleep(600)",
}


def _run(code: str) -> int:
    exec(code, {})
    return 0


def main(folder: Path, how: str, habits: list[str]) -> int:
    ours, theirs = os.pipe()

    def spec(habit: str, phase: int) -> ChildSpec:
        code = _HABITS[habit].format(fd=theirs, folder=str(folder))
        return ChildSpec(
            name=f"{habit}-{phase}",
            command=lambda: [sys.executable, "-I", "-S", "-c", code],
            main=(lambda: _run(code)) if how == "forked" else None,
            phase=phase,
            environment=child_environment(),
            pass_fds=(theirs,),
            drain_s=1.5,
        )

    supervisor: list[Supervisor] = []

    def say(notice: Notice) -> None:
        pids = {c.name: c.process.pid for c in supervisor[0].children if c.process is not None}
        print(json.dumps({**dataclasses.asdict(notice), "pids": pids}), flush=True)

    specs = [spec(habit, phase) for phase, habit in enumerate(habits)]
    supervisor.append(Supervisor(specs, folder / "logs", ready_fd=ours, say=say))
    return supervisor[0].run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
