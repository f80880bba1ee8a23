"""What the ledger's last events say about rules that are applied: warnings, never refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from augury.resources.store import Kind

if TYPE_CHECKING:
    from augury.engine.checks import Prepared
    from augury.storage.database import Database

SAMPLE_EVENTS = 500


def lint_warnings(database: Database, prepared: Prepared) -> Iterator[str]:
    """Warnings about the patterns of all rules, each beginning with the rule's name."""
    from augury.routing.ledger import list_events
    from augury.rules.lint import lint
    from augury.rules.pattern import compile_pattern

    rules = [(entry, spec) for kind, entry, spec in prepared.resources if kind is Kind.RULE]
    if not rules:
        return
    with database.read() as connection:
        sample = [event.document for event in list_events(connection, limit=SAMPLE_EVENTS)]
    for entry, spec in rules:
        for warning in lint(compile_pattern(spec.pattern, dialect=spec.dialect), sample):
            yield f"rule {entry.name!r}: {warning.kind}: {warning}"
