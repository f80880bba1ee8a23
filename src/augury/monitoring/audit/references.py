"""Rows that name other rows which must exist, seen from the side that names them.

Each is one anti-join whose result is empty in a healthy ledger, so it is streamed, not paged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury.jobs.states import OutcomeState
from augury.monitoring.audit.check import Check, Finding, shown
from augury.storage.tables import event_keys, events, object_claims, outcomes


@dataclass(frozen=True)
class References:
    """One snapshot of the ledger.

    Attributes:
        oldest: smallest position behind the archive; what is older left with the event.
        until: the cut's position.
    """

    connection: sa.Connection
    oldest: int
    until: int

    def stream(self, select: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
        """Rows of a result that may be large, a few at a time."""
        return iter(self.connection.execution_options(yield_per=500).execute(select))

    def dangling(self, table: sa.Table) -> sa.Select[Any]:
        """Rows of `table` whose `position` is in the ledger's range and is no event's."""
        return (
            sa.select(table)
            .select_from(table.outerjoin(events, events.c.position == table.c.position))
            .where(
                table.c.position >= self.oldest,
                table.c.position <= self.until,
                events.c.position.is_(None),
            )
        )


def _outcome_event(seen: References) -> Iterator[Finding]:
    for row in seen.stream(seen.dangling(outcomes)):
        found = f"no event at {row.position}"
        yield Finding(f"outcome {row.id}", f"of the event at position {row.position}", found)


def _key_event(seen: References) -> Iterator[Finding]:
    for row in seen.stream(seen.dangling(event_keys)):
        subject = f"key ({row.source}, {row.event_id})"
        yield Finding(subject, f"an event at position {row.position}", "none")


def _claim_outcome(seen: References) -> Iterator[Finding]:
    select = (
        sa.select(object_claims)
        .select_from(object_claims.outerjoin(outcomes, outcomes.c.id == object_claims.c.outcome_id))
        .where(outcomes.c.id.is_(None), object_claims.c.position >= seen.oldest)
    )
    for row in seen.stream(select):
        subject = f"claim on {shown(row.object_identity)} by rule {row.rule_id}"
        yield Finding(subject, f"outcome {row.outcome_id}", "none")


def _one_run(seen: References) -> Iterator[Finding]:
    """At most one run for what happened, under one rule's action in one epoch."""
    same = (outcomes.c.rule_id, outcomes.c.action, outcomes.c.epoch, outcomes.c.occurrence)
    select = (
        sa.select(*same, sa.func.count().label("number"))
        .where(
            outcomes.c.state.in_((OutcomeState.STARTED, OutcomeState.JOINED)),
            outcomes.c.occurrence.is_not(None),
            outcomes.c.position <= seen.until,
        )
        .group_by(*same)
        .having(sa.func.count() > 1)
    )
    for row in seen.stream(select):
        subject = f"{shown(row.occurrence)}, rule {row.rule_id}, action {row.action}"
        yield Finding(subject, f"one run in epoch {row.epoch}", f"{row.number}")


_RESTORE = (
    "the ledger was changed by something other than Augury, or is damaged: compare with a backup, "
    "and report a bug if nobody touched it"
)

REFERENCE_CHECKS: tuple[Check[References], ...] = (
    Check(name="outcome_event", examine=_outcome_event, advice=_RESTORE),
    Check(name="key_event", examine=_key_event, advice=_RESTORE),
    Check(
        name="claim_outcome",
        examine=_claim_outcome,
        advice="nothing was decided about this object, yet it is taken and would be suppressed: "
        "delete the row of `object_claims` and publish its event again",
    ),
    Check(
        name="one_run",
        examine=_one_run,
        advice="the same content was scored more than once: delete the runs too many "
        "(`augury runs delete`), and report a bug",
    ),
)

COUNTED: dict[str, sa.Table] = {
    "outcome_event": outcomes,
    "key_event": event_keys,
    "claim_outcome": object_claims,
    "one_run": outcomes,
}
