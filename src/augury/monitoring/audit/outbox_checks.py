"""Events of Augury's own that have not arrived, and whether they still may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from augury.monitoring.audit.check import Check, Finding
from augury.storage.database import Database
from augury.storage.tables import event_keys, outbox

_PAGE_ROWS = 500


@dataclass(frozen=True)
class OutboxPage:
    """Some rows of the outbox with their keys.

    Attributes:
        rows: of `outbox`, with `key_seen_at` if the ledger has had an event of that (source, id).
        now: when the page was read.
        grace: how long a row may wait for relay and router.
    """

    rows: Sequence[sa.Row[Any]]
    now: datetime
    grace: timedelta


def outbox_pages(database: Database, *, now: datetime, grace: timedelta) -> Iterator[OutboxPage]:
    """The rows that were there at `now`, oldest first."""
    after = 0
    while True:
        with database.read() as connection:
            rows = connection.execute(_rows(after, now)).all()
        if not rows:
            return
        yield OutboxPage(rows, now, grace)
        after = rows[-1].id


def _rows(after: int, until: datetime) -> sa.Select[Any]:
    key = (event_keys.c.source == outbox.c.source) & (event_keys.c.event_id == outbox.c.event_id)
    columns = (outbox.c.id, outbox.c.source, outbox.c.event_id, outbox.c.created_at)
    return (
        sa.select(*columns, outbox.c.sent_at, event_keys.c.seen_at.label("key_seen_at"))
        .select_from(outbox.outerjoin(event_keys, key))
        .where(outbox.c.id > after, outbox.c.created_at <= until)
        .order_by(outbox.c.id)
        .limit(_PAGE_ROWS)
    )


def _overdue(page: OutboxPage) -> Iterator[tuple[sa.Row[Any], float]]:
    for row in page.rows:
        age = page.now - row.created_at
        if age > page.grace:
            yield row, age.total_seconds()


def _stale(page: OutboxPage) -> Iterator[Finding]:
    for row, age_s in _overdue(page):
        if row.key_seen_at is None:
            sent = f"sent at {row.sent_at}" if row.sent_at else "never sent"
            expected = f"in the ledger within {page.grace.total_seconds():.0f} s"
            yield Finding(f"{row.source} {row.event_id}", expected, f"{age_s:.0f} s old, {sent}")


def _leftover(page: OutboxPage) -> Iterator[Finding]:
    for row, age_s in _overdue(page):
        if row.key_seen_at is not None and page.now - row.key_seen_at > page.grace:
            found = f"still in the outbox after {age_s:.0f} s"
            yield Finding(f"{row.source} {row.event_id}", "gone, for the ledger holds it", found)


OUTBOX_CHECKS: tuple[Check[OutboxPage], ...] = (
    Check(
        name="outbox_stale",
        examine=_stale,
        advice="see that the relay and a router run (`augury up`, `augury doctor`); the event "
        "stays in the outbox until the ledger holds it",
    ),
    Check(
        name="outbox_leftover",
        examine=_leftover,
        advice="the router removes an event of ours when it routes it, in the same transaction; "
        "restart the router, and report a bug if the row stays",
    ),
)
