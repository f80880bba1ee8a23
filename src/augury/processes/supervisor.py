"""Starts children, starts them again when they die, and stops them in order.

One thread, one loop, woken by signals (a child ended, somebody pressed Ctrl-C) and by a pipe on
which children write their process id when they are ready. At most as many children warm up at the
same time as there are processors: on a small machine those that were named first are then ready
first, instead of all of them late.

    Ctrl-C or SIGTERM       stop in order of phase, let each finish what it holds
    a second one            kill all at once; every promise of Augury holds after that, too
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from augury import clock
from augury.processes.children import Child, ChildSpec

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 10.0
_STEADY_S = 10.0
_HOPELESS_STARTS = 4
_LOOK_S = 0.5
_PROBE_S = 0.01
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something worth telling.

    Attributes:
        action: what happened, in the words of the logs: `child_ready`, `child_ended`,
            `all_ready`, `stopping`, `stopped`, `child_killed`, `gave_up`.
        child: whom it happened to; empty for all of them together.
        pid: that child's process id, 0 if there is none.
        message: the same for people.
        after_s: seconds since the supervisor started.
    """

    action: str
    child: str
    message: str
    after_s: float
    pid: int = 0


class Supervisor:
    """Keeps a set of children running until it is told to stop.

    Args:
        specs: in the order of starting.
        log_dir: one file per child.
        ready_fd: the pipe to read from.
        say: told of everything worth telling.
        preload: called once, before the first fork: imports what forks then need not import.
        on_all_ready: called once, when every child has been ready.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        log_dir: Path,
        *,
        ready_fd: int,
        say: Callable[[Notice], None],
        on_all_ready: Callable[[], None] = lambda: None,
        preload: Callable[[], None] = lambda: None,
    ) -> None:
        self.children = [Child(spec=spec, log_path=log_dir / f"{spec.name}.log") for spec in specs]
        self._waiting = list(self.children)
        self._due_s: dict[str, float] = {}
        self._say = say
        self._on_all_ready = on_all_ready
        self._preload: Callable[[], None] | None = preload
        self._all_ready = False
        self._stops = 0
        self._hopeless: Child | None = None
        self._ready_fd = ready_fd
        self._half_line = b""
        self._selector = selectors.DefaultSelector()
        self._began_s = clock.monotonic_s()

    def run(self) -> int:
        """Runs until stopped; call from the main thread.

        Returns:
            0 after a stop in order, 130 after one at once, 1 if a child could not be started.
        """
        with self._woken_by_signals():
            try:
                while not self._stops and self._hopeless is None:
                    self._step()
                return self._drain()
            finally:
                for child in self.children:  # whatever happened above, nothing stays behind
                    child.kill()

    # --- running ---------------------------------------------------------------------------------

    def _step(self) -> None:
        for child in self.children:
            self._look_at(child)
        if not self._all_ready and all(child.was_ever_ready for child in self.children):
            self._all_ready = True
            self._on_all_ready()
            self._tell("all_ready", "ready")
        self._start_waiting()
        self._sleep()

    def _look_at(self, child: Child) -> None:
        if child.is_warming_up and child.spec.probe is not None and child.spec.probe():
            self._on_ready(child)
        code = child.ended()
        if code is not None:
            self._on_end(child, code)

    def _on_ready(self, child: Child) -> None:
        child.note_ready()
        self._tell("child_ready", f"{child.name} is ready (it took {child.ready_s:.2f} s)", child)

    def _read_ready(self) -> None:
        *lines, self._half_line = (self._half_line + os.read(self._ready_fd, 4096)).split(b"\n")
        pids = {int(line) for line in lines}
        for child in self.children:
            if child.is_warming_up and child.process is not None and child.process.pid in pids:
                self._on_ready(child)

    def _on_end(self, child: Child, code: int) -> None:
        lived_s = clock.monotonic_s() - child.started_s
        child.failures = 1 if lived_s >= _STEADY_S else child.failures + 1
        child.clear()
        if not child.was_ever_ready and child.failures >= _HOPELESS_STARTS:
            self._hopeless = child
            return
        delay_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (child.failures - 1))
        self._due_s[child.name] = clock.monotonic_s() + delay_s
        self._waiting.append(child)
        self._tell(
            "child_ended",
            f"{child.name} ended ({how_it_ended(code)}); starting it again in {delay_s:.1f} s; "
            f"its last words: {child.last_words()}",
            child,
        )

    def _start_waiting(self) -> None:
        warming_up = sum(child.is_warming_up for child in self.children)
        room = max(2, os.cpu_count() or 2) - warming_up
        now = clock.monotonic_s()
        for child in list(self._waiting):
            if child.spec.probe is None and self._lacks_foundation():
                return
            if room > 0 and self._due_s.get(child.name, 0.0) <= now:
                self._waiting.remove(child)
                self._start(child)
                room -= 1

    def _start(self, child: Child) -> None:
        if child.is_forked and self._preload is not None:
            self._preload()
            self._preload = None
        child.start()

    def _lacks_foundation(self) -> bool:
        """Until servers that are probed answered for the first time, nothing else starts."""
        return any(child.spec.probe and not child.was_ever_ready for child in self.children)

    def _sleep(self) -> None:
        """Until a signal, a ready child, the next start that is due, or half a second."""
        now = clock.monotonic_s()
        due = [self._due_s.get(child.name, 0.0) - now for child in self._waiting]
        timeout_s = min([_LOOK_S, *(wait_s for wait_s in due if wait_s > 0)])
        if any(child.is_warming_up and child.spec.probe for child in self.children):
            timeout_s = _PROBE_S
        for key, _ in self._selector.select(timeout_s):
            key.data()

    # --- stopping --------------------------------------------------------------------------------

    def _drain(self) -> int:
        if self._hopeless is not None:
            self._tell_hopeless(self._hopeless)
        else:
            self._tell("stopping", "stopping in order; once more to stop at once")
        for phase in sorted({child.spec.phase for child in self.children}):
            self._drain_phase([child for child in self.children if child.spec.phase == phase])
        self._tell("stopped", "stopped at once" if self._stops > 1 else "stopped")
        if self._hopeless is not None:
            return 1
        return 130 if self._stops > 1 else 0

    def _drain_phase(self, children: Sequence[Child]) -> None:
        for child in children:
            child.terminate()
        deadline = clock.monotonic_s() + max(child.spec.drain_s for child in children)
        while any(child.is_running for child in children):
            if self._stops > 1 or clock.monotonic_s() > deadline:
                break
            self._sleep()
        for child in children:
            if child.is_running and self._stops < 2:
                self._tell("child_killed", f"{child.name} did not stop in time; killed", child)
            child.kill()

    def _tell_hopeless(self, child: Child) -> None:
        self._tell(
            "gave_up",
            f"{child.name} could not be started {child.failures} times in a row; its last words: "
            f"{child.last_words()}; the whole log is in {child.log_path}",
            child,
        )

    # --- signals ---------------------------------------------------------------------------------

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Signals become readable bytes, so that none is missed between two looks."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (*_STOP_SIGNALS, signal.SIGCHLD)
        }
        self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(4096))
        self._selector.register(self._ready_fd, selectors.EVENT_READ, self._read_ready)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup_before)
            self._selector.close()
            ours.close()
            theirs.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP_SIGNALS:
            self._stops += 1

    def _tell(self, action: str, message: str, child: Child | None = None) -> None:
        self._say(
            Notice(
                action=action,
                child=child.name if child else "",
                pid=child.process.pid if child and child.process else 0,
                message=message,
                after_s=round(clock.monotonic_s() - self._began_s, 3),
            )
        )


def how_it_ended(code: int) -> str:
    """`exit code 1`, or `signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
