"""`augury audit`: are both conservation laws kept?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.context import Json, open_engine
from augury.cli.output import echo, example, print_json, print_table

if TYPE_CHECKING:
    from augury.monitoring.audit import AuditReport

VIOLATED = 4
type Progress = Callable[[str, int, int | None], None]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback(
        epilog=example("augury audit", "augury audit --shallow --json"),
    )(audit)
    group.command(epilog=example("augury audit acknowledge incident_4f0c"))(acknowledge)
    app.add_typer(group, name="audit")


def audit(
    context: typer.Context,
    shallow: Annotated[
        bool, typer.Option("--shallow", help="Only ledger and stream; read no outputs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compares the ledger with evidence outside its counters. Exits with 4 on violations.

    Evidence: the stream's entries, the rules run again, the bytes and footers of inputs, parts and
    manifests. Safe while everything runs: what is in flight is told, not held against anybody.
    """
    if context.invoked_subcommand is not None:
        return
    from augury.monitoring.audit import audit as run

    with open_engine() as engine, _progress() as on_progress:
        report = run(
            engine.database,
            engine.bus,
            engine.settings,
            deep=not shallow,
            on_progress=on_progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(VIOLATED)


def acknowledge(
    incident: Annotated[str, typer.Argument(help="Id of the incident, as the audit shows it.")],
    as_json: Json = False,
) -> None:
    """Says that a person knows of an incident; from then on the audit passes over it."""
    from augury.monitoring.audit import acknowledge as run

    with open_engine() as engine:
        found = run(engine.database, incident)
    if as_json:
        print_json(found)
    else:
        echo(f"{found.id} acknowledged: {found.message}")


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar on stderr, if a person is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("audit", total=None)

        def on_progress(stage: str, done: int, total: int | None) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield on_progress


def _show(report: AuditReport) -> None:
    num_subjects = sum(report.checked.values())
    echo(f"cut at ledger position {report.cut.position}, "
         f"{num_subjects:,} subjects looked at in {report.seconds:.2f} s")  # fmt: skip
    if report.rules:
        _show_rules(report)
    for flying in report.in_flight:
        if flying.count:
            age = f"oldest {flying.oldest_age_s:.1f} s"
            echo(f"in flight: {flying.count} {flying.kind}, {age}")
    for unknown in report.unknown:
        echo(f"unknown: {unknown.check}: {unknown.subject}: {unknown.reason}")
    if report.dead_letters_open:
        echo(f"dead letters: {report.dead_letters_open} open; see augury deadletters list")
    for incident in report.incidents:
        echo(f"INCIDENT {incident.id}: {incident.message}")
        echo(f"  to go on: augury audit acknowledge {incident.id}")
    for violation in report.violations:
        echo(f"VIOLATION {violation}")
        if violation.advice:
            echo(f"  {violation.advice}")
    unlisted = sum(report.num_violations.values()) - len(report.violations)
    if unlisted > 0:
        echo(f"and {unlisted} more violations of the same checks")
    echo(_verdict(report))


def _show_rules(report: AuditReport) -> None:
    rows = [
        [
            rule.name,
            rule.accepted,
            rule.not_matched,
            rule.expected_outcomes,
            ", ".join(f"{count} {state}" for state, count in rule.outcomes.items()),
        ]
        for rule in report.rules
    ]
    print_table(["rule", "accepted", "not matched", "expected", "outcomes"], rows,
                right=["accepted", "not matched", "expected"])  # fmt: skip


def _verdict(report: AuditReport) -> str:
    if report.ok:
        return "both laws hold: nothing lost, nothing doubled"
    parts = []
    if report.num_violations:
        parts.append(f"{sum(report.num_violations.values())} violations")
    if report.incidents:
        parts.append(f"{len(report.incidents)} incidents that nobody has acknowledged")
    return f"the audit failed: {' and '.join(parts)}"
