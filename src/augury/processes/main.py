"""What each process of Augury does between its start and its stop.

One function per role. A role opens its own engine, says that it is ready, works until SIGTERM or
SIGINT, finishes what it holds and returns; a second signal ends it at once, which is safe, as any
crash is. Services that do not answer yet are waited for: in a cluster everything starts at the same
time, in no order.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from augury import clock, telemetry
from augury.engine import Engine, open_engine
from augury.errors import UnavailableError
from augury.settings import Settings

if TYPE_CHECKING:
    import uvicorn

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 5.0
_BACKLOG = 2048

type OnReady = Callable[[], None]
type Loop = Callable[[threading.Event], None]


def _nobody_waits() -> None:
    """Default of `on_ready`."""


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; the second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def run_router(settings: Settings, *, on_ready: OnReady = _nobody_waits) -> None:
    """Reads the bus, matches, records and starts runs, until stopped."""

    def make(engine: Engine) -> Loop:
        from augury.routing.router import Router

        return Router(engine.database, engine.bus, engine.executor, engine.settings).run

    _run(settings, "router", make, on_ready)


def run_sources(settings: Settings, *, on_ready: OnReady = _nobody_waits) -> None:
    """Watches objects and clocks, until stopped."""

    def make(engine: Engine) -> Loop:
        from augury.sources.runner import Sources

        return Sources(engine.database, engine.bus, engine.settings).run

    _run(settings, "sources", make, on_ready)


def run_sweeper(settings: Settings, *, on_ready: OnReady = _nobody_waits) -> None:
    """Expires leases, wakes workers and advances stuck runs, until stopped."""

    def make(engine: Engine) -> Loop:
        from augury.execution.sweeper import Sweeper

        return Sweeper(engine.database, engine.executor, engine.settings).run

    _run(settings, "sweeper", make, on_ready)


def run_relay(settings: Settings, *, on_ready: OnReady = _nobody_waits) -> None:
    """Sends what the outbox holds, until stopped."""

    def make(engine: Engine) -> Loop:
        from augury.bus.relay import Relay

        return Relay(engine.database, engine.bus, engine.settings).run

    _run(settings, "relay", make, on_ready)


def run_dispatcher(settings: Settings, *, on_ready: OnReady = _nobody_waits) -> None:
    """Delivers effects (webhooks, mail, streams), until stopped."""

    def make(engine: Engine) -> Loop:
        from augury.actions.dispatcher import Dispatcher

        dispatcher = Dispatcher(engine.database, engine.settings)
        dispatcher.start()
        return dispatcher.run

    _run(settings, "dispatcher", make, on_ready)


def _run(settings: Settings, role: str, make: Callable[[Engine], Loop], on_ready: OnReady) -> None:
    telemetry.configure(settings.log_level, json_lines=settings.log_json)
    stop = stop_on_signals()
    with open_engine(settings) as engine:
        loop = _patiently(lambda: make(engine), role, stop)
        if loop is not None:
            on_ready()
            loop(stop)
    _log.info("%s stopped", role, extra={"action": "process_stopped", "role": role})


def _patiently(make: Callable[[], Loop], role: str, stop: threading.Event) -> Loop | None:
    """Tries until the services answer; None if stopped before."""
    wait_s = 0.1
    while not stop.is_set():
        try:
            return make()
        except UnavailableError as error:
            _log.warning(
                "%s waits: %s", role, error, extra={"action": "process_waits", "role": role}
            )
            clock.sleep_s(wait_s, until=stop)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
    return None


def run_worker(
    settings: Settings,
    *,
    name: str = "worker",
    queues: str = "mini_batch,batch,distributed,call,script",
    on_ready: OnReady = _nobody_waits,
) -> None:
    """Scores what it is woken for, until stopped; one process is one worker."""
    telemetry.configure(settings.log_level, json_lines=settings.log_json)
    from augury.execution.celery_app import run_worker as run

    run(settings, name=name, queues=queues, on_ready=on_ready)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        UnavailableError: somebody else has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
        ) from error
    return listener


def run_api(
    settings: Settings, *, listen_fd: int | None = None, on_ready: OnReady = _nobody_waits
) -> None:
    """Serves HTTP until stopped.

    Args:
        settings: say where to listen, unless `listen_fd` does.
        listen_fd: a listening socket that the supervisor keeps open: while the API restarts,
            clients wait in its backlog instead of being refused.
        on_ready: called once requests are answered.
    """
    telemetry.configure(settings.log_level, json_lines=settings.log_json)
    stop_on_signals()  # uvicorn hands a signal on after its shutdown: it must not kill us then
    given = listen_fd is not None
    listener = socket.socket(fileno=listen_fd) if given else listen(settings.host, settings.port)
    with listener, open_engine(settings) as engine:
        server = _server(engine, on_ready)
        host, port = listener.getsockname()[:2]
        _log.info("API listens on http://%s:%s", host, port, extra={"action": "api_listens"})
        server.run(sockets=[listener])


def _server(engine: Engine, on_ready: OnReady) -> uvicorn.Server:
    import uvicorn

    from augury.api.app import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

    config = uvicorn.Config(
        create_app(engine),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=round(engine.settings.drain_s) or 1,
    )
    return Server(config)


def follow_parent() -> None:
    """Ends this process in order when its parent dies, where the kernel does not see to it."""
    if sys.platform != "linux":
        threading.Thread(target=_watch_parent, name="follow-parent", daemon=True).start()


def _watch_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        clock.sleep_s(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
