"""A bound on the size of request bodies, kept while they are read.

A client that announces too much is refused before it sends; one that announces nothing is cut off
at the bound. So no request takes more memory than the bound; a route that
writes what it reads to disk may have a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from augury.api.answers import answer
from augury.api.errors import TOO_LARGE, error_body
from augury.errors import LimitError

MOST_BODY_BYTES = 16 * 2**20


class LimitedBodies:
    """ASGI middleware.

    Args:
        app: the application.
        max_bytes: largest body (inclusive), in bytes.
        larger: the same for some paths, whose routes do not keep bodies in memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = MOST_BODY_BYTES,
        larger: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, its body bounded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        if _announced(scope) > max_bytes:
            body = error_body(LimitError.code, _message(max_bytes))
            await answer(body, TOO_LARGE, {"Connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, max_bytes), send)


def _message(max_bytes: int) -> str:
    return f"expected a body of at most {max_bytes} bytes, found more; send it in parts"


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    num_bytes = 0

    async def bounded() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > max_bytes:
            # frameworks hand this one on as it is, whoever of them reads the body
            raise HTTPException(TOO_LARGE, _message(max_bytes), {"Connection": "close"})
        return message

    return bounded


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
