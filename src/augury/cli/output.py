"""What commands print: tables for people, JSON for programs.

On a terminal tables are drawn by Rich; elsewhere they are plain columns, nothing cut off, so that
`grep` and `awk` work, and Rich is not even imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

ABSENT = "-"


def example(*lines: str) -> str:
    """The epilog of a command's help: how it is used."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def echo(text: str) -> None:
    """A line of result, on stdout."""
    sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Shows what was echoed now: a pipe would keep it until there is more."""
    sys.stdout.flush()


def note(text: str) -> None:
    """A line that is no result, on stderr."""
    sys.stderr.write(f"{text}\n")


def print_json(value: Any, *, indent: bool = False) -> None:
    """JSON on stdout: one line, or indented for people."""
    import msgspec

    from augury.engine.views import plain

    text = msgspec.json.encode(plain(value))
    echo((msgspec.json.format(text, indent=2) if indent else text).decode())
    sys.stdout.flush()


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    empty: str = "",
) -> None:
    """A table on stdout.

    Args:
        headings: of the columns, in lower case.
        rows: of the same length; None is shown as `-`, instants in UTC with `Z`.
        right: headings of the columns to align to the right.
        empty: what to say on stderr if there are no rows.
    """
    texts = [[shown(value) for value in row] for row in rows]
    if not texts and empty:
        note(empty)
    elif sys.stdout.isatty():
        _draw(headings, texts, frozenset(right))
    else:
        _print_plain([list(headings), *texts], [name in set(right) for name in headings])


def _draw(headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(text, style=style_of(text)) for text in row))
    Console().print(table)


def style_of(text: str) -> str:
    """Colour of a state; nothing for other texts."""
    return _STYLES.get(text, "")


_STYLES = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELED": "yellow",
    "CANCELING": "yellow",
    "IN_PROGRESS": "cyan",
    "NEEDS_ATTENTION": "magenta",
    "DEAD": "red",
    "OPEN": "red",
    "created": "green",
    "updated": "cyan",
    "problem": "red",
    "advice": "yellow",
    "ok": "green",
}


def _print_plain(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    for row in rows:
        cells = [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ]
        echo("  ".join(cells).rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line; what is nested is shown as JSON."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        echo(f"{name.ljust(width)}  {shown(value)}")


def shown(value: object) -> str:
    """A value as a person reads it, on one line."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping | list | tuple):
        import msgspec

        from augury.engine.views import plain

        return msgspec.json.encode(plain(value)).decode()
    return str(value).replace("\n", " ")


def _instant(value: datetime) -> str:
    """`2026-11-25T07:11:51Z`; tables need no microseconds."""
    from augury import clock

    return clock.iso(value)[:19] + "Z"


def print_list[T](
    items: Sequence[T],
    columns: Mapping[str, Callable[[T], object]],
    *,
    as_json: bool,
    view: Callable[[T], Mapping[str, Any]],
    right: Iterable[str] = (),
    empty: str = "",
) -> None:
    """A list as a table or, for programs, as a JSON array of views."""
    if as_json:
        print_json([view(item) for item in items])
        return
    rows = [[value(item) for value in columns.values()] for item in items]
    print_table(list(columns), rows, right=right, empty=empty)
