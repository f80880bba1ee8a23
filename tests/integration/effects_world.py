"""A ledger with rules that act outside, and real servers outside that can be told to fail."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from routing_world import World

from augury import clock
from augury.actions.dispatcher import Dispatcher
from augury.storage import tables

QUICK = {"first_delay_s": 0.01, "longest_delay_s": 0.02}


@dataclass(frozen=True)
class Received:
    """One request as the server saw it."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Answer:
    """What the server does next: answer, wait before it, or break the connection."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    wait: threading.Event | None = None
    reset: bool = False


class Outside:
    """A real threaded HTTP server. Paths have their own list of answers; then it is 200.

    Args:
        certificate: for HTTPS: a file with key and certificate.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.received: list[Received] = []
        self.answers: dict[str, deque[Answer]] = {}
        self.always: dict[str, Answer] = {}
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True
        )
        self._thread.start()

    def will(self, path: str, *answers: Answer) -> str:
        """The next requests to `path` are answered so; returns its URL."""
        self.answers[path] = deque(answers)
        return self.url + path

    def to(self, path: str) -> list[Received]:
        return [request for request in list(self.received) if request.path == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outside = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outside.received.append(Received(self.path, headers, body))
                queued = outside.answers.get(self.path)
                given = queued.popleft() if queued else outside.always.get(self.path, Answer())
                if given.wait is not None:
                    given.wait.wait(30)
                if given.reset:
                    linger = struct.pack("ii", 1, 0)  # RST instead of FIN
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    return
                self._answer(given)

            def _answer(self, given: Answer) -> None:
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body)

            def log_message(self, *_: Any) -> None:
                pass

            def finish(self) -> None:
                if self.connection.fileno() >= 0:
                    super().finish()

        return Handler


class EffectsWorld(World):
    """A world whose rules act outside, and the dispatcher that acts."""

    def dispatcher(self, **changes: Any) -> Dispatcher:
        usual = {"webhook_networks": "127.0.0.0/8", "drain_s": 2.0}
        dispatcher = Dispatcher(self.database, self.settings.model_copy(update=usual | changes))
        dispatcher.start()
        return dispatcher

    def owe(self, *actions: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
        """Routes events that a rule with these actions matches."""
        self.rule("r", {"type": ["acme.thing"]}, actions)
        self.publish(*events)
        self.drain()

    def effects(self) -> list[Any]:
        return self.rows(tables.effects)

    def states(self) -> list[tuple[str, str, str | None]]:
        """(event id, state, reason) of every outcome."""
        return [(event, state, reason) for event, _, state, reason in self.outcomes()]

    def until(
        self,
        condition: Callable[[], Any],
        dispatcher: Dispatcher | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        """Turns the dispatcher until the condition holds."""
        deadline_s = clock.monotonic_s() + timeout_s
        while not condition():
            assert clock.monotonic_s() < deadline_s, (self.outcomes(), self.effects())
            if dispatcher is not None:
                dispatcher.step()
            clock.sleep_s(0.005)

    def settle(self, dispatcher: Dispatcher) -> None:
        """Turns the dispatcher until nothing is open."""
        self.until(lambda: not self.open(), dispatcher)

    def open(self) -> list[Any]:
        return self.rows(tables.effects, tables.effects.c.state.in_(("WAITING", "LEASED")))


@contextmanager
def running(dispatcher: Dispatcher) -> Iterator[Dispatcher]:
    """A dispatcher in a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        yield dispatcher
    finally:
        stop.set()
        thread.join()
