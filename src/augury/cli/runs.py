"""`augury runs start|list|show|watch|logs|cancel|resume|retry-rejected|delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.context import Json, Limit, open_engine
from augury.cli.output import (
    echo,
    example,
    flush,
    note,
    print_fields,
    print_json,
    print_list,
)

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.jobs.runs import Run

RunName = Annotated[str, typer.Argument(help="Id of the run, or the newest of a name.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(help="Executions of jobs.", no_args_is_help=True, rich_markup_mode=None)
    group.command(
        epilog=example(
            "augury runs start score_half_year --watch",
            "augury runs start score_day --input landing/2013-07-01.parquet --mode mini_batch",
            "augury runs start hello --args '--name you' --env LEVEL=debug",
        )
    )(start)
    group.command("list", epilog=example("augury runs list --state FAILED"))(list_)
    group.command(epilog=example("augury runs show run_01JD3Z --json"))(show)
    group.command(epilog=example("augury runs watch", "augury runs watch run_01JD3Z"))(watch)
    group.command(epilog=example("augury runs logs run_01JD3Z --follow"))(logs)
    group.command(epilog=example("augury runs cancel run_01JD3Z"))(cancel)
    group.command(epilog=example("augury runs resume run_01JD3Z --watch"))(resume)
    group.command(
        "retry-rejected",
        epilog=example(
            "augury runs retry-rejected run_01JD3Z --model m@4",
            "augury runs retry-rejected run_01JD3Z --policy policy.yaml",
        ),
    )(retry_rejected)
    group.command(epilog=example("augury runs delete run_01JD3Z"))(delete)
    app.add_typer(group, name="runs")


def start(
    job: Annotated[str, typer.Argument(help="Name of the job.")],
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="What to score instead: path, URI or prefix/. Repeatable."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder or prefix to write below.")] = None,
    model: Annotated[str | None, typer.Option(help="name@alias, name@3 or name.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="auto, mini_batch, batch or distributed.")
    ] = None,
    arguments: Annotated[
        str | None, typer.Option("--args", help="Of a script: its command line, as in a shell.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Input columns to carry through, separated by commas.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="Most shards at work at once.")
    ] = None,
    maximum_runtime_s: Annotated[
        float | None, typer.Option(help="Seconds until it is failed.")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=VALUE. Repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key gives the same run, however often.")
    ] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Starts a run of a job; prints its id.

    Options override the job's values for this run.
    """
    from augury.engine.requests import run_request
    from augury.resources.documents import Entry

    fields = {
        "job": job,
        "input": inputs or None,
        "output": output,
        "model": model,
        "mode": mode,
        "arguments": arguments,
        "columns": None if columns is None else [part for part in columns.split(",") if part],
        "max_concurrency": max_concurrency,
        "maximum_runtime_s": maximum_runtime_s,
        "environment": _environment(environment) if environment else None,
        "display_name": name,
    }
    given = {field: value for field, value in fields.items() if value is not None}
    request = run_request(Entry(section="", name="", fields=given), base=Path.cwd())
    with open_engine() as engine:
        run, created = engine.start_run(
            request.job, request.overrides(), idempotency_key=idempotency_key
        )
        _told(run, created=created, as_json=as_json)
        flush()
        if watch_it:
            _follow(engine, run.id, as_json=as_json)


def _told(run: Run, *, created: bool, as_json: bool) -> None:
    from augury.engine.views import run_view

    if as_json:
        print_json(run_view(run))
    else:
        echo(run.id)
    if not created:
        note(f"this key started run {run.id} before; it is {run.state}")


