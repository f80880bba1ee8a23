"""Following a run to its end: a progress bar on a terminal, a line for each step elsewhere.

Of a script run its log is shown.

The ledger is read a few times a second; nothing is asked of workers. What is shown is progress in
rows: the workers report it while they score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from augury import clock
from augury.cli.logs import tell_logs
from augury.cli.output import echo, flush, note, print_json, style_of
from augury.engine.views import run_view
from augury.jobs.runs import Run, get_run, list_runs

if TYPE_CHECKING:
    from augury.engine import Engine

_POLL_S = 0.1
_RECENT = timedelta(seconds=60)
_STEP_PERCENT = 10


def find_newest(engine: Engine) -> str:
    """The newest run that is not over; else one of the last minute; else the next that comes."""
    waiting = False
    while True:
        with engine.database.read() as connection:
            found = list_runs(connection, limit=50)
        unfinished = [run for run in found if not run.is_finished]
        recent = [run for run in found if clock.utc_now() - run.time_accepted < _RECENT]
        if unfinished or recent:
            return (unfinished or recent)[0].id
        if not waiting:
            note("waiting for a run; Ctrl-C stops watching")
            waiting = True
        clock.sleep_s(_POLL_S)


def follow(engine: Engine, id_or_name: str, *, as_json: bool) -> Run:
    """Shows a run until it is over.

    Returns:
        The run as it ended.

    Raises:
        NotFoundError: no such run.
    """

    def look(name: str) -> Run:
        with engine.database.read() as connection:
            return get_run(connection, name)

    first = look(id_or_name)
    if as_json:
        return _tell_steps(first, look, lambda run: print_json(run_view(run)))
    if first.kind == "script":  # it has no rows to count: its log is its progress
        tell_logs(engine, first.id, follow=True, stream=None, as_json=False)
        ended = look(first.id)
    elif sys.stdout.isatty():
        ended = _draw(first, look)
    else:
        ended = _tell_steps(first, look, lambda run: echo(_line(run)))
    _tell_end(ended)
    return ended


def _tell_steps(run: Run, look: Callable[[str], Run], tell: Callable[[Run], None]) -> Run:
    """Tells each change of state, and progress in steps."""
    told: tuple[str, int] | None = None
    while True:
        step = (run.state.value, _percent(run) // _STEP_PERCENT)
        if step != told:
            tell(run)
            flush()
            told = step
        if run.is_finished:
            return run
        clock.sleep_s(_POLL_S)
        run = look(run.id)


def _percent(run: Run) -> int:
    return min(100, run.rows_done * 100 // run.rows_in) if run.rows_in else 0


def _line(run: Run) -> str:
    rows = f"{run.rows_done:,} of {run.rows_in:,} rows" if run.rows_in else "not planned yet"
    return f"{clock.iso(clock.utc_now())[:19]}Z  {run.id}  {run.job_name}  {run.state}  {rows}"


def _draw(run: Run, look: Callable[[str], Run]) -> Run:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(run.job_name, total=None, rate=0.0)
        while True:
            progress.update(
                task,
                description=_described(run),
                completed=run.rows_done,
                total=run.rows_in or None,
                rate=_rate(run),
            )
            if run.is_finished:
                return run
            clock.sleep_s(_POLL_S)
            run = look(run.id)


def _described(run: Run) -> str:
    style = style_of(run.state)
    state = f"[{style}]{run.state}[/]" if style else run.state
    shards = f", shard {run.shards_done} of {run.shards_total}" if run.shards_total > 1 else ""
    return f"{run.job_name} {state} {run.mode or ''}{shards}"


def _rate(run: Run) -> float:
    if run.time_started is None:
        return 0.0
    seconds = ((run.time_finished or clock.utc_now()) - run.time_started).total_seconds()
    return run.rows_done / seconds if seconds > 0 else 0.0


def _tell_end(run: Run) -> None:
    if run.state == "SUCCEEDED" and run.kind == "script":
        echo(f"{run.id} SUCCEEDED: exit code {run.exit_code}")
        if run.output_uri:
            echo(f"output   {run.output_uri}")
    elif run.state == "SUCCEEDED":
        rejected = f", {run.rows_rejected:,} rejected" if run.rows_rejected else ""
        if run.is_partial:
            echo(run.lifecycle_details)
        echo(f"{run.id} SUCCEEDED: {run.rows_predicted:,} rows predicted{rejected}, "
             f"{_rate(run):,.0f} rows/s")  # fmt: skip
        echo(f"output   {run.output_uri}")
        echo(f"manifest {run.manifest_uri}")
    else:
        echo(f"{run.id} {run.state}: {run.lifecycle_details}")
