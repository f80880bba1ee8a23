"""`augury publish` and `augury events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, Limit, given_json, open_engine, read_text
from augury.cli.output import (
    echo,
    example,
    flush,
    note,
    print_fields,
    print_json,
    print_list,
    print_table,
)

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.events.envelope import Event
    from augury.routing.ledger import LedgerEvent, LedgerOutcome

_POLL_S = 0.5
_MOST_AT_ONCE = 1000
TypeFilter = Annotated[
    str | None, typer.Option("--type", help="Only of this type; may end in '*'.")
]
SourceFilter = Annotated[str | None, typer.Option("--source", help="Only of this source.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(
        epilog=example(
            "augury publish shop.order.placed --data '{\"amount\": 12}' --id order-12",
            "augury publish --file events.json",
        )
    )(publish)
    events = typer.Typer(
        help="Accepted events and what became of them.", no_args_is_help=True, rich_markup_mode=None
    )
    events.command("list", epilog=example("augury events list --type 'augury.run.*'"))(list_)
    events.command(epilog=example("augury events show 4711", "augury events show evt_01JD3Z"))(show)
    events.command(epilog=example("augury events tail --type 'augury.object.*' --json"))(tail)
    app.add_typer(events, name="events")


def publish(
    event_type: Annotated[
        str | None,
        typer.Argument(metavar="[TYPE]", help="What happened, for example shop.order.placed."),
    ] = None,
    *,
    data: Annotated[str | None, typer.Option(help="JSON, or @file with JSON.")] = None,
    source: Annotated[str, typer.Option(help="Who says it.")] = "augury/cli",
    subject: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", help="Makes a repeated call harmless.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(help="CloudEvents: one, an array, or one a line; - is stdin."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publishes events; prints their ids once they are durable."""
    if (event_type is None) == (file is None):
        raise typer.BadParameter("expected a TYPE, or --file with whole events")
    from augury.events.envelope import new_event, parse_event

    with open_engine() as engine:
        max_bytes = engine.settings.max_event_bytes
        if file is not None:
            events = _events_in(read_text(file), max_bytes)
        else:
            decoded = None if data is None else given_json(data, "--data")
            made = new_event(
                str(event_type), decoded, source=source, subject=subject, event_id=event_id
            )
            parse_event(made.to_json(), max_bytes=max_bytes)  # names what is wrong with it
            events = [made]
        _publish(engine, events, as_json=as_json)


def _publish(engine: Engine, events: list[Event], *, as_json: bool) -> None:
    for start in range(0, len(events), _MOST_AT_ONCE):
        engine.publish(events[start : start + _MOST_AT_ONCE])
    durability = engine.durability()
    ids = [event.id for event in events]
    if as_json:
        print_json({"ids": ids, "durability": "durable" if durability.ok else "relaxed"})
    else:
        for event_id in ids:
            echo(event_id)
    if not durability.ok:
        note(f"warning: the bus may lose this in a crash: {durability.advice}")


def _events_in(text: bytes, max_bytes: int) -> list[Event]:
    """One event, an array of events, or one event a line."""
    from augury.events.http import BATCHED, parse_request

    stripped = text.strip()
    if not stripped.startswith(b"["):
        lines = [line for line in stripped.splitlines() if line.strip()]
        whole_lines = all(
            line.strip().startswith(b"{") and line.strip().endswith(b"}") for line in lines
        )
        stripped = b"[" + (b",".join(lines) if whole_lines else stripped) + b"]"
    return parse_request({"content-type": BATCHED}, stripped, max_bytes=max_bytes)


def list_(
    event_type: TypeFilter = None,
    source: SourceFilter = None,
    limit: Limit = 20,
    before: Annotated[
        int | None, typer.Option(help="Only at positions smaller than this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accepted events, newest first."""
    from augury.engine.views import event_view
    from augury.routing.ledger import list_events

    with open_engine() as engine, engine.database.read() as connection:
        found = list_events(connection, type=event_type, source=source, limit=limit, before=before)
    print_list(
        found,
        {
            "position": lambda event: event.position,
            "accepted": lambda event: event.accepted_at,
            "type": lambda event: event.type,
            "source": lambda event: event.source,
            "subject": lambda event: event.subject,
            "rules": lambda event: len(event.matched),
            "duplicate of": lambda event: event.duplicate_of,
        },
        as_json=as_json,
        view=event_view,
        right=["position", "rules"],
        empty="no events",
    )


def show(
    event: Annotated[str, typer.Argument(help="Ledger position, or the event's id.")],
    as_json: Json = False,
) -> None:
    """One event with the outcome of every action of every rule that matched it."""
    from augury.engine.views import event_view
    from augury.routing.ledger import show_event

    with open_engine() as engine, engine.database.read() as connection:
        found, outcomes = show_event(connection, event)
    if as_json:
        print_json(event_view(found, outcomes))
    else:
        _show(found, outcomes)


def _show(event: LedgerEvent, outcomes: list[LedgerOutcome]) -> None:
    print_fields(
        {
            "position": event.position,
            "accepted": event.accepted_at,
            "ruleset": event.ruleset_version,
            "matched": list(event.matched),
            "duplicate of": event.duplicate_of,
            "entry": f"{event.incarnation} {event.entry_id}",
        }
    )
    print_json(event.document, indent=True)
    rows = [[each.rule_id, each.action, each.state, each.run_id, each.reason] for each in outcomes]
    print_table(["rule", "action", "state", "run", "reason"], rows, empty="no rule matched")


def tail(event_type: TypeFilter = None, source: SourceFilter = None, as_json: Json = False) -> None:
    """Prints events as they are accepted, until Ctrl-C."""
    from augury import clock
    from augury.cli.output import shown
    from augury.engine.views import event_view
    from augury.routing.ledger import list_events

    after: int | None = None
    with open_engine() as engine:
        while True:
            with engine.database.read() as connection:
                found = list_events(connection, type=event_type, source=source, limit=500)
            fresh = [event for event in found if after is not None and event.position > after]
            for event in reversed(fresh):
                if as_json:
                    print_json(event_view(event))
                else:
                    echo(f"{shown(event.accepted_at)}  {event.position:>8}  {event.type}  "
                         f"{event.subject or event.event_id}")  # fmt: skip
            flush()
            after = max([event.position for event in found], default=after or 0)
            clock.sleep_s(_POLL_S)
