"""Law 1 for replays: each event that a replay has passed has its outcomes in that epoch.

And what became of a replay is an event, as for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury.events.catalog import OWN_SOURCE
from augury.monitoring.audit.arrived import arrived
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
    from datetime import datetime

    from augury.storage.database import Database

_NO_REPLAYS = (LIVE_EPOCH, "silence")
_RUNNING, _DONE = "RUNNING", "DONE"
_STATES = (_RUNNING, _DONE, "CANCELED")


@dataclass(frozen=True)
class Replays:
    """All replays, and every epoch that the ledger's outcomes name beside the live one.

    Attributes:
        untold: (replay's id, event's id) of each event that there must be and that neither the
            ledger, its dead letters nor the outbox has.
    """

    replays: Sequence[AuditedReplay]
    epochs: Sequence[str]
    untold: Sequence[tuple[str, str]]


def replays_and_epochs(database: Database, *, keys_since: datetime) -> Replays:
    """All in one snapshot; events of replays older than `keys_since` may have been forgotten."""
    with database.read() as connection:
        select = sa.select(outcomes.c.epoch).where(outcomes.c.epoch.not_in(_NO_REPLAYS)).distinct()
        audited = audited_replays(connection)
        recent = [replay.row for replay in audited if replay.row.created_at >= keys_since]
        return Replays(audited, connection.scalars(select).all(), _untold(connection, recent))


def _untold(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> Sequence[tuple[str, str]]:
    wanted = [(row.id, event_id) for row in rows for event_id in _told(row)]
    found = arrived(connection, {(OWN_SOURCE, event_id) for _, event_id in wanted})
    return [each for each in wanted if (OWN_SOURCE, each[1]) not in found]


def _told(row: sa.Row[Any]) -> Iterator[str]:
    """Ids of the events that there must be of a replay, as far as its present row tells."""
    yield f"replay:{row.id}:created:0"
    if row.num_resumes:
        yield f"replay:{row.id}:resumed:{row.num_resumes}"
    if row.state != _RUNNING:
        yield f"replay:{row.id}:{row.state.lower()}:{row.num_resumes}"


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


def _event(found: Replays) -> Iterator[Finding]:
    for replay_id, event_id in found.untold:
        expected = f"its event {event_id} in the ledger or the outbox"
        yield Finding(f"replay {replay_id}", expected, "in neither")


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
    Check(
        name="replay_event",
        examine=_event,
        advice="rules that wait for this event were never asked: see that nobody empties the "
        "outbox, and start by hand what should have followed",
    ),
)
