"""From the outbox to the stream.

Rows are claimed (marked as sent) before they are published, so that several relays do not publish
the same event at the same time; a relay that dies in between costs a delay of `resend_s`, not an
event. A row leaves the outbox when the ledger holds its event (the router deletes it), not when
the stream took it. So a row that is still here long after it was sent, while the router has read
past that time, tells of a stream that lost it; so does a row sent in another life of the bus. Both
are sent again: the ledger recognises a duplicate, and nobody can recognise a loss.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from augury import clock
from augury.bus.port import Bus
from augury.errors import UnavailableError
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import outbox

_log = logging.getLogger(__name__)
_LONGEST_BACKOFF_S = 5.0


def flush(database: Database, bus: Bus, *, limit: int = 500, resend_s: float = 30.0) -> int:
    """Sends up to `limit` events that the stream does not have, oldest first.

    Any number of processes may call this at any time. A call that finds nothing writes nothing.

    Args:
        database: where the outbox is.
        bus: where its events go.
        limit: most rows in one transaction and one publish.
        resend_s: seconds after which a sent event that the ledger does not hold is sent again,
            at the earliest; while the router is further behind than that, it is waited for.

    Returns:
        Number of events sent.

    Raises:
        UnavailableError: the bus or the database did not answer; nothing is lost.
    """
    incarnation = bus.incarnation()
    due = _due(incarnation, _sent_before(bus, resend_s))
    if not _anything(database, due):
        return 0
    claimed = database.transact(
        lambda connection: _claim(database, connection, due, incarnation, limit)
    )
    if not claimed:
        return 0
    row_ids = [row.id for row in claimed]
    try:
        bus.publish([row.body.encode() for row in claimed])
    except UnavailableError:
        _unclaim(database, row_ids)
        raise
    _note_incarnation(database, bus, row_ids, incarnation)
    return len(row_ids)


def _sent_before(bus: Bus, resend_s: float) -> datetime:
    """What was sent before this and is not in the ledger is not in the stream either."""
    behind_s = bus.status().oldest_age_s
    return clock.utc_now() - timedelta(seconds=resend_s + behind_s)


def _due(incarnation: str | None, sent_before: datetime) -> sa.ColumnElement[bool]:
    conditions = [outbox.c.sent_at.is_(None), outbox.c.sent_at < sent_before]
    if incarnation is not None:  # written as two ranges because an index serves those
        conditions += [outbox.c.incarnation < incarnation, outbox.c.incarnation > incarnation]
    return sa.or_(*conditions)


def _anything(database: Database, due: sa.ColumnElement[bool]) -> bool:
    with database.read() as connection:
        return connection.execute(sa.select(outbox.c.id).where(due).limit(1)).first() is not None


def _claim(
    database: Database,
    connection: sa.Connection,
    due: sa.ColumnElement[bool],
    incarnation: str | None,
    limit: int,
) -> Sequence[sa.Row[tuple[int, str]]]:
    wanted = sa.select(outbox.c.id).where(due).order_by(outbox.c.id).limit(limit)
    row_ids = connection.scalars(database.lock_rows(wanted, skip_locked=True)).all()
    rows = connection.execute(
        sa.update(outbox)
        .where(outbox.c.id.in_(row_ids))
        .values(sent_at=clock.utc_now(), incarnation=incarnation)
        .returning(outbox.c.id, outbox.c.body)
    ).all()
    return sorted(rows, key=lambda row: row.id)


def _unclaim(database: Database, row_ids: Sequence[int]) -> None:
    """Lets the next call send them at once; if this fails too, `resend_s` later it will."""
    _log.warning(
        "bus unavailable, outbox keeps its events",
        extra={"action": "relay_unclaimed", "num_events": len(row_ids)},
    )
    database.transact(
        lambda connection: connection.execute(
            sa.update(outbox).where(outbox.c.id.in_(row_ids)).values(sent_at=None)
        )
    )


def _note_incarnation(
    database: Database, bus: Bus, row_ids: Sequence[int], expected: str | None
) -> None:
    """A publish may begin the bus's next life; the rows then belong to that one."""
    found = bus.incarnation()
    if found == expected:
        return
    database.transact(
        lambda connection: connection.execute(
            sa.update(outbox).where(outbox.c.id.in_(row_ids)).values(incarnation=found)
        )
    )


class Relay:
    """The process that empties the outbox; whoever commits events calls `flush` besides."""

    def __init__(self, database: Database, bus: Bus, settings: Settings) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings

    def run(self, stop: threading.Event) -> None:
        """Flushes until `stop` is set; outlives any outage of bus and database."""
        failures = 0
        while not stop.is_set():
            try:
                sent = flush(self._database, self._bus, resend_s=self._settings.resend_s)
                failures = 0
                pause_s = 0.0 if sent else self._settings.relay_s
            except UnavailableError as error:
                failures += 1
                pause_s = min(_LONGEST_BACKOFF_S, self._settings.relay_s * 2**failures)
                _log.warning("relay waits: %s", error, extra={"action": "relay_waits"})
            clock.sleep_s(pause_s, until=stop)
