"""`augury models register|list|show|alias`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augury.cli.context import Json, Limit, open_engine
from augury.cli.output import echo, example, print_json, print_list, print_table

Name = Annotated[str, typer.Argument(help="Name of the model.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(
        help="Registered models, their versions and aliases.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(
        epilog=example(
            "augury models register flight_delay model.ubj --sample sample.parquet --alias champion"
        )
    )(register)
    group.command("list", epilog=example("augury models list --json"))(list_)
    group.command(epilog=example("augury models show flight_delay"))(show)
    group.command(epilog=example("augury models alias flight_delay champion 3"))(alias)
    group.command(epilog=example("augury models delete flight_delay"))(delete)
    app.add_typer(group, name="models")


def register(
    name: Name,
    path: Annotated[Path, typer.Argument(help="The model's file.", exists=True, dir_okay=False)],
    *,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file with the input columns: the signature is inferred from it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Name to move to this version.")] = None,
    flavor: Annotated[
        str | None,
        typer.Option(help="xgboost, sklearn, lightgbm or onnx; guessed from the file's name."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Allow unpickling it: a pickle can run any code when loaded."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Registers a file as a version of a model; the same content is the same version."""
    from augury.engine.views import model_view

    with open_engine() as engine:
        version, change = engine.register_model(
            name,
            path,
            sample=sample,
            flavor=flavor,
            trust=trust,
            description=description,
            alias=alias,
        )
    if as_json:
        print_json({**model_view(version), "change": change})
    else:
        echo(f"{version.name}@{version.version} {change}, sha256 {version.digest}")


def list_(
    limit: Limit = 100,
    after: Annotated[str, typer.Option(help="Only names greater than this one.")] = "",
    as_json: Json = False,
) -> None:
    """All models, in order of name."""
    from augury.engine.views import model_view
    from augury.models.registry import list_models

    with open_engine() as engine, engine.database.read() as connection:
        found = list_models(connection, limit=limit, after=after)
    print_list(
        found,
        {
            "name": lambda model: model.name,
            "newest": lambda model: model.version,
            "flavor": lambda model: model.flavor,
            "task": lambda model: model.signature.task,
            "inputs": lambda model: len(model.signature.inputs),
            "created": lambda model: model.created_at,
        },
        as_json=as_json,
        view=model_view,
        right=["newest", "inputs"],
        empty="no models; `augury models register` makes one",
    )


def show(
    name: Annotated[str, typer.Argument(help="Name, or a version: name@3, name@champion.")],
    as_json: Json = False,
) -> None:
    """A model's versions and aliases, or one version with its signature."""
    from augury.engine.views import model_view
    from augury.models.registry import aliases, list_versions, resolve

    with open_engine() as engine, engine.database.read() as connection:
        if "@" in name:
            print_json(model_view(resolve(connection, name)), indent=not as_json)
            return
        versions = list_versions(connection, name)
        named = aliases(connection, name)
    if as_json:
        shown = [model_view(version) for version in versions]
        print_json({"name": name, "aliases": named, "versions": shown})
        return
    rows = [
        [
            version.version,
            ", ".join(sorted(alias for alias, at in named.items() if at == version.version)),
            version.flavor,
            len(version.signature.inputs),
            version.signature.task,
            version.size_bytes,
            version.trusted,
            version.created_at,
            version.digest[:12],
        ]
        for version in versions
    ]
    headings = ["version", "aliases", "flavor", "inputs", "task", "bytes", "trusted", "created",
                "digest"]  # fmt: skip
    print_table(headings, rows, right=["version", "inputs", "bytes"])


def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias, for example champion.")],
    version: Annotated[int, typer.Argument(min=1, help="The version it shall name.")],
    as_json: Json = False,
) -> None:
    """Moves an alias; every run that is planned from now on uses the version."""
    with open_engine() as engine:
        change = engine.set_alias(name, alias, version)
    if as_json:
        print_json({"name": name, "alias": alias, "version": version, "change": change})
    else:
        echo(f"{name}@{alias} is version {version} ({change})")


def delete(name: Name) -> None:
    """Deletes a model with all versions and aliases; runs that are planned go on."""
    with open_engine() as engine:
        engine.delete_model(name)
    echo(f"model {name} deleted")
