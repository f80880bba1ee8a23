"""Webhooks of sources: what providers and anybody else post, and their handshakes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from augury.api.answers import answer
from augury.api.routes import TheEngine
from augury.engine import Engine
from augury.sources.handshake import allowed_origin
from augury.sources.signature import Call
from augury.sources.webhooks import authenticate, receive, webhook

router = APIRouter(tags=["webhooks"])


@router.post("/webhooks/{source}", status_code=202)
async def post(request: Request, source: str) -> Response:
    """Takes what a source of kind webhook is sent; answers 202 once all of it is durable.

    The sender proves that it knows the source's secret. Notifications of the source's provider
    become events about objects, everything else passes through untouched. Handshakes of SNS and
    Event Grid are answered with 200. The same request again changes nothing.
    """
    call = _call(request, await request.body())
    return await run_in_threadpool(_receive, request.app.state.engine, source, call)


def _receive(engine: Engine, source: str, call: Call) -> Response:
    receipt = receive(engine.database, engine.bus, engine.settings, source, call)
    if receipt.accepted:
        engine.after_commit()
    return answer(receipt.body, 202 if receipt.accepted else 200)


@router.options("/webhooks/{source}")
def allow(engine: TheEngine, request: Request, source: str) -> Response:
    """Answers the handshake of CloudEvents webhooks; the secret must be in the URL or a header."""
    call = _call(request, b"")
    _, spec = webhook(engine.database, source)
    authenticate(source, spec, call)
    return Response(headers=allowed_origin(call.headers))


def _call(request: Request, body: bytes) -> Call:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Call(headers=headers, body=body, token=request.query_params.get("access_token", ""))
