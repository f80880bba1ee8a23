"""What a run's program said, line by line: chunks of lines in the ledger.

Lines come by the thousand, so a row holds a chunk of them, compressed. Lines are numbered from 1
over all attempts of a run, which makes a number a cursor: who follows a log asks for what comes
behind the last one it has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from augury import clock
from augury.jobs.statements import RUN_STATE
from augury.jobs.work import WorkItem, fence, lost
from augury.storage.tables import run_output


@dataclass(frozen=True, kw_only=True)
class OutputLine:
    """One line. `number` counts from 1 within the run; `stream` is stdout, stderr or augury."""

    number: int
    run_id: str
    attempt: int
    at: datetime
    stream: str
    text: str


def append(
    connection: sa.Connection, item: WorkItem, lines: Sequence[tuple[datetime, str, str]]
) -> None:
    """Adds lines (time, stream, text) of the run that a worker holds, in one chunk.

    Raises:
        LostLeaseError: the item is not the caller's any more; nothing was added.
    """
    if connection.scalar(RUN_STATE, fence(item)) is None:
        raise lost(item)
    first = _last_number(connection, item.run_id) + 1
    body = [(clock.iso(at), stream, text) for at, stream, text in lines]
    connection.execute(
        sa.insert(run_output).values(
            run_id=item.run_id,
            attempt=item.attempts,
            first_number=first,
            last_number=first + len(lines) - 1,
            body=zlib.compress(msgspec.json.encode(body), level=1),
            at=clock.utc_now(),
        )
    )


def _last_number(connection: sa.Connection, run_id: str) -> int:
    last = sa.select(sa.func.max(run_output.c.last_number)).where(run_output.c.run_id == run_id)
    return connection.scalar(last) or 0


def read(
    connection: sa.Connection,
    run_id: str,
    after: int = 0,
    limit: int = 1000,
    *,
    stream: str | None = None,
) -> list[OutputLine]:
    """Up to `limit` lines with numbers greater than `after`, in their order.

    Args:
        connection: a reading connection.
        run_id: which run.
        after: number of the last line that the caller has (exclusive).
        limit: at most so many.
        stream: only lines of this one.
    """
    found: list[OutputLine] = []
    chunks = connection.execute(
        sa.select(run_output)
        .where(run_output.c.run_id == run_id, run_output.c.last_number > after)
        .order_by(run_output.c.last_number)
    )
    for chunk in chunks:
        for line in _lines(chunk):
            if line.number > after and stream in (None, line.stream):
                found.append(line)
                if len(found) == limit:
                    chunks.close()
                    return found
    return found


def _lines(chunk: Any) -> Iterator[OutputLine]:
    body = msgspec.json.decode(zlib.decompress(chunk.body))
    for number, (at, stream, text) in enumerate(body, chunk.first_number):
        yield OutputLine(
            number=number,
            run_id=chunk.run_id,
            attempt=chunk.attempt,
            at=clock.parse(at),
            stream=stream,
            text=text,
        )
