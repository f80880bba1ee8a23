"""`augury rules|jobs|schedules|sources list|show|delete`, the same for each; switches for some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, Limit, open_engine
from augury.cli.output import echo, example, print_fields, print_json, print_list

if TYPE_CHECKING:
    from augury.resources.store import Kind, Resource

Name = Annotated[str, typer.Argument(help="Its name.")]
After = Annotated[str, typer.Option(help="Only names greater than this one.")]

_HELPS = {
    "rule": "Which events lead to which runs.",
    "job": "Templates of runs.",
    "schedule": "Clocks that tick as events.",
    "source": "Watches objects, queues and clocks; with a command: what is watched.",
}
_SWITCHED = ("rule", "schedule", "source")


def _told_by(source: Resource) -> str:
    """Where a source's news come from."""
    spec = source.spec
    if spec["kind"] == "webhook":
        return f"/v1/webhooks/{source.name}"
    return str(spec.get("queue") or spec["uri"])


def _when(schedule: Resource) -> str:
    """Its rhythm in one cell."""
    spec = schedule.spec
    return str(spec.get("cron") or spec.get("at") or f"every {spec.get('every_s')} s")


_COLUMNS: dict[str, dict[str, Callable[[Resource], object]]] = {
    "rule": {"actions": lambda rule: len(rule.spec["actions"]), "enabled": lambda r: r.enabled},
    "job": {
        "model": lambda job: job.spec["model"],
        "mode": lambda job: job.spec["mode"],
        "output": lambda job: job.spec["output"],
    },
    "schedule": {
        "when": _when,
        "timezone": lambda schedule: schedule.spec["timezone"],
        "enabled": lambda schedule: schedule.enabled,
    },
    "source": {
        "kind": lambda source: source.spec["kind"],
        "from": _told_by,
        "enabled": lambda source: source.enabled,
    },
}


def add_to(app: typer.Typer) -> None:
    """Registers one group of commands for each kind; `sources` also is a process of its own."""
    for kind, text in _HELPS.items():
        app.add_typer(_group(kind, text), name=f"{kind}s")


def _group(kind: str, text: str) -> typer.Typer:
    group = typer.Typer(
        help=text,
        no_args_is_help=kind != "source",
        invoke_without_command=kind == "source",
        rich_markup_mode=None,
    )
    if kind == "source":
        group.callback(epilog=example("augury sources", "augury sources list"))(_sources)

    @group.command(
        "list",
        help=f"All {kind}s, in order of name.",
        epilog=example(f"augury {kind}s list", f"augury {kind}s list --json"),
    )
    def list_(limit: Limit = 100, after: After = "", as_json: Json = False) -> None:
        _list(kind, limit, after, as_json=as_json)

    @group.command(
        help=f"One {kind} and its spec.", epilog=example(f"augury {kind}s show my_{kind} --json")
    )
    def show(name: Name, as_json: Json = False) -> None:
        _show(kind, name, as_json=as_json)

    @group.command(
        help=f"Deletes a {kind}; its history stays.",
        epilog=example(f"augury {kind}s delete my_{kind}"),
    )
    def delete(name: Name) -> None:
        with open_engine() as engine:
            engine.delete(_kind(kind), name)
        echo(f"{kind} {name} deleted")

    if kind in _SWITCHED:
        _add_switches(group, kind)
    return group


def _add_switches(group: typer.Typer, kind: str) -> None:
    @group.command(
        help=f"Switches a {kind} on.", epilog=example(f"augury {kind}s enable my_{kind}")
    )
    def enable(name: Name) -> None:
        _switch(kind, name, enabled=True)

    @group.command(
        help=f"Switches a {kind} off, and leaves it as it is.",
        epilog=example(f"augury {kind}s disable my_{kind}"),
    )
    def disable(name: Name) -> None:
        _switch(kind, name, enabled=False)


def _sources(context: typer.Context) -> None:
    """Watches objects and clocks, until stopped; with a command: what is watched."""
    if context.invoked_subcommand is None:
        from augury.cli.processes import sources

        sources()


def _kind(kind: str) -> Kind:
    from augury.resources.store import Kind

    return Kind(kind)


def _list(kind: str, limit: int, after: str, *, as_json: bool) -> None:
    from augury.engine.views import view
    from augury.resources.store import listed

    with open_engine() as engine, engine.database.read() as connection:
        found = listed(connection, _kind(kind), limit=limit, after=after)
    columns: dict[str, Callable[[Resource], object]] = {
        "name": lambda resource: resource.name,
        "version": lambda resource: resource.version,
        **_COLUMNS[kind],
        "updated": lambda resource: resource.updated_at,
    }
    print_list(
        found,
        columns,
        as_json=as_json,
        view=view,
        right=["version", "actions"],
        empty=f"no {kind}s; `augury apply -f` makes some",
    )


def _show(kind: str, name: str, *, as_json: bool) -> None:
    from augury.engine.views import view
    from augury.resources.store import get

    with open_engine() as engine, engine.database.read() as connection:
        found = get(connection, _kind(kind), name)
    if as_json:
        print_json(view(found))
        return
    print_fields(
        {
            "name": found.name,
            "id": found.id,
            "version": found.version,
            "enabled": found.enabled,
            "created": found.created_at,
            "updated": found.updated_at,
        }
    )
    print_json(found.spec, indent=True)


def _switch(kind: str, name: str, *, enabled: bool) -> None:
    with open_engine() as engine:
        resource, change = engine.enable(_kind(kind), name, enabled=enabled)
    word = "enabled" if enabled else "disabled"
    echo(f"{kind} {name} {word} ({change}, version {resource.version})")
