"""`augury up`: everything on one machine, under one home.

The supervisor holds three things for as long as it lives: the home's lock (a second `up` on the
same home is refused), the API's listening socket (so that clients wait while the API restarts) and
the children. `ready.json` in the home tells other programs where the API listens, from the moment
everything is ready until the stop.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from augury import clock
from augury.errors import ConflictError, UnavailableError
from augury.processes.__main__ import main as run_role
from augury.processes.children import ChildSpec
from augury.processes.main import listen
from augury.processes.supervisor import Notice, Supervisor
from augury.processes.valkey import ValkeyServer, is_ready
from augury.settings import Settings, child_environment, export_environment

# what stops first, stops first: no new events, no new requests, then what works on them
_ORDER = ("sources", "api", "router", "worker", "dispatcher", "sweeper", "relay", "valkey")
_PHASES = {kind: phase for phase, kind in enumerate(_ORDER)}
_MARGIN_S = 3.0
_PREDECESSOR_S = 10.0
READY_FILE = "ready.json"
LOCK_FILE = "up.lock"

type Say = Callable[[Notice], None]


def up(
    settings: Settings,
    *,
    workers: int = 2,
    json_lines: bool = False,
    say: Say | None = None,
) -> int:
    """Runs Augury until Ctrl-C or SIGTERM; call from the main thread.

    Args:
        settings: those of every child. `port` 0 takes any free port.
        workers: number of worker processes, 0 or more.
        json_lines: tell what happens as JSON lines on stdout instead of text.
        say: told what happens, instead of stdout.

    Returns:
        Exit code: 0 after a stop in order, 130 after one at once, 1 if something cannot start.

    Raises:
        ConflictError: another `up` runs on this home.
        UnavailableError: the port is taken.
    """
    home = settings.absolute_home
    export_environment(settings_environment(settings))  # what is forked reads its settings there
    tell = say or (_say_json if json_lines else _say_text)
    with home_lock(home), _listener(settings) as listener, _pipe() as (ready_fd, their_fd):
        (home / READY_FILE).unlink(missing_ok=True)
        url = _url(listener)
        began_s = clock.monotonic_s()
        supervisor = Supervisor(
            specs(settings, workers=workers, listen_fd=listener.fileno(), ready_fd=their_fd),
            home / "logs",
            ready_fd=ready_fd,
            say=tell,
            on_all_ready=lambda: _write_ready(home, url, clock.monotonic_s() - began_s),
            preload=_preload,
        )
        tell(Notice(action="starting", child="", message=f"starting in {home}, {url}", after_s=0.0))
        try:
            return supervisor.run()
        finally:
            (home / READY_FILE).unlink(missing_ok=True)


def specs(settings: Settings, *, workers: int, listen_fd: int, ready_fd: int) -> list[ChildSpec]:
    """All children, in the order of starting: what users wait for comes first."""
    drain_s = settings.drain_s + _MARGIN_S

    environment = child_environment(**settings_environment(settings))

    def role(
        name: str, kind: str, *arguments: str, fds: tuple[int, ...] = (), fork: bool = True
    ) -> ChildSpec:
        line = [kind, *arguments, "--ready-fd", str(ready_fd)]
        return ChildSpec(
            name=name,
            command=lambda: [*_PYTHON, *line],
            main=(lambda: run_role(line)) if fork else None,
            phase=_PHASES[kind],
            environment=environment,
            pass_fds=(ready_fd, *fds),
            drain_s=drain_s,
        )

    names = [f"worker-{number}" for number in range(1, workers + 1)]
    found = [
        # HTTP's libraries are the API's alone: it imports them while the supervisor preloads
        role("api", "api", "--listen-fd", str(listen_fd), fds=(listen_fd,), fork=False),
        role("router", "router"),
        *(role(name, "worker", "--name", name) for name in names[:1]),
        role("sources", "sources"),
        role("relay", "relay"),
        role("sweeper", "sweeper"),
        role("dispatcher", "dispatcher"),
        *(role(name, "worker", "--name", name) for name in names[1:]),
    ]
    return [_valkey(settings, environment), *found] if settings.embedded_redis else found


# -P: a file named like one of our libraries in the current folder must not be imported instead
_PYTHON = (sys.executable, "-P", "-m", "augury.processes")


def _valkey(settings: Settings, environment: dict[str, str]) -> ChildSpec:
    server = ValkeyServer.of(settings)
    return ChildSpec(
        name="valkey",
        command=server.prepare,
        phase=_PHASES["valkey"],
        environment=environment,
        probe=lambda: is_ready(server.socket_path),
        drain_s=_MARGIN_S,
    )


def settings_environment(settings: Settings) -> dict[str, str]:
    """`settings` as environment variables, so that a child reads the same; home is absolute."""
    values = settings.model_dump(mode="json") | {"home": str(settings.absolute_home)}
    return {
        f"AUGURY_{name.upper()}": str(value) for name, value in values.items() if value is not None
    }


def _preload() -> None:
    """Imports what most roles need, and nothing that starts a thread (numpy, pyarrow do)."""
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what never goes away need not be looked at, and copied, in every child


_PRELOADED = (
    "sqlalchemy.dialects.sqlite",
    "augury.storage.migrations",
    "augury.bus.redis_bus",
    "augury.bus.relay",
)


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Holds a home for this process.

    Raises:
        ConflictError: another process holds it; the message names it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ConflictError(
                f"augury is already up in {home} (process {lock.read().strip() or 'unknown'})"
                f"{_where(home)}; stop that one, or choose another AUGURY_HOME",
                home=str(home),
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


def read_ready(home: Path) -> dict[str, object] | None:
    """What `ready.json` says: pid, url, host, port, ready_s; None if there is none."""
    try:
        found = json.loads((home / READY_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _where(home: Path) -> str:
    ready = read_ready(home)
    return f" at {ready['url']}" if ready and "url" in ready else ""


def _write_ready(home: Path, url: str, ready_s: float) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    facts = {
        "pid": os.getpid(),
        "url": url,
        "host": host,
        "port": int(port),
        "ready_s": round(ready_s, 3),
    }
    unfinished = home / f".{READY_FILE}"
    unfinished.write_text(json.dumps(facts))
    unfinished.replace(home / READY_FILE)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    """The API's socket; waits for the children of a killed predecessor to let go of the port."""
    was_killed = (settings.absolute_home / READY_FILE).exists()
    deadline = clock.monotonic_s() + (_PREDECESSOR_S if was_killed else 0.0)
    while True:
        try:
            listener = listen(settings.host, settings.port)
            break
        except UnavailableError:
            if clock.monotonic_s() > deadline:
                raise
            clock.sleep_s(0.1)
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say_text(notice: Notice) -> None:
    sys.stdout.write(f"{notice.after_s:8.2f} s  {notice.message}\n")
    sys.stdout.flush()


def _say_json(notice: Notice) -> None:
    sys.stdout.write(json.dumps(asdict(notice)) + "\n")
    sys.stdout.flush()
