"""A bound on the size of request bodies, kept while they are read.

A client that announces too much is refused before it sends; one that announces nothing is cut off
at the bound. So no request takes more memory than the bound, whatever route it is for.
"""

from __future__ import annotations

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
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MOST_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, its body bounded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _announced(scope) > self._max_bytes:
            body = error_body(LimitError.code, self._message)
            await answer(body, TOO_LARGE, {"Connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, self._bounded(receive), send)

    @property
    def _message(self) -> str:
        return f"expected a body of at most {self._max_bytes} bytes, found more; send it in parts"

    def _bounded(self, receive: Receive) -> Receive:
        num_bytes = 0

        async def bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                # frameworks hand this one on as it is, whoever of them reads the body
                raise HTTPException(TOO_LARGE, self._message, {"Connection": "close"})
            return message

        return bounded


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
