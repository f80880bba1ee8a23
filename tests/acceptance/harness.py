"""Augury as its users have it: `augury up` in a home of its own, and the `augury` command.

Nothing here knows how Augury works inside, except that processes may be killed by name: that is
what the crash tests are for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from augury import clock
from augury.settings import Settings, child_environment

AUGURY = str(Path(sys.executable).with_name("augury"))
READY_S = 60.0
STOP_S = 40.0


class Augury:
    """One installation in one folder.

    Args:
        folder: where its home (`home/`) and its logs are; relative paths of commands start here.
        workers: number of worker processes.
        variables: settings as environment variables, without the prefix `AUGURY_`.
    """

    def __init__(self, folder: Path, *, workers: int = 1, **variables: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.workers = workers
        self.process: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, Any] = variables
        self._starts = 0
        self.at_end: list[Callable[[], None]] = []  # what a test has opened on this installation

    # --- up and down ------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of this installation."""
        variables = {f"AUGURY_{name.upper()}": value for name, value in self._settings.items()}
        return child_environment(AUGURY_HOME=str(self.home), **variables)

    @property
    def _told(self) -> Path:
        return self.folder / f"up-{self._starts}.jsonl"

    def up(self, *, wait: bool = True) -> Augury:
        """Starts `augury up` and waits until it says that everything is ready."""
        self._starts += 1
        with self._told.open("wb") as told, (self.folder / "up.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [AUGURY, "up", "--workers", str(self.workers), "--port", "0", "--json"],
                cwd=self.folder,
                env=self.environment,
                stdout=told,
                stderr=errors,
                start_new_session=True,
            )
        if wait:
            self.until(self._is_ready, "ready", timeout_s=READY_S)
        return self

    def _is_ready(self) -> bool:
        """A killed predecessor leaves its `ready.json`: the process id says whose it is."""
        try:
            ready = json.loads((self.home / "ready.json").read_text())
        except FileNotFoundError:
            return False
        return self.process is not None and ready["pid"] == self.process.pid

    def down(self, number: int = signal.SIGINT) -> int:
        """Sends a signal to `augury up` and returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def end(self) -> list[str]:
        """Stops whatever still runs, closes what was opened; gives what is left running."""
        while self.at_end:
            self.at_end.pop()()
        if self.process is not None and self.process.poll() is None:
            try:
                self.down()
            finally:
                if self.process.poll() is None:
                    self.kill_supervisor()
        return self._left_for_good()

    def _left_for_good(self) -> list[str]:
        """Orphans of a killed supervisor end by themselves, each in its own time."""
        deadline = clock.monotonic_s() + STOP_S
        while (left := self.left_running()) and clock.monotonic_s() < deadline:
            clock.sleep_s(0.1)
        return left

    def kill_supervisor(self) -> None:
        """kill -9 of `augury up` itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    # --- its processes ----------------------------------------------------------------------------

    def notices(self) -> list[dict[str, Any]]:
        """What `augury up --json` has told so far."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def pid(self, child: str) -> int:
        """Process id of a child, by its name: `valkey`, `api`, `router`, `worker-1`, ..."""
        ready = [
            notice
            for notice in self.notices()
            if notice["action"] == "child_ready" and notice["child"] == child
        ]
        return int(ready[-1]["pid"])

    def kill(self, child: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal to a child; returns the process id it had."""
        pid = self.pid(child)
        os.kill(pid, number)
        return pid

    def until_restarted(self, child: str, old_pid: int, *, timeout_s: float = 30.0) -> int:
        """Waits until a child that was killed is ready again; returns its new process id."""
        self.until(lambda: self.pid(child) != old_pid, f"{child} is back", timeout_s=timeout_s)
        return self.pid(child)

    def left_running(self) -> list[str]:
        """Every process that belongs to this home, whoever its parent is now."""
        mine = f"AUGURY_HOME={self.home}"
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            try:
                variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mine.encode() in variables and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid}: {' '.join(process.info['cmdline'] or ())}")
        return found

    @property
    def settings(self) -> Settings:
        """As every process of this installation reads them."""
        return Settings(home=self.home, **self._settings)

    # --- its surfaces -----------------------------------------------------------------------------

    def run(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs one `augury` command in this home, whatever its exit code."""
        return subprocess.run(
            [AUGURY, *arguments],
            cwd=self.folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def json(self, *arguments: str) -> Any:
        """Runs one command with `--json`, which must succeed; returns what it says."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, f"augury {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return json.loads(done.stdout)

    @property
    def url(self) -> str:
        """Where the API listens."""
        found: str = json.loads((self.home / "ready.json").read_text())["url"]
        return found

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = 20.0,
        content_type: str = "application/json",
    ) -> tuple[int, Any]:
        """One request to the API; returns status and decoded body."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    # --- waiting ----------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0) -> None:
        """Waits for a condition; fails with the ends of all logs."""
        deadline = clock.monotonic_s() + timeout_s
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            if ended or clock.monotonic_s() > deadline:
                state = "`augury up` ended" if ended else f"not within {timeout_s} s"
                raise AssertionError(f"{what}: {state}\n{self.story()}")
            clock.sleep_s(0.02)

    def story(self) -> str:
        """What `augury up` and its children said, for the message of a failed test."""
        parts = [f"--- {notice['after_s']} {notice['message']}" for notice in self.notices()]
        for log in [self.folder / "up.err", *sorted((self.home / "logs").glob("*.log"))]:
            if log.exists():
                tail = log.read_text(errors="replace").splitlines()[-15:]
                parts.append(f"--- {log.name}\n" + "\n".join(tail))
        return "\n".join(parts)
