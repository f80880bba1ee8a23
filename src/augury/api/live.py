"""A run's log as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The ledger is read a few times a second in the thread pool; between two looks a follower costs
nothing but its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.concurrency import run_in_threadpool

from augury import clock
from augury.engine.views import view
from augury.jobs import log_lines
from augury.jobs.log_lines import Cursor, RunLogLine, parse_cursor
from augury.jobs.runs import Run, get_run
from augury.storage.database import Database

_LOOK_S = 0.2
_SIGN_OF_LIFE_S = 15.0
_MOST_LINES = 1000


async def live_events(
    database: Database, run_id: str, cursor: Cursor, stream: str | None
) -> AsyncIterator[str]:
    """Lines as they come, until the run is over and all of them are told."""
    told_s = clock.monotonic_s()
    while True:
        run, lines = await run_in_threadpool(_look, database, run_id, cursor, stream)
        for line in lines:
            yield _event(line)
        if lines:
            cursor, told_s = parse_cursor(lines[-1].cursor), clock.monotonic_s()
            continue
        if run.is_finished:
            yield f"event: end\ndata: {_json({'state': run.state.value})}\n\n"
            return
        if clock.monotonic_s() - told_s > _SIGN_OF_LIFE_S:
            yield ": still here\n\n"
            told_s = clock.monotonic_s()
        await asyncio.sleep(_LOOK_S)


def _look(
    database: Database, run_id: str, cursor: Cursor, stream: str | None
) -> tuple[Run, list[RunLogLine]]:
    """In one snapshot: a run that is over has no line that these do not have."""
    with database.read() as connection:
        run = get_run(connection, run_id)
        return run, log_lines.read(connection, run_id, cursor, _MOST_LINES, stream=stream)


def _event(line: RunLogLine) -> str:
    return f"id: {line.cursor}\nevent: line\ndata: {_json(view(line))}\n\n"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
