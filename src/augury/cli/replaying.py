"""`augury backtest`, `augury replay` and `augury replays`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, Limit, open_engine, read_text
from augury.cli.explaining import is_file
from augury.cli.output import (
    echo,
    example,
    note,
    print_fields,
    print_json,
    print_list,
    print_table,
)

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.engine.replaying import PastRequest
    from augury.routing.backtest import Backtest, Progress
    from augury.routing.replay import Replay
    from augury.rules.ruleset import RuleVersion

Since = Annotated[
    str | None,
    typer.Option(help="Events accepted then or later: a time, a day, or how long ago (30d)."),
]
Until = Annotated[
    str | None, typer.Option(help="Events accepted before: a time, a day, or how long ago.")
]
Model = Annotated[
    str | None, typer.Option(help="Score with this version instead, for example m@7.")
]
ReplayId = Annotated[str, typer.Argument(metavar="EPOCH", help="Id of the replay.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(
        epilog=example(
            "augury backtest rule.yaml --since 30d",
            "augury backtest score_arrivals --since 2026-10-01 --until 2026-11-01 --json",
        )
    )(backtest)
    app.command(
        epilog=example(
            "augury replay --rule score_arrivals --since 2026-10-01 --until 2026-11-01 "
            "--model flight_delay@7 --epoch october-v7",
            "augury replay --rule score_arrivals --since 7d --dry-run",
        )
    )(replay)
    group = typer.Typer(
        help="Past events through a rule again.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("list", epilog=example("augury replays list --state RUNNING"))(list_)
    group.command(epilog=example("augury replays show october-v7"))(show)
    group.command(epilog=example("augury replays cancel october-v7"))(cancel)
    app.add_typer(group, name="replays")


def backtest(
    rule: Annotated[str, typer.Argument(help="A YAML or JSON file, or the name of a rule.")],
    *,
    since: Since = None,
    until: Until = None,
    rule_in_file: Annotated[
        str | None, typer.Option("--rule", help="Which rule of the file, if it holds several.")
    ] = None,
    model: Model = None,
    rows: Annotated[
        bool, typer.Option("--rows/--no-rows", help="Read footers to know the rows.")
    ] = True,
    as_json: Json = False,
) -> None:
    """What a rule would have done with past events: matches, runs, rows. Starts nothing."""
    from augury.engine.replaying import PastRequest

    request = PastRequest(rule=rule, since=since, until=until, model=model)
    with open_engine() as engine:
        found = _rule(engine, rule, rule_in_file)
        _backtest(engine, request, found, with_rows=rows, as_json=as_json)


def _rule(engine: Engine, text: str, name: str | None) -> RuleVersion:
    from augury.engine.replaying import applied_rule, unapplied_rule
    from augury.engine.rule_files import read_rule_file

    if is_file(text):
        return unapplied_rule(read_rule_file(read_text(text), origin=text, rule=name))
    with engine.database.read() as connection:
        return applied_rule(connection, text)


def _backtest(
    engine: Engine, request: PastRequest, rule: RuleVersion, *, with_rows: bool, as_json: bool
) -> None:
    from augury.engine.replaying import run_backtest

    with _progress() as on_progress:
        told = run_backtest(
            engine,
            engine.history(),
            request,
            rule,
            with_rows=with_rows,
            on_progress=on_progress,
        )
    if as_json:
        print_json(told)
    else:
        _tell(told)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's stderr; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks = {stage: bars.add_task(stage, total=None, visible=False) for stage in _STAGES}
        yield lambda stage, done, total: bars.update(
            tasks[stage], completed=done, total=total, visible=True
        )


_STAGES = ("events", "rows")


def _tell(told: Backtest) -> None:
    echo(f"rule {told.rule} matches {told.num_matched:,} of {told.num_events:,} events")
    if told.first_matched_at is not None:
        print_fields(
            {
                "first": told.first_matched_at,
                "last": told.last_matched_at,
                "for example": ", ".join(map(str, told.sample)),
            }
        )
    for action in told.actions:
        echo(f"action {action.action}: {action.num_runs:,} runs, {action.num_effects:,} deliveries")
        if action.num_runs:
            unknown = action.num_runs - action.num_runs_of_known_rows
            echo(f"  rows       {action.rows:,} in {action.num_runs_of_known_rows:,} runs"
                 + (f", unknown in {unknown:,}" if unknown else ""))  # fmt: skip
        for title, reasons in (
            ("unknown", action.rows_unknown),
            ("suppressed", action.suppressed),
            ("dead", action.dead),
        ):
            for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
                echo(f"  {title:<10} {count:,}: {reason}")


def replay(
    *,
    rule: Annotated[str, typer.Option(help="Name of the rule.")],
    since: Since = None,
    until: Until = None,
    model: Model = None,
    epoch: Annotated[
        str | None, typer.Option(help="Id of this replay; the same one again goes on.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do, as backtest does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Lets a rule act on past events again, as it is now, under an epoch of its own.

    Each event leads to one outcome for each action and epoch. Runs wait for live work. Events that
    are accepted after this command are not replayed.
    """
    from augury.engine.replaying import PastRequest, applied_rule

    request = PastRequest(rule=rule, since=since, until=until, model=model, epoch=epoch)
    with open_engine() as engine:
        if dry_run:
            with engine.database.read() as connection:
                found = applied_rule(connection, rule)
            _backtest(engine, request, found, with_rows=True, as_json=as_json)
            return
        begun, is_new = engine.replay(request)
    if as_json:
        print_json(begun)
        return
    echo(begun.id)
    done = f"up to position {begun.position:,} of {begun.last_position:,}"
    note("replay begun; `augury replays show` follows it" if is_new else
         f"this replay is {begun.state}, {done}; nothing is done twice")  # fmt: skip


