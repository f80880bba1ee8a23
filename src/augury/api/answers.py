"""JSON out, and lists in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Query
from starlette.responses import Response

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of one page.")]


class JsonResponse(Response):
    """JSON by msgspec: the fastest there is, and it refuses what is not JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return msgspec.json.encode(content)


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return JsonResponse(content, status_code=status, headers=dict(headers or {}))


def page[T](
    found: Sequence[T],
    limit: int,
    show: Callable[[T], Mapping[str, Any]],
    cursor: Callable[[T], str | int],
) -> Response:
    """One page of a list.

    Args:
        found: up to `limit` + 1 items: one more than the page holds says that there is a next one.
        limit: most items of the page.
        show: item to JSON.
        cursor: what to give as `after` or `before` to go on behind an item.
    """
    items = found[:limit]
    more = len(found) > limit
    return answer(
        {"items": [show(item) for item in items], "next": cursor(items[-1]) if more else None}
    )
