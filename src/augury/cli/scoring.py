"""`augury score`: one inference run in this very process, no services."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.context import Json, load_settings
from augury.cli.output import echo, example, print_json

if TYPE_CHECKING:
    from augury.inference.local import ScoreSummary

type Progress = Callable[[int, int], None]


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog=example(
            "augury score --model model.ubj --input landing/ --output predictions/",
            "augury score --model m.ubj --input s3://b/in/ --output s3://b/out/ --json",
            "augury score --model m.ubj --input in/ --output out/ --policy policy.yaml",
        )
    )(score)


def score(
    model: Annotated[Path, typer.Option(help="The model's file.", exists=True, dir_okay=False)],
    inputs: Annotated[
        list[str], typer.Option("--input", help="Parquet: file, folder/ or URI. Repeatable.")
    ],
    output: Annotated[str, typer.Option(help="Folder or prefix to write into.")],
    *,
    columns: Annotated[
        str | None, typer.Option(help="Input columns to carry through, separated by commas.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file with the columns that the model was trained on.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with on_bad_row, expect, max_rejected, on_corrupt_file, as in a job.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Allow unpickling the model: it can run any code."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Scores files in this process: no engine, no services.

    Writes part-*.parquet and, last, _manifest.json into the output; rejected rows go to _rejected/.
    The same call again writes the same bytes. With --json prints one line.
    """
    from augury.inference.local import score_local

    wanted = read_policy(policy)
    with show_progress() as on_progress:
        summary = score_local(
            model,
            inputs,
            output,
            settings=load_settings(),
            trust=trust,
            sample=sample,
            columns=tuple(part for part in (columns or "").split(",") if part),
            policy=wanted,
            on_progress=on_progress,
        )
    if as_json:
        print_json(summary.to_json())
    else:
        _show(summary)


def read_policy(path: Path | None) -> Mapping[str, Any] | None:
    """The fields of a policy file; None without one.

    Raises:
        InvalidError: it is not YAML.
    """
    if path is None:
        return None
    from augury.resources.documents import parse_entry

    return parse_entry(path.read_bytes()).fields


@contextmanager
def show_progress() -> Iterator[Progress | None]:
    """A progress bar on stderr, if a person is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("planning", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, description="scoring", completed=done, total=total)

        yield on_progress


def _show(summary: ScoreSummary) -> None:
    rejected = f", {summary.rows_rejected:,} rejected" if summary.rows_rejected else ""
    echo(f"{summary.rows_predicted:,} of {summary.rows_in:,} rows predicted{rejected} in "
         f"{summary.seconds:,.2f} s, {summary.rows_per_second:,.0f} rows/s")  # fmt: skip
    echo(f"backend  {summary.backend}, peak memory {summary.peak_rss_bytes / 2**20:,.0f} MiB")
    if summary.backend_reason:
        echo(f"         {summary.backend_reason}")
    echo(f"output   {summary.output_uri}")
    echo(f"manifest {summary.manifest_uri}")
    if not summary.complete:
        echo(f"PARTIAL  damaged and left out: {', '.join(summary.quarantined)}")
