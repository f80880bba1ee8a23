"""`augury explain`: why a rule did or did not act on an event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, open_engine, read_text
from augury.cli.output import echo, example, note, print_json, print_table, shown

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.engine.explaining import ExplainedEvent, ExplainedRule, Explanation
    from augury.rules.explain import Failure

_FILE_SUFFIXES = (".json", ".yaml", ".yml")


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog=example(
            "augury explain 4711 score_arrivals",
            "augury explain event.json rules.yaml --rule score_arrivals",
        )
    )(explain)


def explain(
    event: Annotated[
        str, typer.Argument(help="Ledger position, the event's id, or a JSON file; - is stdin.")
    ],
    rule: Annotated[str, typer.Argument(help="Name of a rule, or a YAML or JSON file.")],
    rule_in_file: Annotated[
        str | None, typer.Option("--rule", help="Which rule of the file, if it holds several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Why a rule does or does not match an event, and what its actions made of it.

    Names the first field that fails, what was expected and found there, and what nearly matched.
    """
    from augury.engine.explaining import explain_event

    with open_engine() as engine:
        explained = explain_event(_event(engine, event), _rule(engine, rule, rule_in_file))
    if as_json:
        print_json(explained)
    else:
        _show(explained)


def is_file(text: str) -> bool:
    """True if an argument that may be a name or a file is a file."""
    return text == "-" or text.endswith(_FILE_SUFFIXES) or Path(text).is_file()


def _event(engine: Engine, text: str) -> ExplainedEvent:
    from augury.engine.explaining import event_in_file, event_in_ledger

    if is_file(text):
        return event_in_file(read_text(text), text)
    return event_in_ledger(engine.history(), text)


def _rule(engine: Engine, text: str, name: str | None) -> ExplainedRule:
    from augury.engine import explaining
    from augury.engine.rule_files import read_rule_file

    if is_file(text):
        return explaining.rule_in_file(read_rule_file(read_text(text), origin=text, rule=name))
    with engine.database.read() as connection:
        return explaining.rule_by_name(connection, text)


def _show(explained: Explanation) -> None:
    version = "" if explained.rule_version is None else f" (version {explained.rule_version})"
    verdict = "matches" if explained.matches else "does not match"
    echo(f"rule {explained.rule}{version} {verdict} event {explained.event_id}")
    if explained.failure is not None:
        _show_failure(explained.failure)
    if explained.outcomes:
        rows = [[o.action, o.epoch, o.state, o.run_id, o.reason] for o in explained.outcomes]
        print_table(["action", "epoch", "state", "run", "reason"], rows)
    for text in explained.notes:
        note(f"note: {text}")


def _show_failure(failure: Failure) -> None:
    if failure.num_alternatives > 1:
        echo(f"none of {failure.num_alternatives} alternatives; the closest is number "
             f"{failure.alternative}")  # fmt: skip
    echo(f"  field     {failure.path or '(the whole event)'}")
    echo(f"  operator  {shown(failure.operator)}")
    echo(f"  expected  {' or '.join(_as_json(each) for each in failure.expected) or '-'}")
    echo(f"  found     {_as_json(failure.found) if failure.is_present else 'nothing'}")
    echo(f"  {failure.reason}")
    for miss in failure.near_misses:
        echo(f"  near miss ({miss.kind}): {_as_json(miss.found)} at {miss.path}: {miss.message}")


def _as_json(value: object) -> str:
    import msgspec

    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 200 else f"{text[:199]}…"
