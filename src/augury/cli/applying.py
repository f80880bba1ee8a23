"""`augury apply` and `augury delete`: what documents say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, open_engine, read_text
from augury.cli.output import echo, example, note, print_json, print_table

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.resources.documents import Entry
    from augury.resources.store import Kind

Files = Annotated[
    list[str], typer.Option("-f", "--file", help="YAML or JSON document; - is stdin. Repeatable.")
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(
        epilog=example("augury apply -f augury.yaml", "augury apply -f a.yaml -f b.yaml --dry-run")
    )(apply)
    app.command(
        epilog=example("augury delete rule score_arrivals", "augury delete -f augury.yaml")
    )(delete)


def apply(
    files: Files,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and compare, write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Creates or updates what documents name.

    Models, sources, schedules, jobs and rules. All or nothing, and idempotent: what is as it
    should be stays as it is. Relative paths are relative to the document. What documents do not
    name is left alone.
    """
    with open_engine() as engine:
        result = engine.apply(_entries(files), dry_run=dry_run)
    if as_json:
        print_json(result)
    else:
        rows = [[item.kind, item.name, item.change, item.version] for item in result.items]
        heading = "would be" if dry_run else "change"
        print_table(["kind", "name", heading, "version"], rows, right=["version"],
                    empty="the documents name nothing")  # fmt: skip
    for warning in result.warnings:
        note(f"warning: {warning}")


def _entries(files: list[str]) -> list[Entry]:
    """Entries of all documents; the faults of all of them at once."""
    from augury.errors import Fault, InvalidError
    from augury.resources.documents import parse_document

    entries: list[Entry] = []
    faults: list[Fault] = []
    for file in files:
        origin, base = (
            ("stdin", Path.cwd()) if file == "-" else (file, Path(file).parent.absolute())
        )
        try:
            entries += parse_document(read_text(file), origin=origin, base=base)
        except InvalidError as error:
            if len(files) == 1:
                raise
            faults += [
                Fault(path=f"{origin}: {fault.path}", message=fault.message, line=fault.line)
                for fault in error.faults
            ]
    if faults:
        raise InvalidError("refused", faults=faults)
    return entries


def delete(
    kind: Annotated[
        str, typer.Argument(help="rule, job, schedule or source.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)] = "",
    files: Annotated[
        list[str] | None,
        typer.Option("-f", "--file", help="Delete what a document names (but models)."),
    ] = None,
) -> None:
    """Deletes one resource, or what documents name. History, runs and outputs stay."""
    if bool(files) == bool(kind) or (kind and not name):
        raise typer.BadParameter("expected a kind and a name, or -f FILE")
    with open_engine() as engine:
        if files:
            _delete_named(engine, _entries(files))
        else:
            deleted = engine.delete(kind_of(kind), name)
            echo(f"{deleted.kind} {deleted.name} deleted")


def _delete_named(engine: Engine, entries: list[Entry]) -> None:
    """In the reverse order of applying: rules first, so that nothing is started any more."""
    from augury.errors import NotFoundError
    from augury.resources.documents import SECTIONS

    for entry in sorted(entries, key=lambda entry: -SECTIONS.index(entry.section)):
        if entry.section == "models":
            note(f"model {entry.name} stays: runs and manifests name its versions")
            continue
        try:
            deleted = engine.delete(kind_of(entry.section), entry.name)
            echo(f"{deleted.kind} {deleted.name} deleted")
        except NotFoundError:
            note(f"no {entry.section.removesuffix('s')} {entry.name}")


def kind_of(text: str) -> Kind:
    """The kind that a word names, in singular or plural."""
    from augury.resources.store import Kind

    try:
        return Kind(text.lower().removesuffix("s"))
    except ValueError as error:
        kinds = ", ".join(Kind)
        raise typer.BadParameter(f"expected one of {kinds}, found {text!r}") from error
