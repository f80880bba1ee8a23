"""One child process: how it is started, known to be ready, and ended with all that it started.

A child leads a process group of its own, so that a Ctrl-C in the terminal reaches only the
supervisor (which then stops the children in order) and so that what a child left behind is ended
with one signal. Its output goes to a file; the supervisor quotes the end of it when it dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from augury import clock
from augury.processes.forked import CAN_FORK, ForkedProcess
from augury.processes.valkey import bound_to_parent

_LARGEST_LOG_BYTES = 20 * 2**20


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to start.

    Attributes:
        name: as shown to people, and name of the log file.
        command: makes the command line anew at each start.
        phase: children of a lower phase are stopped first, those of one phase together.
        environment: the child's whole environment.
        pass_fds: further file descriptors that it inherits.
        main: the same as `command`, as a function to run in a fork of the supervisor where that
            is safe; it must read its settings from the environment of the supervisor.
        probe: asked whether the child is ready; None: it says so itself.
        drain_s: seconds it may take to stop before it is killed.
    """

    name: str
    command: Callable[[], list[str]]
    phase: int
    environment: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    main: Callable[[], int] | None = None
    probe: Callable[[], bool] | None = None
    drain_s: float = 12.0


@dataclass(kw_only=True)
class Child:
    """One child over its restarts.

    Attributes:
        started_s: monotonic time of the last start.
        ready_s: seconds from that start until it was ready; None before.
        failures: unexpected ends in a row, since it last ran steadily.
        was_ever_ready: False until the first success.
    """

    spec: ChildSpec
    log_path: Path
    started_s: float = 0.0
    ready_s: float | None = None
    failures: int = 0
    was_ever_ready: bool = False
    process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @property
    def name(self) -> str:
        """As shown to people."""
        return self.spec.name

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_warming_up(self) -> bool:
        """True from its start until it is ready."""
        return self.process is not None and self.ready_s is None

    def start(self) -> None:
        """Starts the process; call from a thread that outlives it."""
        self._rotate_log()
        self.started_s = clock.monotonic_s()
        with self.log_path.open("ab") as log:
            self.process = self._launch(log)
        self.ready_s = None

    @property
    def is_forked(self) -> bool:
        """True if the process is a fork of this one."""
        return CAN_FORK and self.spec.main is not None

    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes] | ForkedProcess:
        spec = self.spec
        if CAN_FORK and spec.main is not None:
            return ForkedProcess(spec.main, output_fd=log.fileno(), keep_fds=spec.pass_fds)
        return subprocess.Popen(
            bound_to_parent(spec.command()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(spec.environment),
            pass_fds=spec.pass_fds,
            start_new_session=True,
        )

    def note_ready(self) -> None:
        """The child is ready for its work."""
        self.ready_s = clock.monotonic_s() - self.started_s
        self.was_ever_ready = True

    def ended(self) -> int | None:
        """The exit code once the process has ended (negative: the signal); else None."""
        return self.process.poll() if self.process is not None else None

    def terminate(self) -> None:
        """Asks the process to finish."""
        if self.is_running and self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """Ends the process and whatever it started, at once. Idempotent."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.clear()

    def clear(self) -> None:
        """Ends what an ended process left behind in its group, and forgets the process."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None
        self.ready_s = None

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, for a person to read."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                text = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            text = []
        return " | ".join(line.strip() for line in text[-lines:]) or "it said nothing"

    def _rotate_log(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _LARGEST_LOG_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
