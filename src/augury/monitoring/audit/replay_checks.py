"""Law 1 for replays: each event that a replay has passed has its outcomes in that epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury.monitoring.audit.check import Check, Finding
from augury.monitoring.audit.event_pages import EventPage
from augury.monitoring.audit.replays import (
    LIVE_EPOCH,
    AuditedReplay,
    audited_replays,
    compared,
)
from augury.storage.tables import outcomes

if TYPE_CHECKING:
    from augury.storage.database import Database

_NO_REPLAYS = (LIVE_EPOCH, "silence")
_RUNNING, _DONE = "RUNNING", "DONE"
_STATES = (_RUNNING, _DONE, "CANCELED")


@dataclass(frozen=True)
class Replays:
    """All replays, and every epoch that the ledger's outcomes name beside the live one."""

    replays: Sequence[AuditedReplay]
    epochs: Sequence[str]


def replays_and_epochs(database: Database) -> Replays:
    """Both in one snapshot."""
    with database.read() as connection:
        select = sa.select(outcomes.c.epoch).where(outcomes.c.epoch.not_in(_NO_REPLAYS)).distinct()
        return Replays(audited_replays(connection), connection.scalars(select).all())


def _outcome(page: EventPage) -> Iterator[Finding]:
    for event in page.events if page.replays else ():
        if event.document is None:
            continue
        at = (event.row.position, event.row.accepted_at, event.document)
        decided = [(o.epoch, o.rule_id, o.action) for o in event.outcomes]
        yield from compared(page.replays, event.subject, at, decided)


def _epoch(found: Replays) -> Iterator[Finding]:
    known = {replay.row.id for replay in found.replays}
    for epoch in sorted(set(found.epochs) - known):
        yield Finding(f"outcomes in epoch {epoch}", "a replay of that id", "none")


def _state(found: Replays) -> Iterator[Finding]:
    for replay in found.replays:
        row, subject = replay.row, f"replay {replay.row.id}"
        if row.state not in _STATES:
            yield Finding(subject, "a state of a replay", row.state)
        elif (row.state == _DONE) != (row.position >= row.last_position):
            expected = f"DONE exactly if it has reached position {row.last_position}"
            yield Finding(subject, expected, f"{row.state} at {row.position}")
        elif (row.state == _RUNNING) == (row.finished_at is not None):
            yield Finding(subject, f"{row.state} to fit", f"finished_at={row.finished_at}")


_DECIDE_AGAIN = (
    "see what the rule should have made of this event (`augury explain POSITION RULE`); start the "
    "missing run by hand or delete the one too many, and report a bug"
)
_RESTORE = (
    "the ledger was changed by something other than Augury, or is damaged: compare with a backup, "
    "and report a bug if nobody touched it"
)

REPLAYED_CHECKS: tuple[Check[EventPage], ...] = (
    Check(name="replay_outcome", examine=_outcome, advice=_DECIDE_AGAIN),
)
REPLAY_CHECKS: tuple[Check[Replays], ...] = (
    Check(name="replay_epoch", examine=_epoch, advice=_RESTORE),
    Check(name="replay_state", examine=_state, advice=_RESTORE),
)
