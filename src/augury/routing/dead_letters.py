"""What was given up, kept with its payload and the reason until a person decides.

Of two kinds. An `entry` of the stream that no router could route; it is in `events` or here, never
in both, although an entry that fails for one router may succeed for another at the same moment:
burying takes the one lock that shuts routers out, and a router looks here after it inserted
(`commit.py`). And an `action` whose outcome is DEAD (`actions.burial` writes those).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.bus.port import Delivery
from augury.errors import ConflictError, NotFoundError
from augury.jobs.states import DeadLetterState, OutcomeState
from augury.storage.database import Database
from augury.storage.tables import dead_letters, events, outbox, outcomes

_log = logging.getLogger(__name__)
ENTRY = "entry"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One entry or action that was given up.

    Attributes:
        kind: `entry` or `action`.
        incarnation, entry_id: of an entry.
        outcome_id, position, rule_id, rule_version, action: of an action.
        request: what the action asked for, filled from the event; None if that was impossible.
        payload: the event's body as text; bytes that are not UTF-8 are shown as escapes.
        attempts: how often it was tried, alone; 0 if there was nothing to try.
    """

    id: str
    kind: str
    incarnation: str | None
    entry_id: str | None
    outcome_id: str | None
    position: int | None
    rule_id: str | None
    rule_version: int | None
    action: str | None
    request: Mapping[str, Any] | None
    payload: str
    reason: str
    attempts: int
    state: DeadLetterState
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Burial:
    """A delivery to give up.

    Attributes:
        event_key: (source, id) of the event, if it is one: an event of ours leaves the outbox.
    """

    delivery: Delivery
    reason: str
    attempts: int = 0
    event_key: tuple[str, str] | None = None


def bury(database: Database, burials: Sequence[Burial]) -> int:
    """Writes dead letters; those already written or already routed are skipped.

    Returns:
        Number of dead letters written. The deliveries may be acknowledged whatever it is.

    Raises:
        UnavailableError: the database did not answer.
    """
    written = database.transact(lambda connection: _bury(database, connection, burials))
    for burial in burials:
        _log.error(
            "delivery became a dead letter: %s",
            burial.reason,
            extra={"action": "dead_letter", "entry_id": burial.delivery.entry_id},
        )
    return written


def _bury(database: Database, connection: sa.Connection, burials: Sequence[Burial]) -> int:
    if not database.is_sqlite:  # where the writer has the only lock anyway
        connection.execute(sa.text("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE"))
    routed = _held_by(connection, events, {_entry(burial) for burial in burials})
    now = clock.utc_now()
    rows = [
        {
            "id": ids.new_id("dead"),
            "kind": ENTRY,
            "incarnation": burial.delivery.incarnation,
            "entry_id": burial.delivery.entry_id,
            "payload": _text(burial.delivery.body),
            "reason": burial.reason.replace("\x00", "\\x00"),
            "attempts": burial.attempts,
            "state": DeadLetterState.OPEN,
            "created_at": now,
        }
        for burial in sorted(burials, key=_entry)
        if _entry(burial) not in routed
    ]
    written = database.insert_new(connection, dead_letters, rows, dead_letters.c.id)
    for burial in burials:
        if burial.event_key is not None:
            source, event_id = burial.event_key
            connection.execute(
                sa.delete(outbox).where(outbox.c.source == source, outbox.c.event_id == event_id)
            )
    return len(written)


def buried(connection: sa.Connection, entries: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of `entries` (incarnation, entry id) that are dead letters."""
    return _held_by(connection, dead_letters, entries)


def _held_by(
    connection: sa.Connection, table: sa.Table, entries: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    held: set[tuple[str, str]] = set()
    for incarnation in {incarnation for incarnation, _ in entries}:
        entry_ids = [entry_id for life, entry_id in entries if life == incarnation]
        found = connection.scalars(
            sa.select(table.c.entry_id).where(
                table.c.incarnation == incarnation, table.c.entry_id.in_(entry_ids)
            )
        )
        held |= {(incarnation, entry_id) for entry_id in found}
    return held


def _entry(burial: Burial) -> tuple[str, str]:
    return burial.delivery.incarnation, burial.delivery.entry_id


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def list_dead_letters(
    connection: sa.Connection,
    *,
    state: DeadLetterState | None = None,
    kind: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[DeadLetter]:
    """Dead letters, newest first, at most `limit`, with ids smaller than `before`."""
    select = sa.select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
    if state is not None:
        select = select.where(dead_letters.c.state == state)
    if kind is not None:
        select = select.where(dead_letters.c.kind == kind)
    if before is not None:
        select = select.where(dead_letters.c.id < before)
    return [
        DeadLetter(**{**row._mapping, "state": DeadLetterState(row.state)})
        for row in connection.execute(select)
    ]


def discard(database: Database, connection: sa.Connection, dead_letter_id: str) -> DeadLetter:
    """Marks a dead letter as thrown away, and an action's outcome as DISCARDED.

    Raises:
        NotFoundError: no such dead letter.
        ConflictError: it was redriven or discarded before.
    """
    letter = settle(database, connection, dead_letter_id, DeadLetterState.DISCARDED)
    connection.execute(
        sa.update(outcomes)
        .where(outcomes.c.id == letter.outcome_id, outcomes.c.state == OutcomeState.DEAD)
        .values(state=OutcomeState.DISCARDED, updated_at=clock.utc_now())
    )
    return letter


def get_dead_letter(connection: sa.Connection, dead_letter_id: str) -> DeadLetter:
    """One dead letter.

    Raises:
        NotFoundError: there is none of that id.
    """
    return _letter(connection, sa.select(dead_letters), dead_letter_id)


def settle(
    database: Database, connection: sa.Connection, dead_letter_id: str, state: DeadLetterState
) -> DeadLetter:
    """Moves a dead letter out of OPEN, in the caller's transaction.

    Raises:
        NotFoundError: no such dead letter.
        ConflictError: it was redriven or discarded before.
    """
    letter = _letter(connection, database.lock_rows(sa.select(dead_letters)), dead_letter_id)
    if letter.state is not DeadLetterState.OPEN:
        raise ConflictError(
            f"expected dead letter {dead_letter_id} to be OPEN, found {letter.state}",
            state=letter.state,
        )
    connection.execute(
        sa.update(dead_letters).where(dead_letters.c.id == dead_letter_id).values(state=state)
    )
    return replace(letter, state=state)


def _letter(connection: sa.Connection, select: sa.Select[Any], dead_letter_id: str) -> DeadLetter:
    row = connection.execute(select.where(dead_letters.c.id == dead_letter_id)).one_or_none()
    if row is None:
        raise NotFoundError(
            f"no dead letter {dead_letter_id!r}; `augury deadletters list` shows all"
        )
    return DeadLetter(**{**row._mapping, "state": DeadLetterState(row.state)})
