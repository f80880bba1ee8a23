"""Events: accept them durably, show what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine
from augury.engine import Engine
from augury.engine.explaining import event_in_ledger, explain_event, rule_by_name
from augury.engine.filters import event_filter
from augury.engine.views import event_view, view
from augury.errors import InvalidError
from augury.events.http import BATCHED, STRUCTURED, parse_request
from augury.jobs.states import OutcomeState
from augury.routing.archives import PastEvent
from augury.routing.history import History
from augury.routing.ledger import EventFilter, list_outcomes

router = APIRouter(tags=["events"])
_MOST_EVENTS = 10_000
_POLL_S = 0.5

_EXAMPLE = {
    "specversion": "1.0",
    "id": "42",
    "source": "shop/orders",
    "type": "shop.order.placed",
    "data": {"amount": 12},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": {"type": "object"}, "example": _EXAMPLE},
            BATCHED: {
                "schema": {"type": "array", "items": {"type": "object"}},
                "example": [_EXAMPLE, {**_EXAMPLE, "id": "43"}],
            },
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
        },
    }
}


@router.post("/events", status_code=202, openapi_extra=_BODY)
async def publish(request: Request) -> Response:
    """Accepts CloudEvents 1.0 in structured, binary or batched mode; all of a request or none.

    Answers once the events are in the bus's stream; `durability` says whether that means on disk
    (`durable`) or not (`relaxed`, with `advice`). After a 503 or a lost connection publish the same
    (source, id) again: a duplicate is recognised.
    """
    body = await request.body()
    engine: Engine = request.app.state.engine
    headers = dict(request.headers)
    return answer(await run_in_threadpool(_publish, engine, headers, body), 202)


def _publish(engine: Engine, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    events = parse_request(headers, body, max_bytes=engine.settings.max_event_bytes)
    if len(events) > _MOST_EVENTS:
        raise InvalidError(
            f"expected at most {_MOST_EVENTS} events in one batch, found {len(events)}; send it in "
            "parts",
            size_bytes=len(body),
        )
    engine.publish(events)
    durability = engine.durability()
    told: dict[str, Any] = {
        "accepted": len(events),
        "ids": [event.id for event in events],
        "durability": "durable" if durability.ok else "relaxed",
    }
    return told if durability.ok else {**told, "advice": durability.advice}


@router.get("/events")
def events(
    engine: TheEngine,
    *,
    type: str | None = None,  # noqa: A002 - the attribute's name in every surface
    source: str | None = None,
    rule: str | None = None,
    since: str | None = None,
    until: str | None = None,
    outcome: str | None = None,
    limit: Limit = 100,
    before: int | None = None,
) -> Response:
    """Accepted events with their outcomes, newest first; archived ones among them.

    `type` may end in `*`; `rule` is a name or an id; `since` (inclusive) and `until` (exclusive)
    are times, days or how long ago (`30d`); `outcome` is the state of an outcome.
    """
    given = {"type": type, "source": source, "rule": rule, "outcome": outcome}
    wanted = _wanted(engine, {**given, "since": since, "until": until})
    found = engine.history().latest(wanted, limit=limit + 1, before=before)
    return page(found, limit, event_view, lambda past: past.event.position)


@router.get("/events/stream")
async def stream(
    request: Request,
    *,
    type: str | None = None,  # noqa: A002 - the attribute's name in every surface
    source: str | None = None,
    rule: str | None = None,
    outcome: str | None = None,
    after: int | None = None,
) -> Response:
    """Events as they are accepted, as server-sent events: `id` is the position, `data` the event.

    Begins behind `after`, or behind the header `Last-Event-ID` that browsers send when they
    connect again, or now. Never ends by itself.
    """
    engine: Engine = request.app.state.engine
    given = {"type": type, "source": source, "rule": rule, "outcome": outcome}
    wanted = await run_in_threadpool(_wanted, engine, given)
    last_id = request.headers.get("last-event-id", "")
    begin = int(last_id) if last_id.isdecimal() and len(last_id) < 19 else after
    history = engine.history()
    if begin is None:
        begin = await run_in_threadpool(history.newest)
    return StreamingResponse(_told(history, wanted, begin), media_type="text/event-stream")


def _wanted(engine: Engine, given: dict[str, str | None]) -> EventFilter:
    with engine.database.read() as connection:
        return event_filter(connection, **given)


async def _told(history: History, wanted: EventFilter, after: int) -> AsyncIterator[bytes]:
    yield b": events follow\n\n"
    reached = after
    while True:
        page = await run_in_threadpool(_next_page, history, wanted, reached)
        if page is None:
            await asyncio.sleep(_POLL_S)
            yield b":\n\n"  # so that a client that has gone is noticed
            continue
        reached, found = page
        for past in found:
            body = msgspec.json.encode(event_view(past))
            yield b"id: %d\ndata: %s\n\n" % (past.event.position, body)


def _next_page(
    history: History, wanted: EventFilter, after: int
) -> tuple[int, list[PastEvent]] | None:
    return next(history.pages(wanted, after=after), None)


@router.get("/events/{position_or_id:path}/explain")
def explain(engine: TheEngine, position_or_id: str, rule: str) -> Response:
    """Why a rule does or does not match an event: the first field that fails, and near misses.

    `rule` is the name of an applied rule. With `matches` true, `outcomes` are what its actions
    made of the event.
    """
    event = event_in_ledger(engine.history(), position_or_id)
    with engine.database.read() as connection:
        found = rule_by_name(connection, rule)
    return answer(view(explain_event(event, found)))


@router.get("/events/{position_or_id:path}")
def event(engine: TheEngine, position_or_id: str) -> Response:
    """One accepted event by its ledger position or its id, with the outcomes of all its actions."""
    return answer(event_view(engine.history().show(position_or_id)))


@router.get("/outcomes")
def outcomes(
    engine: TheEngine,
    state: OutcomeState | None = None,
    run_id: str | None = None,
    rule_id: str | None = None,
    limit: Limit = 100,
) -> Response:
    """What actions made of events, of the newest events first."""
    with engine.database.read() as connection:
        found = list_outcomes(connection, state=state, run_id=run_id, rule_id=rule_id, limit=limit)
    return answer({"items": [view(outcome) for outcome in found], "next": None})