def list_(
    state: Annotated[
        str | None, typer.Option(help="RUNNING, DONE or CANCELED; all if not given.")
    ] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Replays, newest first."""
    from augury.cli.deadletters import one_of
    from augury.engine.views import view
    from augury.routing.ledger import rule_names
    from augury.routing.replay import ReplayState, list_replays

    wanted = None if state is None else one_of(ReplayState, state)
    with open_engine() as engine, engine.database.read() as connection:
        found = list_replays(connection, state=wanted, limit=limit)
        names = rule_names(connection, {each.rule_id for each in found})
    print_list(
        found,
        {
            "epoch": lambda each: each.id,
            "rule": lambda each: names.get(each.rule_id, each.rule_id),
            "model": lambda each: each.model,
            "state": lambda each: each.state,
            "progress": lambda each: f"{_percent(each)} %",
            "matched": lambda each: each.num_matched,
            "outcomes": lambda each: each.num_outcomes,
            "created": lambda each: each.created_at,
        },
        as_json=as_json,
        view=view,
        right=["progress", "matched", "outcomes"],
        empty="no replays",
    )


def _percent(replay: Replay) -> int:
    return 100 * replay.position // replay.last_position if replay.last_position else 100


def show(replay: ReplayId, as_json: Json = False) -> None:
    """One replay: how far it is, and what became of the events that it matched."""
    from augury.engine.views import replay_view
    from augury.routing.replay import count_states, get_replay

    with open_engine() as engine, engine.database.read() as connection:
        found = get_replay(connection, replay)
        states = count_states(connection, found)
    if as_json:
        print_json(replay_view(found, states))
        return
    print_fields(replay_view(found, None))
    print_table(["outcome", "events"], sorted(states.items()), right=["events"],
                empty="no outcome yet")  # fmt: skip


def cancel(replay: ReplayId, as_json: Json = False) -> None:
    """Stops a replay; runs that it started go on. Asked for again, it goes on where it stopped."""
    with open_engine() as engine:
        found = engine.cancel_replay(replay)
    if as_json:
        print_json(found)
    else:
        echo(f"{found.id} {found.state}")
