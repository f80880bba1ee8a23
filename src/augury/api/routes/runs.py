"""Runs: start, watch, cancel, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from augury.api.answers import Limit, answer, page
from augury.api.live import live_events
from augury.api.routes import TheEngine, json_body, schema_of
from augury.engine import Engine
from augury.engine.requests import RunRequest, run_request
from augury.engine.views import plan_view, run_view, view
from augury.errors import NotFoundError
from augury.jobs import log_lines
from augury.jobs.log_lines import parse_cursor
from augury.jobs.runs import get_run, list_runs
from augury.jobs.states import RunState
from augury.resources.documents import parse_entry

router = APIRouter(tags=["runs"])
Stream = Literal["service", "stdout", "stderr", "augury"]
_LONGEST_KEY = 255
_EXAMPLES = {
    "the job as it is": {"job": "score_half_year"},
    "with another input": {
        "job": "score_day",
        "input": [{"uri": "s3://landing/2013-07-01.parquet"}],
    },
    "a script with other arguments": {"job": "hello", "arguments": ["--name", "you"]},
}


@router.post("/runs", status_code=201, openapi_extra=json_body(schema_of("RunRequest"), _EXAMPLES))
async def start(
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=_LONGEST_KEY)] = None,
) -> Response:
    """Accepts a run of a job, with what it changes of the job's spec.

    With the header `Idempotency-Key` the same request gives the same run, however often it is
    sent: 201 the first time, 200 from then on. Another request with a used key is a conflict.
    """
    body = await request.body()
    return await run_in_threadpool(_start, request.app.state.engine, body, idempotency_key)


def _start(engine: Engine, body: bytes, key: str | None) -> Response:
    wanted = run_request(parse_entry(body))
    run, created = engine.start_run(wanted.job, wanted.overrides(), idempotency_key=key)
    location = {"Location": f"/v1/runs/{run.id}"}
    return answer(run_view(run), 201 if created else 200, location)


@router.post("/plan", openapi_extra=json_body(schema_of("RunRequest"), _EXAMPLES))
async def plan(request: Request) -> Response:
    """What such a run would do: mode, files, shards, rows. Starts nothing, reads footers only."""
    body = await request.body()
    return await run_in_threadpool(_plan, request.app.state.engine, body)


def _plan(engine: Engine, body: bytes) -> Response:
    wanted = run_request(parse_entry(body))
    return answer(plan_view(*engine.plan_run(wanted.job, wanted.overrides())))


def schemas() -> dict[str, Any]:
    """JSON schemas of this module's bodies, by name."""
    schema = RunRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), "RunRequest": schema}


@router.get("/runs")
def runs(
    engine: TheEngine,
    state: RunState | None = None,
    job: str | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """Runs, newest first, older than the run `before` (exclusive)."""
    with engine.database.read() as connection:
        found = list_runs(connection, state=state, job=job, limit=limit + 1, before=before)
    return page(found, limit, run_view, lambda run: run.id)


@router.get("/runs/{run}")
def show(engine: TheEngine, run: str) -> Response:
    """One run by its id, or the newest of a name."""
    with engine.database.read() as connection:
        return answer(run_view(get_run(connection, run)))


@router.get("/runs/{run}/logs")
def logs(
    engine: TheEngine, run: str, limit: Limit = 1000, after: str = "", stream: Stream | None = None
) -> Response:
    """What Augury did to a run (`service`) and what its program said, in the order of time.

    Each line has a `cursor`; give the last one as `after` to go on behind it.
    """
    with engine.database.read() as connection:
        run_id = get_run(connection, run).id
        cursor = parse_cursor(after)
        found = log_lines.read(connection, run_id, cursor, limit + 1, stream=stream)
    return page(found, limit, view, lambda line: line.cursor)


@router.get("/runs/{run}/logs/live", response_class=StreamingResponse)
async def live_logs(
    engine: TheEngine,
    run: str,
    after: str = "",
    stream: Stream | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The same lines as server-sent events, until the run is over.

    An event's `id` is the line's cursor, so a client that connects again goes on where it was. The
    last event is `end`, with the run's state.
    """
    cursor = parse_cursor(last_event_id or after)
    found = await run_in_threadpool(_run_id, engine, run)
    return StreamingResponse(
        live_events(engine.database, found, cursor, stream),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _run_id(engine: Engine, run: str) -> str:
    with engine.database.read() as connection:
        return get_run(connection, run).id


@router.get("/runs/{run}/manifest")
def manifest(engine: TheEngine, run: str) -> Response:
    """The committed manifest: the proof of every row."""
    with engine.database.read() as connection:
        found = get_run(connection, run)
    if found.manifest is None:
        raise NotFoundError(f"run {found.id} is {found.state} and has no manifest")
    return answer(msgspec.Raw(found.manifest.encode()))


@router.post("/runs/{run}/cancel")
def cancel(engine: TheEngine, run: str) -> Response:
    """Asks a run to stop; a second time changes nothing. 409 if its output is committed."""
    return answer(run_view(engine.cancel_run(run)))


@router.post("/runs/{run}/resume")
def resume(engine: TheEngine, run: str) -> Response:
    """Goes on with what is missing. 409 unless it failed, was canceled or needs attention."""
    return answer(run_view(engine.resume_run(run)))


@router.delete("/runs/{run}")
def delete(engine: TheEngine, run: str) -> Response:
    """Takes a run that is over out of all listings; its output stays."""
    return answer(run_view(engine.delete_run(run)))
