"""`augury plan`: what a run would do, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.context import Json, load_settings, open_engine
from augury.cli.output import echo, example, print_json, print_table

if TYPE_CHECKING:
    from augury.inference.plan import Plan, ShardSpec

_SHOWN_SHARDS = 20


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog=example(
            "augury plan score_half_year",
            "augury plan --model model.ubj --input landing/ --columns flight_id",
        )
    )(plan)


def plan(
    job: Annotated[
        str | None, typer.Argument(help="Name of a job; not needed with a model's file.")
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option(help="A model's file; with a job: name@alias, name@3 or name.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Path, URI or prefix/. Repeatable.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Input columns to carry through, separated by commas.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="auto, mini_batch, batch or distributed.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Parquet file with the columns of the model's file.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow unpickling the model's file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Shows what a run would do, without running it.

    Mode, model, shards and rows, and every fault of its input. Only footers are read. Exits
    with 1 if the run would fail: columns that are missing or do not fit are all named.
    """
    fields = {
        "input": inputs or None,
        "columns": None if columns is None else [part for part in columns.split(",") if part],
        "mode": mode,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    if job is not None:
        found = _of_job({"job": job, "model": model, **given})
    elif model is None or not inputs:
        raise typer.BadParameter("expected the name of a job, or --model FILE and --input")
    else:
        found = _of_file(Path(model), given, sample, trust=trust)
    _show(*found, as_json=as_json)


def _of_job(fields: dict[str, Any]) -> tuple[Plan, list[ShardSpec]]:
    from augury.engine.requests import run_request
    from augury.resources.documents import Entry

    given = {name: value for name, value in fields.items() if value is not None}
    request = run_request(Entry(section="", name="", fields=given), base=Path.cwd())
    with open_engine() as engine:
        return engine.plan_run(request.job, request.overrides())


def _of_file(
    model: Path, fields: dict[str, Any], sample: Path | None, *, trust: bool
) -> tuple[Plan, list[ShardSpec]]:
    from augury.inference.local import plan_local

    return plan_local(model, fields.pop("input"), settings=load_settings(), sample=sample,
                      trust=trust, **fields)  # fmt: skip


def _show(plan: Plan, shards: list[ShardSpec], *, as_json: bool) -> None:
    from augury.engine.views import plan_view

    if as_json:
        print_json(plan_view(plan, shards))
        return
    echo(f"mode     {plan.mode}")
    echo(f"model    {plan.model.name}@{plan.model.version} ({plan.model.flavor}, "
         f"{len(plan.model.signature.inputs)} inputs, {plan.model.signature.task})")  # fmt: skip
    echo(f"input    {plan.rows_in:,} rows in {len(plan.files):,} files, {plan.size_bytes:,} bytes")
    echo(f"output   columns {', '.join((*plan.columns, *plan.prediction_columns))}")
    for cast in plan.casts:
        echo(f"cast     {cast}")
    echo(f"shards   {len(shards):,}")
    rows = [
        [shard.seq, shard.num_rows, len(shard.ranges), shard.ranges[0].uri if shard.ranges else ""]
        for shard in shards[:_SHOWN_SHARDS]
    ]
    print_table(["shard", "rows", "row groups", "begins in"], rows,
                right=["shard", "rows", "row groups"])  # fmt: skip
    if len(shards) > _SHOWN_SHARDS:
        echo(f"and {len(shards) - _SHOWN_SHARDS:,} more; --json shows all")
