"""`augury publish` and `augury events`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from augury import clock
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
    shown,
)

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.events.envelope import Event
    from augury.routing.archives import PastEvent
    from augury.routing.ledger import EventFilter, LedgerOutcome

_POLL_S = 0.5
_MOST_AT_ONCE = 1000
RuleFilter = Annotated[
    str | None, typer.Option("--rule", help="Only what this rule matched; its name or id.")
]
SinceFilter = Annotated[
    str | None,
    typer.Option("--since", help="Accepted then or later: a time, a day, or how long ago (30d)."),
]
UntilFilter = Annotated[
    str | None, typer.Option("--until", help="Accepted before: a time, a day, or how long ago.")
]
OutcomeFilter = Annotated[
    str | None, typer.Option("--outcome", help="Only with such an outcome, for example DEAD.")
]
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
    events.command(
        "list",
        epilog=example(
            "augury events list --type 'augury.run.*'",
            "augury events list --rule score_arrivals --outcome DEAD --since 7d",
        ),
    )(list_)
    events.command(epilog=example("augury events show 4711", "augury events show evt_01JD3Z"))(show)
    events.command(
        epilog=example(
            "augury events tail -f --type 'augury.object.*'", "augury events tail -f --json"
        )
    )(tail)
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
    *,
    event_type: TypeFilter = None,
    source: SourceFilter = None,
    rule: RuleFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    outcome: OutcomeFilter = None,
    limit: Limit = 20,
    before: Annotated[
        int | None, typer.Option(help="Only at positions smaller than this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accepted events, newest first; archived ones among them."""
    from augury.engine.views import event_view

    with open_engine() as engine:
        wanted = _filter(
            engine,
            type=event_type,
            source=source,
            rule=rule,
            since=since,
            until=until,
            outcome=outcome,
        )
        found = engine.history().latest(wanted, limit=limit, before=before)
    print_list(
        found,
        {
            "position": lambda past: past.event.position,
            "accepted": lambda past: past.event.accepted_at,
            "type": lambda past: past.event.type,
            "source": lambda past: past.event.source,
            "subject": lambda past: past.event.subject,
            "rules": lambda past: len(past.event.matched),
            "outcomes": lambda past: summed_up(past.outcomes),
            "duplicate of": lambda past: past.event.duplicate_of,
        },
        as_json=as_json,
        view=event_view,
        right=["position", "rules"],
        empty="no events",
    )


def _filter(engine: Engine, **given: str | None) -> EventFilter:
    from augury.engine.filters import event_filter

    with engine.database.read() as connection:
        return event_filter(connection, **given)


def summed_up(outcomes: Sequence[LedgerOutcome]) -> str:
    """How many outcomes there are in each state, for one line: `2 STARTED, 1 DEAD`."""
    counts = Counter(outcome.state.value for outcome in outcomes)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def show(
    event: Annotated[str, typer.Argument(help="Ledger position, or the event's id.")],
    as_json: Json = False,
) -> None:
    """One event, what every action of every rule made of it, and the runs it led to."""
    from augury.engine.views import event_view

    with open_engine() as engine:
        past = engine.history().show(event)
        names, states = _names(engine, past), _run_states(engine, past)
    if as_json:
        print_json(event_view(past))
    else:
        _show(past, names, states)


def _names(engine: Engine, past: PastEvent) -> dict[str, str]:
    """Names of the rules that an event met or that acted on it, by id."""
    from augury.routing.ledger import rule_names

    with engine.database.read() as connection:
        ids = {*past.event.matched, *(outcome.rule_id for outcome in past.outcomes)}
        return rule_names(connection, ids)


def _run_states(engine: Engine, past: PastEvent) -> dict[str, str]:
    from augury.jobs.runs import run_states

    ids = {outcome.run_id for outcome in past.outcomes if outcome.run_id is not None}
    with engine.database.read() as connection:
        return run_states(connection, ids)


def _show(past: PastEvent, names: Mapping[str, str], states: Mapping[str, str]) -> None:
    event = past.event
    print_fields(
        {
            "position": event.position,
            "accepted": event.accepted_at,
            "ruleset": event.ruleset_version,
            "matched": ", ".join(names.get(rule_id, rule_id) for rule_id in event.matched),
            "duplicate of": event.duplicate_of,
            "entry": f"{event.incarnation} {event.entry_id}",
            "archived": past.is_archived,
        }
    )
    print_json(event.document, indent=True)
    rows = [
        [
            names.get(each.rule_id, each.rule_id),
            *(each.action, each.epoch, each.state, each.run_id),
            states.get(each.run_id or ""),
            each.reason,
        ]
        for each in past.outcomes
    ]
    headings = ["rule", "action", "epoch", "outcome", "run", "run state", "reason"]
    print_table(headings, rows, empty="no rule matched")


def tail(
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as events are accepted, until Ctrl-C.")
    ] = False,
    event_type: TypeFilter = None,
    source: SourceFilter = None,
    rule: RuleFilter = None,
    outcome: OutcomeFilter = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, max=1000, help="Show so many of the last ones.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """The last events, the newest at the end; with -f also those that are accepted from now on.

    What is open at that time (an outcome that is QUEUED, say) is shown as it was then.
    """
    with open_engine() as engine:
        wanted = _filter(engine, type=event_type, source=source, rule=rule, outcome=outcome)
        history = engine.history()
        after = history.newest()
        last = history.latest(wanted, limit=lines, before=after + 1) if lines else []
        for past in reversed(last):
            _tell(past, as_json=as_json)
        flush()
        while follow:
            clock.sleep_s(_POLL_S)
            for reached, page in history.pages(wanted, after=after):
                for past in page:
                    _tell(past, as_json=as_json)
                after = reached
            flush()


def _tell(past: PastEvent, *, as_json: bool) -> None:
    from augury.engine.views import event_view

    if as_json:
        print_json(event_view(past))
        return
    event = past.event
    became = summed_up(past.outcomes) or ("duplicate" if event.duplicate_of else "no rule")
    echo(f"{shown(event.accepted_at)}  {event.position:>8}  {event.type}  "
         f"{event.subject or event.event_id}  {became}")  # fmt: skip
