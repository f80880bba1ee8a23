"""Reading the ledger: events, their outcomes, and how many there are of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.errors import NotFoundError
from augury.jobs.states import OutcomeState
from augury.storage.tables import dead_letters, events, outcomes


@dataclass(frozen=True, kw_only=True)
class LedgerEvent:
    """One accepted event as it was routed.

    Attributes:
        position: its place in the ledger; grows, but with gaps.
        document: the event in structured form.
        matched: ids of the rules that matched, sorted.
        duplicate_of: position of the first event with the same (source, id), or None.
        ruleset_version: under which it was matched; 0 if there were no rules.
    """

    position: int
    incarnation: str
    entry_id: str
    source: str
    event_id: str
    type: str
    subject: str | None
    document: dict[str, Any]
    content_digest: str
    ruleset_version: int
    matched: tuple[str, ...]
    duplicate_of: int | None
    accepted_at: datetime


@dataclass(frozen=True, kw_only=True)
class LedgerOutcome:
    """What one action of one rule made of one event."""

    id: str
    position: int
    rule_id: str
    rule_version: int
    action: str
    epoch: str
    state: OutcomeState
    reason: str | None
    occurrence: str | None
    run_id: str | None
    created_at: datetime
    updated_at: datetime


def list_events(
    connection: sa.Connection,
    *,
    type: str | None = None,  # noqa: A002 - the attribute's name in every surface
    source: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[LedgerEvent]:
    """Events, newest first, at most `limit`, at positions smaller than `before`.

    Args:
        connection: of the ledger's database.
        type: exact type; one that ends in `*` stands for all that begin so.
        source: exact source.
        limit: most events to return.
        before: position to go on from (exclusive); None: from the newest.
    """
    select = sa.select(events).order_by(events.c.position.desc()).limit(limit)
    if type is not None and type.endswith("*"):
        select = select.where(events.c.type.startswith(type[:-1], autoescape=True))
    elif type is not None:
        select = select.where(events.c.type == type)
    if source is not None:
        select = select.where(events.c.source == source)
    if before is not None:
        select = select.where(events.c.position < before)
    return [_event(row) for row in connection.execute(select)]


def show_event(
    connection: sa.Connection, position_or_id: int | str
) -> tuple[LedgerEvent, list[LedgerOutcome]]:
    """One event with its outcomes.

    Args:
        connection: of the ledger's database.
        position_or_id: ledger position (a number, also as text), or the event's id; of several
            events with one id, the first accepted one.

    Raises:
        NotFoundError: there is none.
    """
    text = str(position_or_id)
    row = None
    if text.isdecimal() and len(text) < 19:
        row = connection.execute(
            sa.select(events).where(events.c.position == int(text))
        ).one_or_none()
    if row is None:
        by_id = sa.select(events).where(events.c.event_id == text)
        row = connection.execute(by_id.order_by(events.c.position).limit(1)).one_or_none()
    if row is None:
        raise NotFoundError(f"no event at position or with id {text!r}", event=text)
    return _event(row), list_outcomes(connection, position=row.position)


def list_outcomes(
    connection: sa.Connection,
    *,
    position: int | None = None,
    rule_id: str | None = None,
    state: OutcomeState | None = None,
    run_id: str | None = None,
    limit: int = 1000,
    before: int | None = None,
) -> list[LedgerOutcome]:
    """Outcomes, of the newest events first, at most `limit`, of positions smaller than `before`."""
    wanted = {"position": position, "rule_id": rule_id, "state": state, "run_id": run_id}
    select = sa.select(outcomes).limit(limit)
    select = select.order_by(outcomes.c.position.desc(), outcomes.c.rule_id, outcomes.c.action)
    for name, value in wanted.items():
        if value is not None:
            select = select.where(outcomes.c[name] == value)
    if before is not None:
        select = select.where(outcomes.c.position < before)
    return [
        LedgerOutcome(**{**row._mapping, "state": OutcomeState(row.state)})
        for row in connection.execute(select)
    ]


def count_outcomes(
    connection: sa.Connection, *, rule_id: str | None = None
) -> dict[OutcomeState, int]:
    """Number of outcomes in each state that occurs; of one rule, or of all."""
    select = sa.select(outcomes.c.state, sa.func.count()).group_by(outcomes.c.state)
    if rule_id is not None:
        select = select.where(outcomes.c.rule_id == rule_id)
    return {OutcomeState(state): count for state, count in connection.execute(select)}


def count_events(connection: sa.Connection) -> dict[str, int]:
    """`accepted` events, `duplicates` among them, and `dead_letters` beside them."""

    def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0

    return {
        "accepted": count(events),
        "duplicates": count(events, events.c.duplicate_of.is_not(None)),
        "dead_letters": count(dead_letters),
    }


def _event(row: sa.Row[Any]) -> LedgerEvent:
    return LedgerEvent(
        position=row.position,
        incarnation=row.incarnation,
        entry_id=row.entry_id,
        source=row.source,
        event_id=row.event_id,
        type=row.type,
        subject=row.subject,
        document=msgspec.json.decode(row.body),
        content_digest=row.content_digest,
        ruleset_version=row.ruleset_version,
        matched=tuple(row.matched),
        duplicate_of=row.duplicate_of,
        accepted_at=row.accepted_at,
    )