def _environment(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--env: expected NAME=VALUE, found {pair!r}")
        found[name] = value
    return found


def list_(
    state: Annotated[
        str | None, typer.Option(help="Only in this state, for example FAILED.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    limit: Limit = 20,
    before: Annotated[str | None, typer.Option(help="Only older than this run.")] = None,
    as_json: Json = False,
) -> None:
    """Runs, newest first."""
    from augury.cli.deadletters import one_of
    from augury.engine.views import run_view
    from augury.jobs.runs import list_runs
    from augury.jobs.states import RunState

    wanted = None if state is None else one_of(RunState, state)
    with open_engine() as engine, engine.database.read() as connection:
        found = list_runs(connection, state=wanted, job=job, limit=limit, before=before)
    print_list(
        found,
        {
            "id": lambda run: run.id,
            "job": lambda run: run.job_name,
            "state": lambda run: run.state,
            "mode": lambda run: run.mode,
            "rows": lambda run: run.rows_in,
            "done": _percent,
            "exit": lambda run: run.exit_signal or run.exit_code,
            "accepted": lambda run: run.time_accepted,
            "seconds": _seconds,
        },
        as_json=as_json,
        view=run_view,
        right=["rows", "done", "seconds"],
        empty="no runs",
    )


def _percent(run: Run) -> str:
    if run.state == "SUCCEEDED":
        return "100%"
    return f"{run.rows_done * 100 // run.rows_in}%" if run.rows_in else "0%"


def _seconds(run: Run) -> float | None:
    from augury import clock

    if run.time_started is None:
        return None
    return ((run.time_finished or clock.utc_now()) - run.time_started).total_seconds()


def show(run: RunName, as_json: Json = False) -> None:
    """Everything about one run; --json adds plan and manifest."""
    import msgspec

    from augury.engine.views import run_view
    from augury.jobs.runs import get_run

    with open_engine() as engine, engine.database.read() as connection:
        found = get_run(connection, run)
    fields: dict[str, Any] = run_view(found)
    if as_json:
        for name in ("plan", "manifest"):
            text = getattr(found, name)
            fields[name] = None if text is None else msgspec.json.decode(text)
        print_json(fields)
    else:
        print_fields(fields)


def watch(
    run: Annotated[
        str | None,
        typer.Argument(help="Id or name; if not given: the newest unfinished, or the next one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Follows a run to its end. Exits with 0 if it succeeded, with 1 if not.

    Without a run: the newest that is not over, or one that began within the last minute, or else
    the next one. Ctrl-C stops watching, not the run.
    """
    with open_engine() as engine:
        _follow(engine, run or _newest(engine), as_json=as_json)


def _newest(engine: Engine) -> str:
    from augury.cli.watching import find_newest

    return find_newest(engine)


def _follow(engine: Engine, run: str, *, as_json: bool) -> None:
    from augury.cli.watching import follow

    ended = follow(engine, run, as_json=as_json)
    if ended.state != "SUCCEEDED":
        raise typer.Exit(1)


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the run is over.")] = False,
    stream: Annotated[
        str | None, typer.Option(help="Only service, stdout, stderr or augury.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What Augury did to a run, and what its program said, in the order of time.

    `service` lines are Augury's own; `augury` lines say what is missing of the program's.
    """
    from augury.cli.logs import tell_logs

    with open_engine() as engine:
        tell_logs(engine, run, follow=follow, stream=stream, as_json=as_json)


def cancel(run: RunName, as_json: Json = False) -> None:
    """Asks a run to stop; its workers let go within 2 s. Too late once its output is committed."""
    from augury.errors import ConflictError
    from augury.jobs.runs import get_run

    with open_engine() as engine:
        with engine.database.read() as connection:
            before = get_run(connection, run)
        if before.state == "CANCELED":
            raise ConflictError(f"nothing to cancel: run {before.id} is CANCELED", state="CANCELED")
        found = engine.cancel_run(before.id)
    _settled(found, as_json=as_json)


def resume(
    run: RunName,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Lets a run that failed or was canceled go on with what is missing; finished shards stay.

    Plan, pins and parts are the same. A run that ended more than AUGURY_RESUME_DAYS ago has lost
    its parts, and is scored again from the beginning.
    """
    with open_engine() as engine:
        found = engine.resume_run(run)
        _settled(found, as_json=as_json)
        flush()
        if watch_it:
            _follow(engine, found.id, as_json=as_json)


def retry_rejected(
    run: RunName,
    *,
    model: Annotated[
        str | None, typer.Option(help="Another one: name@alias, name@4. Else the same version.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with on_bad_row and expect instead of the run's.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Scores the rejected rows of a run again, in this process, after something was mended.

    Commits a new generation of the output: new parts, and _manifest.N.json that names all of them.
    No part is rewritten. If every row is rejected again nothing changes, and it exits with 1.
    """
    from augury.cli.scoring import read_policy, show_progress
    from augury.errors import Fault, InvalidError
    from augury.jobs.spec import RunOverrides
    from augury.resources.documents import Entry, validated

    fields = {**(read_policy(policy) or {}), **({} if model is None else {"model": model})}
    faults: list[Fault] = []
    overrides = validated(Entry(section="", name="", fields=fields), RunOverrides, faults)
    if overrides is None:
        raise InvalidError("cannot retry so", faults)
    with open_engine() as engine, show_progress() as on_progress:
        found = engine.retry_rejected(run, overrides, on_progress=on_progress)
    if as_json:
        _settled(found, as_json=True)
        return
    echo(f"{found.id}: generation {found.generation}, {found.rows_predicted:,} rows predicted, "
         f"{found.rows_rejected:,} rejected")  # fmt: skip
    echo(f"manifest {found.manifest_uri}")


def delete(run: RunName, as_json: Json = False) -> None:
    """Takes a run that is over out of all listings."""
    with open_engine() as engine:
        found = engine.delete_run(run)
    _settled(found, as_json=as_json)


def _settled(run: Run, *, as_json: bool) -> None:
    from augury.engine.views import run_view

    if as_json:
        print_json(run_view(run))
    else:
        echo(f"{run.id} {run.state}")
