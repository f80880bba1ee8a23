"""A process made by forking the supervisor instead of starting a new interpreter.

Seven interpreters that each import the same libraries cost many seconds of a small machine, and a
router that dies would be missed for as long as they take. A supervisor that has imported them once
forks a child in a few milliseconds. That is safe because the supervisor has one thread and has
opened nothing: no database, no connection, no numeric library (those start threads when they are
imported, so each child imports them itself). Elsewhere than on Linux system libraries do not
survive a fork, and children are started anew.

The child never returns into the supervisor's code, so that nothing it inherited is closed or
flushed twice.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress

from augury import clock

_PR_SET_PDEATHSIG = 1
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
_FIRST_OTHER_FD = 3
_POLL_S = 0.005

CAN_FORK = sys.platform == "linux"


class ForkedProcess:
    """A forked child with the methods of `subprocess.Popen` that a supervisor uses.

    Args:
        main: what the child does; returns its exit code.
        output_fd: becomes the child's stdout and stderr.
        keep_fds: file descriptors that the child inherits under the same number.
    """

    def __init__(
        self, main: Callable[[], int], *, output_fd: int, keep_fds: Collection[int] = ()
    ) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        self.pid = os.fork()
        if self.pid == 0:
            _be_a_child(main, parent, output_fd, keep_fds)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self) -> int | None:
        """The exit code once it has ended (negative: the signal); else None."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the end.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout_s`.
        """
        deadline = None if timeout_s is None else clock.monotonic_s() + timeout_s
        while (code := self.poll()) is None:
            if deadline is not None and clock.monotonic_s() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout_s or 0.0)
            clock.sleep_s(_POLL_S)
        return code

    def terminate(self) -> None:
        """Asks it to finish."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def _be_a_child(
    main: Callable[[], int], parent: int, output_fd: int, keep_fds: Collection[int]
) -> None:
    code = 1
    try:
        os.setsid()
        _forget_signals()
        _end_with(parent)
        _take_fds(output_fd, keep_fds)
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """The kernel sends SIGTERM when the supervisor dies; if it already has, end now."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _forget_signals() -> None:
    """Drops the supervisor's handlers, then lets in what was blocked since before the fork.

    A SIGTERM in between would otherwise be taken by a handler that only the supervisor reads.
    """
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _take_fds(output_fd: int, keep_fds: Collection[int]) -> None:
    """Closes everything of the supervisor's, above all its lock on the home."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path
        os.dup2(nothing.fileno(), 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    first = _FIRST_OTHER_FD
    for kept in sorted(keep_fds):
        os.closerange(first, kept)
        first = kept + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
