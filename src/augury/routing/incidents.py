"""What happened to the bus that the ledger must not forget.

`LOST`: another incarnation appeared, so events that were accepted but not yet routed are gone.
Those from sources and from Augury itself are sent again (they are in the database or in the
world); those from the API since the incident's ledger position are unknown. `TRIMMED`: entries
were deleted from the stream by somebody else before they were routed. `augury audit` shows both
until a person acknowledges them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.port import Bus
from augury.ids import derived_id
from augury.storage.database import Database
from augury.storage.tables import bus_incidents, dead_letters, events, meta

_log = logging.getLogger(__name__)
LOST = "LOST"
TRIMMED = "TRIMMED"
_LIFE = "bus_incarnation"


def note_incarnation(database: Database, bus: Bus) -> str | None:
    """Compares the bus's present life with the last known one and records a loss, once.

    Any number of routers may call this at any time, before they route the first entry of a life
    that they have not seen.

    Returns:
        The present incarnation; None if the bus holds no stream.

    Raises:
        UnavailableError: the bus or the database did not answer.
    """
    found = bus.incarnation()
    if found is None:
        return None
    with database.read() as connection:
        known = connection.scalar(sa.select(meta.c.value).where(meta.c.key == _LIFE))
    if known != found:
        database.transact(lambda connection: _turn_over(database, connection, found))
    return found


def _turn_over(database: Database, connection: sa.Connection, found: str) -> None:
    database.insert_new(connection, meta, [{"key": _LIFE, "value": found}], meta.c.key)
    select = sa.select(meta.c.value).where(meta.c.key == _LIFE)
    known = connection.scalar(database.lock_rows(select))
    if known == found:
        return
    connection.execute(sa.update(meta).where(meta.c.key == _LIFE).values(value=found))
    detail = {"previous": known, "incarnation": found}
    _record(database, connection, LOST, derived_id("incident", LOST, str(known), found), detail)
    _log.error(
        "the bus lost its data: events that were accepted and not yet routed are unknown",
        extra={"action": "bus_lost", **detail},
    )


def note_missing(database: Database, incarnation: str, entry_ids: Sequence[str]) -> int:
    """Records entries that were deleted before they were routed; returns how many those are.

    Entries that the ledger holds were routed, and only their acknowledgement was missing.
    """
    return database.transact(
        lambda connection: _trimmed(database, connection, incarnation, entry_ids)
    )


def _trimmed(
    database: Database, connection: sa.Connection, incarnation: str, entry_ids: Sequence[str]
) -> int:
    routed: set[str] = set()
    for table in (events, dead_letters):
        where = (table.c.incarnation == incarnation, table.c.entry_id.in_(entry_ids))
        routed |= set(connection.scalars(sa.select(table.c.entry_id).where(*where)))
    missing = sorted(set(entry_ids) - routed)
    if missing:
        detail = {"incarnation": incarnation, "entry_ids": missing}
        incident_id = derived_id("incident", TRIMMED, incarnation, *missing)
        _record(database, connection, TRIMMED, incident_id, detail)
        _log.error(
            "entries were deleted from the stream before they were routed",
            extra={"action": "bus_trimmed", **detail},
        )
    return len(missing)


def _record(
    database: Database,
    connection: sa.Connection,
    kind: str,
    incident_id: str,
    detail: Mapping[str, Any],
) -> None:
    position = connection.scalar(sa.select(sa.func.max(events.c.position))) or 0
    row = {
        "id": incident_id,
        "kind": kind,
        "detail": dict(detail),
        "position": position,
        "created_at": clock.utc_now(),
    }
    database.insert_new(connection, bus_incidents, [row], bus_incidents.c.id)
