"""What must hold for each action outside Augury, and for each action that failed for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury.actions.effects import EffectState
from augury.jobs.states import OutcomeState
from augury.monitoring.audit.check import Check, Finding
from augury.monitoring.audit.event_pages import AuditedEvent, EventPage
from augury.storage.database import Database
from augury.storage.tables import effects, outcomes, workers

_MOST_LEASES = 10_000
_OPEN = frozenset({OutcomeState.QUEUED, OutcomeState.RETRYING})
# an effect's state, and what its outcome may be meanwhile
_TOGETHER: dict[str, frozenset[OutcomeState]] = {
    EffectState.WAITING: _OPEN,
    EffectState.LEASED: _OPEN,
    EffectState.DELIVERED: frozenset({OutcomeState.DELIVERED}),
    EffectState.DEAD: frozenset({OutcomeState.DEAD, OutcomeState.DISCARDED}),
}


def _effect(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            subject = f"outcome {outcome.id}"
            if outcome.effect_state is None:
                if _is_owed(event, outcome):
                    yield Finding(subject, f"{outcome.state} with its effect", "no effect")
            elif outcome.state not in _TOGETHER.get(outcome.effect_state, ()):
                allowed = sorted(_TOGETHER.get(outcome.effect_state, ()))
                expected = f"{' or '.join(allowed)}, for its effect is {outcome.effect_state}"
                yield Finding(subject, expected, outcome.state)


def _is_owed(event: AuditedEvent, outcome: sa.Row[Any]) -> bool:
    if outcome.state in (OutcomeState.DELIVERED, OutcomeState.RETRYING):
        return True
    if outcome.state != OutcomeState.QUEUED or isinstance(event.rules, str):
        return False
    return event.rules.acts_outside(outcome.rule_id, outcome.action)


def _attempt(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            tried = outcome.effect_attempts and outcome.effect_first_attempt_at
            if outcome.effect_state == EffectState.DELIVERED and not tried:
                found = f"attempts={outcome.effect_attempts}"
                yield Finding(f"effect {outcome.id}", "DELIVERED by an attempt", found)
            elif outcome.state == OutcomeState.RETRYING and not outcome.effect_attempts:
                yield Finding(f"effect {outcome.id}", "RETRYING after an attempt", "attempts=0")


def _letter(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            expected = 1 if outcome.state == OutcomeState.DEAD else 0
            if outcome.open_letters != expected:
                wanted = f"{outcome.state} with {expected} open dead letters"
                yield Finding(f"outcome {outcome.id}", wanted, f"{outcome.open_letters}")


_AGAIN = (
    "see the outcome's event (`augury events show POSITION`); the effect may or may not have "
    "happened: ask its receiver for the id, act by hand if need be, and report a bug"
)

OUTCOME_CHECKS: tuple[Check[EventPage], ...] = (
    Check(name="outcome_effect", examine=_effect, advice=_AGAIN),
    Check(name="effect_attempt", examine=_attempt, advice=_AGAIN),
    Check(
        name="outcome_letter",
        examine=_letter,
        advice="a failed action that nobody would find, or a dead letter that would act a second "
        "time: discard the letter too many, or do the action by hand, and report a bug",
    ),
)


@dataclass(frozen=True)
class Effects:
    """Rows of `effects` that may have nobody, in one snapshot.

    Attributes:
        orphans: without their outcome.
        abandoned: leased, for longer than the sweeper needs, by a process that is gone.
    """

    orphans: Sequence[Any]
    abandoned: Sequence[Any]


def examine_effects(database: Database, *, before: datetime) -> Effects:
    """Looks for effects that nobody answers for.

    Args:
        database: the ledger.
        before: what was leased later is nobody's concern.
    """
    orphans = (
        sa.select(effects.c.id)
        .select_from(effects.outerjoin(outcomes, outcomes.c.id == effects.c.id))
        .where(outcomes.c.id.is_(None))
    )
    abandoned = (
        sa.select(effects.c.id, effects.c.worker_id, effects.c.last_attempt_at)
        .select_from(effects.outerjoin(workers, workers.c.id == effects.c.worker_id))
        .where(
            sa.text("effects.state = 'LEASED'"),
            effects.c.last_attempt_at < before,
            workers.c.id.is_(None) | workers.c.stopped_at.is_not(None),
        )
    )
    with database.read() as connection:
        return Effects(
            connection.execute(orphans.limit(_MOST_LEASES)).all(),
            connection.execute(abandoned.limit(_MOST_LEASES)).all(),
        )


def _outcome(page: Effects) -> Iterator[Finding]:
    for row in page.orphans:
        yield Finding(f"effect {row.id}", "an outcome of the same id", "none")


def _lease(page: Effects) -> Iterator[Finding]:
    for row in page.abandoned:
        found = f"leased at {row.last_attempt_at} by {row.worker_id}, which is gone"
        yield Finding(f"effect {row.id}", "leased by a process that lives", found)


EFFECT_CHECKS: tuple[Check[Effects], ...] = (
    Check(
        name="effect_outcome",
        examine=_outcome,
        advice="something is delivered that nobody decided: delete the row of `effects`, unless a "
        "backup has its outcome",
    ),
    Check(
        name="effect_lease",
        examine=_lease,
        advice="nobody delivers this, and the sweeper should have given it to somebody else: see "
        "that it runs (`augury up`, `augury doctor`)",
    ),
)
