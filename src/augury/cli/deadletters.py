"""`augury deadletters`: what was given up, and what to do about it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from augury.cli.context import Json, Limit, open_engine
from augury.cli.output import echo, example, print_fields, print_json, print_list

Kind = Literal["entry", "action"]
Letter = Annotated[str, typer.Argument(help="Id of the dead letter.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(
        help="Entries that could not be routed, and actions that failed for good.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list", epilog=example("augury deadletters list --state OPEN --kind action"))(
        list_
    )
    group.command(epilog=example("augury deadletters show dead_01JD3Z"))(show)
    group.command(epilog=example("augury deadletters redrive dead_01JD3Z"))(redrive)
    group.command(epilog=example("augury deadletters discard dead_01JD3Z"))(discard)
    app.add_typer(group, name="deadletters")


def list_(
    state: Annotated[
        str | None, typer.Option(help="OPEN, REDRIVEN or DISCARDED; all if not given.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Of the bus, or of rules' actions; both if not given.")
    ] = None,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """Dead letters, newest first."""
    from augury.engine.views import view
    from augury.jobs.states import DeadLetterState
    from augury.routing.dead_letters import list_dead_letters

    wanted = None if state is None else one_of(DeadLetterState, state)
    with open_engine() as engine, engine.database.read() as connection:
        found = list_dead_letters(connection, state=wanted, kind=kind, limit=limit)
    print_list(
        found,
        {
            "id": lambda letter: letter.id,
            "kind": lambda letter: letter.kind,
            "state": lambda letter: letter.state,
            "attempts": lambda letter: letter.attempts,
            "created": lambda letter: letter.created_at,
            "reason": lambda letter: letter.reason,
        },
        as_json=as_json,
        view=view,
        right=["attempts"],
        empty="no dead letters",
    )


def one_of[E: str](kind: type[E], text: str) -> E:
    """The member that a word names, in any case."""
    try:
        return kind(text.upper())
    except ValueError as error:
        raise typer.BadParameter(
            f"expected one of {', '.join(kind)}, found {text!r}"  # type: ignore[arg-type]
        ) from error


def show(letter: Letter, as_json: Json = False) -> None:
    """One dead letter: the reason, what was asked for, and the payload exactly as it came."""
    from augury.engine.views import view
    from augury.routing.dead_letters import get_dead_letter

    with open_engine() as engine, engine.database.read() as connection:
        found = get_dead_letter(connection, letter)
    if as_json:
        print_json(view(found))
    else:
        print_fields(view(found))


def redrive(letter: Letter, as_json: Json = False) -> None:
    """Tries it again, once: an entry as it came, an action by the present rule and job."""
    with open_engine() as engine:
        found = engine.redrive(letter)
    if as_json:
        print_json(found)
    elif found.position is None:
        echo(f"{found.id} sent again")
    else:
        echo(f"{found.id} tried again; see augury events show {found.position}")


def discard(letter: Letter, as_json: Json = False) -> None:
    """Throws it away; it and an action's outcome stay listed as DISCARDED."""
    with open_engine() as engine:
        found = engine.discard(letter)
    if as_json:
        print_json(found)
    else:
        echo(f"{found.id} discarded")
