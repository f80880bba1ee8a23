"""The keeper of one script: a small process between the worker and what it runs.

It starts the program in a session of its own, under its limits, and is the one that all of its
descendants fall back to (a *subreaper*), so a daemon that detaches itself is still in sight and
ends with the run. Its standard input is a pipe that only the worker holds open: when the worker
dies, by whatever signal, the keeper ends everything. While the program runs, the keeper looks at
memory and number of processes many times a second and at the working folder about once a second;
a limit that is passed ends the run with that reason.

This file is a program of its own, run by its path with `-I -S`; it must not import anything of
Augury. It reads the order (eight digits of length, then JSON), then single letters: `S` for stop
(TERM, after the grace KILL), `H` for the same in a hurry. It answers with lines of JSON on the
descriptor that the order names: `{"started": pid}` and, when nothing of the program lives any
more, `{"ended": {...}}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.05
_FIRST_SCAN_S = 0.5
_SCAN_SHARE = 20  # a scan of the folder takes at most this fraction of the time
_KILL_ROUNDS_S = 0.01
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NOT_FOUND = 127


class Keeper:
    """Starts, watches and ends one program.

    Args:
        order: `argv`, `environment`, `folder`, `cpus` (numbers of CPUs, or empty), `memory_bytes`,
            `storage_bytes`, `max_processes`, `maximum_runtime_s`, `grace_s`, `hurried_grace_s`,
            `status_fd`.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._pid = 0
        self._status: int | None = None
        self._why: str | None = None
        self._found = 0
        self._peak_bytes = 0
        self._kill_at_s: float | None = None
        self._began_s = time.monotonic()
        self._scan_at_s = self._began_s + _FIRST_SCAN_S

    def run(self) -> None:
        """From the start to the last process's end; reports both."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake, told = os.pipe()
        os.set_blocking(told, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        error = self._start()
        if error is not None:
            self._tell({"ended": {"error": error}})
            return
        _silence()
        self._tell({"started": self._pid})
        while not self._reap():
            ready, _, _ = select.select([0, wake], [], [], _LOOK_S)
            if wake in ready:
                os.read(wake, 4096)
            if 0 in ready:
                self._obey()
            self._watch()
        self._end_all()
        self._tell({"ended": self._ending()})

    # --- start ------------------------------------------------------------------------------------

    def _start(self) -> str | None:
        """Starts the program; says why if it cannot be started."""
        reads, writes = os.pipe()  # closed by a successful exec
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become_the_program()
            except BaseException as error:
                text = getattr(error, "strerror", None) or repr(error)
                os.write(writes, text.encode()[:4096])
            os._exit(_NOT_FOUND)
        os.close(writes)
        why = os.read(reads, 4096).decode(errors="replace")
        os.close(reads)
        return why or None

    def _become_the_program(self) -> None:
        order = self._order
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        if order["cpus"]:
            os.sched_setaffinity(0, order["cpus"])
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_FSIZE, order["storage_bytes"])
        # what no look would come in time for: one claim of far more than the run may have
        _limit(resource.RLIMIT_DATA, 4 * order["memory_bytes"])
        os.chdir(order["folder"])
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - no shell

    # --- while it runs ----------------------------------------------------------------------------

    def _reap(self) -> bool:
        """Takes the exit codes of all that ended; True once the program itself has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return self._status is not None
            if pid == 0:
                return self._status is not None
            if pid == self._pid:
                self._status = status

    def _obey(self) -> None:
        letters = os.read(0, 64)
        if not letters:  # the worker is dead
            self._why = "worker_lost"
            self._end_all()
            os._exit(1)
        self._stop("stopped", "hurried_grace_s" if b"H" in letters else "grace_s")

    def _stop(self, why: str, grace: str = "grace_s") -> None:
        """TERM now, KILL after the grace."""
        if self._kill_at_s is None:
            self._why = self._why or why
            self._kill_at_s = time.monotonic() + self._order[grace]
            _signal_all(_descendants(os.getpid()), signal.SIGTERM)

    def _watch(self) -> None:
        now_s = time.monotonic()
        order = self._order
        if now_s - self._began_s > order["maximum_runtime_s"]:
            self._stop("maximum_runtime")
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            self._end_all()
            return
        tree = _descendants(os.getpid())
        if len(tree) > order["max_processes"]:
            self._break_off("too_many_processes", len(tree), tree)
        used = _resident_bytes(tree)
        if used > order["memory_bytes"]:
            used = _proportional_bytes(tree)  # shared pages once
        self._peak_bytes = max(self._peak_bytes, used)
        if used > order["memory_bytes"]:
            self._break_off("out_of_memory", used, tree)
        if now_s >= self._scan_at_s:
            stored = _stored_bytes(order["folder"])
            took_s = time.monotonic() - now_s
            self._scan_at_s = now_s + max(_FIRST_SCAN_S, took_s * _SCAN_SHARE)
            if stored > order["storage_bytes"]:
                self._break_off("out_of_storage", stored, tree)

    def _break_off(self, why: str, found: int, tree: list[int]) -> None:
        """A limit is passed: there is no time for a grace."""
        self._why, self._found = self._why or why, found
        _signal_all(tree, signal.SIGSTOP)  # so that it cannot grow while it is killed
        self._end_all()

    # --- end --------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Kills until nothing is left; a tree that forks meanwhile is found again."""
        while tree := _descendants(os.getpid()):
            _signal_all(tree, signal.SIGKILL)
            self._reap()
            time.sleep(_KILL_ROUNDS_S)
        self._reap()

    def _ending(self) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(self._status or 0)
        usage_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        return {
            "exit_code": code if code >= 0 else None,
            "signal": signal.Signals(-code).name if code < 0 else None,
            "why": self._why,
            "found": self._found,
            "peak_memory_bytes": max(self._peak_bytes, usage_bytes),
        }

    def _tell(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._order["status_fd"], json.dumps(answer).encode() + b"\n")


# --- the process tree -----------------------------------------------------------------------------


def _descendants(root: int) -> list[int]:
    """All processes below `root`, those that are dead and unreaped left out."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            waiting.append(child)
            if not _is_dead(child):
                found.append(child)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - without pathlib it starts sooner
    except OSError:
        return children
    for task in tasks:
        with contextlib.suppress(OSError):
            children += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return children


def _is_dead(pid: int) -> bool:
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] in b"ZX"
    except (OSError, IndexError):
        return True


def _resident_bytes(tree: list[int]) -> int:
    total = 0
    for pid in tree:
        with contextlib.suppress(OSError, IndexError):
            total += int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE_BYTES
    return total


def _proportional_bytes(tree: list[int]) -> int:
    """Like `_resident_bytes`, a page that several share counted once; slower."""
    total = 0
    for pid in tree:
        with contextlib.suppress(OSError):
            for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _stored_bytes(folder: str) -> int:
    """What the files below a folder take on disk."""
    total = 0
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


def _signal_all(tree: list[int], number: int) -> None:
    for pid in tree:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


# --- the system -----------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    number = os.open(path, os.O_RDONLY)
    try:
        return os.read(number, 2**16)
    finally:
        os.close(number)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _silence() -> None:
    """Lets go of the program's streams: their end must mean the program's end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _order() -> dict[str, Any]:
    """Eight digits of length and so many bytes of JSON; nothing behind them is read."""
    return dict(json.loads(_exactly(int(_exactly(8)))))


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            sys.exit(1)
        data += chunk
    return data


if __name__ == "__main__":
    given = _order()
    os.set_inheritable(given["status_fd"], False)
    Keeper(given).run()
