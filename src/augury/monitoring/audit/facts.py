"""What sources and schedules recorded, against the events that tell it.

A watcher records an object, a scheduler a tick, in the transaction that emits its event. So a
record without an event that has arrived, or is on its way, is news that nobody was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.ids import derived_id
from augury.monitoring.audit.arrived import Key, arrived
from augury.monitoring.audit.check import Check, Finding
from augury.storage.database import Database
from augury.storage.tables import schedules, source_objects, source_versions, sources, ticks

_PAGE_ROWS = 500
_ALL_EVENTS = frozenset({"created", "updated"})


@dataclass(frozen=True)
class Fact:
    """One record and the (source, id) of the event that tells it."""

    subject: str
    event: Key


@dataclass(frozen=True)
class FactPage:
    """Some facts; `arrived` are those events that are somewhere."""

    facts: Sequence[Fact]
    arrived: set[Key]


def tick_pages(database: Database, *, until: datetime, since: datetime) -> Iterator[FactPage]:
    """Ticks that fired and whose event must still be remembered."""
    columns = (ticks.c.schedule_id, ticks.c.nominal_at)
    select = (
        sa.select(*columns, schedules.c.name)
        .join_from(ticks, schedules, schedules.c.id == ticks.c.schedule_id)
        .where(ticks.c.state == "FIRED")
        .where(ticks.c.recorded_at <= until, ticks.c.recorded_at >= since)
    )
    return _pages(database, select, columns, _tick)


def _tick(row: sa.Row[Any]) -> Fact:
    nominal = clock.iso(row.nominal_at)
    event = (f"augury/schedules/{row.name}", f"{row.schedule_id}:{nominal}")
    return Fact(f"tick of schedule {row.name} at {nominal}", event)


def object_pages(database: Database, *, until: datetime, since: datetime) -> Iterator[FactPage]:
    """Announced objects of sources that always told of everything."""
    columns = (source_objects.c.source_id, source_objects.c.key)
    with database.read() as connection:
        versions = connection.execute(sa.select(source_versions.c.id, source_versions.c.spec)).all()
    silent = {
        row.id for row in versions if not set(row.spec.get("events", _ALL_EVENTS)) >= _ALL_EVENTS
    }
    select = (
        sa.select(*columns, source_objects.c.identity, source_objects.c.life, sources.c.name)
        .join_from(source_objects, sources, sources.c.id == source_objects.c.source_id)
        .where(source_objects.c.state == "ANNOUNCED", source_objects.c.source_id.not_in(silent))
        .where(source_objects.c.seen_at <= until, source_objects.c.seen_at >= since)
    )
    return _pages(database, select, columns, _object)


def _object(row: sa.Row[Any]) -> Fact:
    again = (row.source_id, row.identity, str(row.life))  # it came back after it was deleted
    event_id = derived_id("obj", *(again if row.life else (row.name, row.identity)))
    return Fact(
        f"object {row.identity} of source {row.name}", (f"augury/sources/{row.name}", event_id)
    )


def deletion_pages(database: Database, *, until: datetime, since: datetime) -> Iterator[FactPage]:
    """Objects that count as deleted, of sources that always told of deletions."""
    columns = (source_objects.c.source_id, source_objects.c.key)
    with database.read() as connection:
        versions = connection.execute(sa.select(source_versions.c.id, source_versions.c.spec)).all()
    silent = {row.id for row in versions if "deleted" not in row.spec.get("events", ("deleted",))}
    select = (
        sa.select(*columns, source_objects.c.life, sources.c.name)
        .join_from(source_objects, sources, sources.c.id == source_objects.c.source_id)
        .where(source_objects.c.state == "DELETED", source_objects.c.source_id.not_in(silent))
        .where(source_objects.c.seen_at <= until, source_objects.c.seen_at >= since)
    )
    return _pages(database, select, columns, _deletion)


def _deletion(row: sa.Row[Any]) -> Fact:
    event_id = derived_id("obj", row.source_id, "deleted", row.key, str(row.life))
    return Fact(
        f"deletion of {row.key} of source {row.name}", (f"augury/sources/{row.name}", event_id)
    )


def _pages(
    database: Database, select: sa.Select[Any], key: Sequence[sa.Column[Any]], fact: Any
) -> Iterator[FactPage]:
    ordered = select.order_by(*key).limit(_PAGE_ROWS)
    last: sa.Row[Any] | None = None
    while True:
        page = ordered if last is None else ordered.where(_after(key, last))
        with database.read() as connection:
            rows = connection.execute(page).all()
            if not rows:
                return
            facts = [fact(row) for row in rows]
            found = arrived(connection, {each.event for each in facts})
        yield FactPage(facts, found)
        last = rows[-1]


def _after(key: Sequence[sa.Column[Any]], last: sa.Row[Any]) -> sa.ColumnElement[bool]:
    values = [sa.literal(last._mapping[column.name], column.type) for column in key]
    return sa.tuple_(*key) > sa.tuple_(*values)


def _told(page: FactPage) -> Iterator[Finding]:
    for fact in page.facts:
        if fact.event not in page.arrived:
            source, event_id = fact.event
            expected = f"its event ({source}, {event_id}) in the ledger or the outbox"
            yield Finding(fact.subject, expected, "in neither")


TICK_CHECKS: tuple[Check[FactPage], ...] = (
    Check(
        name="tick_event",
        examine=_told,
        advice="the schedule fired and no rule was asked: see that nobody empties the outbox, and "
        "start by hand what should have followed",
    ),
)
OBJECT_CHECKS: tuple[Check[FactPage], ...] = (
    Check(
        name="object_event",
        examine=_told,
        advice="the object counts as announced and no rule was asked: see that nobody empties the "
        "outbox, then delete its row of `source_objects`, so that the source announces it again",
    ),
)
DELETION_CHECKS: tuple[Check[FactPage], ...] = (
    Check(
        name="deletion_event",
        examine=_told,
        advice="the object counts as deleted and no rule was asked: see that nobody empties the "
        "outbox, and do by hand what should have followed",
    ),
)
