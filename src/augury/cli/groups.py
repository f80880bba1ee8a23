"""`augury groups`: what waits to act together, and what did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, Limit, open_engine
from augury.cli.deadletters import one_of
from augury.cli.output import example, print_fields, print_json, print_list, print_table

if TYPE_CHECKING:
    from augury.routing.groups import Group, GroupMember


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(
        help="Events that act together: open groups, waiting ones, and what became of the others.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(
        "list",
        epilog=example(
            "augury groups list --state OPEN", "augury groups list --rule nightly --json"
        ),
    )(list_)
    group.command(epilog=example("augury groups show grp_4f2a"))(show)
    app.add_typer(group, name="groups")


def list_(
    state: Annotated[
        str | None,
        typer.Option(help="OPEN, QUEUED, JOINED, STARTED, DROPPED, SHADOW or DEAD; default: all."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only of the rule with this name.")] = None,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """Groups, newest first."""
    from augury.engine.views import view
    from augury.jobs.states import GroupState
    from augury.routing.groups import list_groups

    wanted = None if state is None else one_of(GroupState, state)
    with open_engine() as engine, engine.database.read() as connection:
        found = list_groups(connection, state=wanted, rule=rule, limit=limit)
    print_list(
        found,
        {
            "id": lambda group: group.id,
            "rule": lambda group: group.rule,
            "key": _key,
            "state": lambda group: group.state,
            "events": lambda group: group.num_events,
            "bytes": lambda group: group.size_bytes,
            "since": lambda group: group.opened_at,
            "closes": lambda group: group.due_at,
            "why": lambda group: group.why,
            "run": lambda group: group.run_id,
        },
        as_json=as_json,
        view=view,
        right=["events", "bytes"],
        empty="no groups",
    )


def _key(group: Group) -> str:
    return ", ".join(str(value) for value in group.key)


def show(
    group: Annotated[str, typer.Argument(help="Id of the group.")],
    as_json: Json = False,
) -> None:
    """One group with its members, in the order of the stream."""
    from augury.engine.views import view
    from augury.routing.groups import show_group

    with open_engine() as engine, engine.database.read() as connection:
        found, members = show_group(connection, group)
    if as_json:
        print_json({**view(found), "members": [view(member) for member in members]})
    else:
        _show(found, members)


def _show(group: Group, members: list[GroupMember]) -> None:
    from augury.engine.views import view

    print_fields(view(group))
    rows = [[each.position, each.accepted_at, each.uri, each.size_bytes] for each in members]
    print_table(["position", "accepted", "object", "bytes"], rows, empty="no members")
