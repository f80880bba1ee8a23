"""Showing a run's log, once or for as long as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from augury import clock
from augury.cli.output import echo, flush, print_json
from augury.engine.views import view
from augury.jobs import log_lines
from augury.jobs.log_lines import SERVICE, STREAMS, Cursor, RunLogLine, parse_cursor
from augury.jobs.runs import get_run

if TYPE_CHECKING:
    from augury.engine import Engine

_POLL_S = 0.2
_TAB = 9
_FIRST_PRINTABLE = 32
_DELETE = 127


def tell_logs(engine: Engine, run: str, *, follow: bool, stream: str | None, as_json: bool) -> None:
    """Prints a run's lines; with `follow` until the run is over.

    Raises:
        NotFoundError: no such run.
    """
    if stream is not None and stream not in STREAMS:
        raise typer.BadParameter(f"expected one of {', '.join(STREAMS)}, found {stream!r}")
    cursor = Cursor()
    while True:
        with engine.database.read() as connection:
            found = get_run(connection, run)
            run = found.id  # a newer run of the same name must not go on with this one's log
            lines = log_lines.read(connection, run, cursor, stream=stream)
        for line in lines:
            _tell(line, as_json=as_json)
        flush()
        if lines:
            cursor = parse_cursor(lines[-1].cursor)
        elif found.is_finished or not follow:
            return
        else:
            clock.sleep_s(_POLL_S)


def _tell(line: RunLogLine, *, as_json: bool) -> None:
    if as_json:
        print_json(view(line))
        return
    kind = line.level if line.stream == SERVICE else line.stream
    echo(f"{clock.iso(line.at)[:19]}Z  {kind:<7}  {harmless(line.message)}")


def harmless(text: str) -> str:
    """The text without characters that could do something to a terminal; tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        character if _is_harmless(ord(character)) else f"\\x{ord(character):02x}"
        for character in text
    )


def _is_harmless(code: int) -> bool:
    return code == _TAB or _FIRST_PRINTABLE <= code < _DELETE or code >= 0xA0
