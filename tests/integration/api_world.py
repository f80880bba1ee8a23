"""The API as clients have it: a real server on a real socket, over a ledger and a bus."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from augury import clock
from augury.api.app import create_app
from augury.engine import Engine
from augury.processes.main import listen
from augury.settings import Settings


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]


class Api:
    """A client, and the engine behind the server."""

    def __init__(self, url: str, engine: Engine) -> None:
        self.url = url
        self.engine = engine

    def request(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Answer:
        """One request; `body` is sent as JSON, `raw` as it is; `_` in header names means `-`."""
        data = raw if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=data,
            headers={"Content-Type": "application/json", **named},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return _answer(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)


def _answer(response: Any) -> Answer:
    text = response.read()
    return Answer(response.status, json.loads(text) if text else None, dict(response.headers))


@contextmanager
def serve(settings: Settings) -> Iterator[Api]:
    """Runs the API until the block ends."""
    with Engine(settings) as engine, listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(create_app(engine), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = clock.monotonic_s() + 30
            while not server.started:
                assert thread.is_alive()
                assert clock.monotonic_s() < deadline
                clock.sleep_s(0.01)
            yield Api(f"http://127.0.0.1:{listener.getsockname()[1]}", engine)
        finally:
            server.should_exit = True
            thread.join()
