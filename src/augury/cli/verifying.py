"""`augury verify`: is an output what its manifest says? Needs no service."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.audit import VIOLATED
from augury.cli.context import Json, load_settings
from augury.cli.output import echo, example, print_json

if TYPE_CHECKING:
    from augury.data.verification import Verification


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog=example(
            "augury verify predictions/",
            "augury verify s3://bucket/out/run_01JD3Z/ --json",
        )
    )(verify)


def verify(
    output: Annotated[str, typer.Argument(help="Folder or prefix that holds _manifest.json.")],
    as_json: Json = False,
) -> None:
    """Checks an output against its manifest, from its bytes alone: no service, no database.

    Parts and reject parts are there, with their sizes, SHA-256 and rows by their footers; law 2
    adds up for each file; nothing else lies there that readers would take for data. Exits with 0 if
    all is well (a partial result says so), with 4 on violations, with 1 if nothing is there.
    """
    from augury.data.verification import verify_output
    from augury.storage.objects import open_store

    store = open_store(output.rstrip("/") + "/", load_settings())
    with _progress() as on_progress:
        found = verify_output(store, on_progress=on_progress)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(VIOLATED)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if a person is there to see it."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(found: Verification) -> None:
    for violation in found.violations:
        echo(f"VIOLATION {violation}")
    if not found.ok:
        many = len(found.violations)
        echo(f"{found.output_uri} is not what its manifest says: {many} "
             f"violation{'s' * (many != 1)}")  # fmt: skip
        return
    rows = found.rows
    generation = f"generation {found.generation}, " if found.generation > 1 else ""
    echo(f"{found.output_uri} is what its manifest says: {generation}{found.num_parts} parts, "
         f"{found.size_bytes:,} bytes")  # fmt: skip
    echo(f"rows     {rows.rows_in:,} in = {rows.rows_predicted:,} predicted + "
         f"{rows.rows_rejected:,} rejected + {rows.rows_filtered:,} filtered")  # fmt: skip
    if not found.complete:
        echo(f"PARTIAL  damaged and left out: {', '.join(found.quarantined)}")
