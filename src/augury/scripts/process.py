"""The worker's side of a running program: starts its keeper, reads its streams, hears its end.

One thread does everything, with a selector: it hands on what the program writes, and between two
looks it calls back, so that the caller can look whether the run is still wanted. The keeper
(`keeper.py`) enforces limits and cleans up; if it dies itself, which nothing here can prevent, the
program's session is killed from here.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.errors import LimitError

_KEEPER = Path(__file__).with_name("keeper.py")
_LOOK_S = 0.1
_READ_BYTES = 2**17
MOST_PROCESSES = 512


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use.

    Attributes:
        cpus: numbers of the CPUs it may run on; empty: all.
        memory_bytes: resident memory of all its processes together.
        storage_bytes: of its working folder.
        maximum_runtime_s: seconds until it is stopped.
        grace_s: seconds between TERM and KILL.
        hurried_grace_s: the same, when the worker itself has to stop.
    """

    cpus: Sequence[int]
    memory_bytes: int
    storage_bytes: int
    maximum_runtime_s: float
    grace_s: float
    hurried_grace_s: float
    max_processes: int = MOST_PROCESSES


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: 0 to 255; None if a signal ended it, or it could not be started.
        signal: its name, such as SIGKILL.
        why: what made the keeper end it: stopped, maximum_runtime, out_of_memory, out_of_storage,
            too_many_processes; None: it ended by itself.
        found: how much was found where a limit was passed.
        error: why it could not be started.
        peak_memory_bytes: most resident memory that was seen.
    """

    exit_code: int | None = None
    signal: str | None = None
    why: str | None = None
    found: int = 0
    error: str | None = None
    peak_memory_bytes: int = 0


class Program:
    """One program under its keeper; use it once.

    Args:
        argv: the command; its first word is an absolute path.
        environment: all of it.
        folder: where it works.
        limits: see there.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        limits: Limits,
    ) -> None:
        self._order: dict[str, Any] = {
            "argv": list(argv),
            "environment": dict(environment),
            "folder": str(folder),
            "cpus": list(limits.cpus),
            "memory_bytes": limits.memory_bytes,
            "storage_bytes": limits.storage_bytes,
            "max_processes": limits.max_processes,
            "maximum_runtime_s": limits.maximum_runtime_s,
            "grace_s": limits.grace_s,
            "hurried_grace_s": limits.hurried_grace_s,
        }
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._ended: Ended | None = None
        self._answers = bytearray()
        self._is_stopping = False

    def run(
        self,
        on_output: Callable[[str, bytes], None],
        on_look: Callable[[], None],
        is_full: Callable[[], bool],
    ) -> Ended:
        """Runs it to its end, and the end of all that it started.

        Args:
            on_output: called with `stdout` or `stderr` and what was written there.
            on_look: called some ten times a second; it must not raise.
            is_full: True while no output can be taken: then the program has to wait.

        Raises:
            LimitError: no keeper can be started.
        """
        status, theirs = os.pipe()
        try:
            keeper = self._start(theirs)
        finally:
            os.close(theirs)
        try:
            self._listen(keeper, status, on_output, on_look, is_full)
        finally:
            os.close(status)
            self._clean_up(keeper)
        return self._ended or Ended(error="its keeper was killed")

    def stop(self, *, in_a_hurry: bool = False) -> None:
        """TERM to all its processes, and after the grace KILL; returns at once. Idempotent."""
        if self._keeper is None or self._keeper.stdin is None or self._is_stopping:
            return
        self._is_stopping = True
        with suppress(OSError):
            self._keeper.stdin.write(b"H" if in_a_hurry else b"S")

    def _start(self, status: int) -> subprocess.Popen[bytes]:
        order = json.dumps({**self._order, "status_fd": status}).encode()
        try:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(status,),
                start_new_session=True,
                env={},
            )
        except OSError as error:
            raise LimitError(f"no process can be started: {error.strerror}") from error
        self._keeper = keeper
        assert keeper.stdin is not None  # a pipe was asked for
        with suppress(BrokenPipeError):
            keeper.stdin.write(b"%8d" % len(order) + order)
        return keeper

    def _listen(
        self,
        keeper: subprocess.Popen[bytes],
        status: int,
        on_output: Callable[[str, bytes], None],
        on_look: Callable[[], None],
        is_full: Callable[[], bool],
    ) -> None:
        assert keeper.stdout is not None  # pipes were asked for
        assert keeper.stderr is not None
        names = {keeper.stdout.fileno(): "stdout", keeper.stderr.fileno(): "stderr", status: ""}
        with selectors.DefaultSelector() as everything, selectors.DefaultSelector() as news:
            news.register(status, selectors.EVENT_READ)
            for number in names:
                everything.register(number, selectors.EVENT_READ)
            while everything.get_map():
                waiting = news if is_full() and status in everything.get_map() else everything
                for key, _ in waiting.select(_LOOK_S):
                    number = key.fd
                    data = os.read(number, _READ_BYTES)
                    if not data:
                        everything.unregister(number)
                    elif names[number]:
                        on_output(names[number], data)
                    else:
                        self._hear(data)
                on_look()

    def _hear(self, data: bytes) -> None:
        self._answers += data
        *lines, rest = bytes(self._answers).split(b"\n")
        self._answers = bytearray(rest)
        for line in lines:
            answer = json.loads(line)
            self._pid = answer.get("started", self._pid)
            if "ended" in answer:
                self._ended = Ended(**answer["ended"])

    def _clean_up(self, keeper: subprocess.Popen[bytes]) -> None:
        for stream in (keeper.stdin, keeper.stdout, keeper.stderr):
            if stream is not None:
                stream.close()
        if self._ended is None and self._pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        keeper.wait()
