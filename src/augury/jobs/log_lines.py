"""A run's whole log: what Augury did to it and what its program said, in the order of time.

Both are read in pages behind a cursor, which is a position in each of the two. Lines of one kind
keep their own order, whatever the clocks of the hosts that wrote them say.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

import sqlalchemy as sa

from augury.errors import InvalidError
from augury.jobs import logs, output_log
from augury.jobs.logs import LogLine
from augury.jobs.output_log import OutputLine

SERVICE = "service"
STREAMS = (SERVICE, "stdout", "stderr", "augury")


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The last service line and the last line of output that somebody has; 0: none."""

    service: int = 0
    output: int = 0

    def __str__(self) -> str:
        return f"{self.service}-{self.output}"


def parse_cursor(text: str) -> Cursor:
    """Reads what `str(cursor)` gave; empty: the beginning.

    Raises:
        InvalidError: it is none.
    """
    if not text:
        return Cursor()
    service, _, output = text.partition("-")
    if not (service.isdecimal() and (output or "0").isdecimal()):
        raise InvalidError(f"expected the cursor of a line, such as 12-340, found {text!r}")
    return Cursor(service=int(service), output=int(output or 0))


@dataclass(frozen=True, kw_only=True)
class RunLogLine:
    """One line of a run's log.

    Attributes:
        stream: `service`: what Augury did; `stdout`, `stderr`: what the program said; `augury`:
            what there is to say about the program's log itself.
        level: of a service line: info, warning or error; else empty.
        attempt: of a line of output: the attempt that wrote it.
        cursor: what to give to go on behind this line.
    """

    run_id: str
    at: datetime
    stream: str
    level: str
    message: str
    attempt: int | None
    cursor: str


def read(
    connection: sa.Connection,
    run_id: str,
    after: Cursor,
    limit: int = 1000,
    *,
    stream: str | None = None,
) -> list[RunLogLine]:
    """Up to `limit` lines behind a cursor.

    Args:
        connection: a reading connection.
        run_id: which run.
        after: of the last line that the caller has.
        limit: at most so many.
        stream: only lines of this one.
    """
    service: list[LogLine] = []
    output: list[OutputLine] = []
    if stream in (None, SERVICE):
        service = logs.read(connection, run_id, after.service, limit)
    if stream != SERVICE:
        output = output_log.read(connection, run_id, after.output, limit, stream=stream)
    return _merged(service, output, after, limit)


def _merged(
    service: list[LogLine], output: list[OutputLine], after: Cursor, limit: int
) -> list[RunLogLine]:
    """In the order of time, each line with the cursor of what has been given by then."""
    merged: list[RunLogLine] = []
    place = after
    ordered: Iterator[LogLine | OutputLine] = heapq.merge(service, output, key=attrgetter("at"))
    for line in itertools.islice(ordered, limit):
        if isinstance(line, LogLine):
            place = Cursor(service=line.id, output=place.output)
            merged.append(_service_line(line, place))
        else:
            place = Cursor(service=place.service, output=line.number)
            merged.append(_output_line(line, place))
    return merged


def _service_line(line: LogLine, place: Cursor) -> RunLogLine:
    return RunLogLine(
        run_id=line.run_id,
        at=line.at,
        stream=SERVICE,
        level=line.level,
        message=line.message,
        attempt=None,
        cursor=str(place),
    )


def _output_line(line: OutputLine, place: Cursor) -> RunLogLine:
    return RunLogLine(
        run_id=line.run_id,
        at=line.at,
        stream=line.stream,
        level="",
        message=line.text,
        attempt=line.attempt,
        cursor=str(place),
    )
