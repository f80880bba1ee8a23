"""What happened to the bus, until somebody acknowledges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.errors import NotFoundError
from augury.monitoring.audit.report import Incident
from augury.storage.database import Database
from augury.storage.tables import bus_incidents

_SHOWN = 5


def open_incidents(connection: sa.Connection) -> list[Incident]:
    """Unacknowledged incidents, oldest first."""
    select = (
        sa.select(bus_incidents)
        .where(bus_incidents.c.acknowledged_at.is_(None))
        .order_by(bus_incidents.c.created_at, bus_incidents.c.id)
    )
    return [_incident(row) for row in connection.execute(select)]


def _incident(row: sa.Row[Any]) -> Incident:
    return Incident(
        id=row.id,
        kind=row.kind,
        position=row.position,
        created_at=row.created_at,
        detail=row.detail,
        message=_message(row.kind, row.created_at, row.position, row.detail),
    )


def _message(kind: str, at: Any, position: int, detail: Mapping[str, Any]) -> str:
    if kind == "LOST":
        return (
            f"bus lost at {clock.iso(at)}: events from the API since ledger position {position} "
            "are unknown; those of sources and of Augury itself were sent again"
        )
    entry_ids = list(detail.get("entry_ids", ()))
    named = ", ".join(entry_ids[:_SHOWN]) + (" ..." if len(entry_ids) > _SHOWN else "")
    return (
        f"{len(entry_ids)} entries deleted from the stream before they were routed, noticed at "
        f"{clock.iso(at)} after ledger position {position}: {named}"
    )


def acknowledge(database: Database, incident_id: str) -> Incident:
    """Says that a person knows of an incident; from then on audit passes over it. Idempotent.

    Raises:
        NotFoundError: there is no such incident; the message names the open ones.
    """
    return database.transact(lambda connection: _acknowledge(connection, incident_id))


def _acknowledge(connection: sa.Connection, incident_id: str) -> Incident:
    row = connection.execute(
        sa.select(bus_incidents).where(bus_incidents.c.id == incident_id)
    ).one_or_none()
    if row is None:
        known = ", ".join(incident.id for incident in open_incidents(connection)[:_SHOWN])
        hint = f"there are: {known}" if known else "none is open"
        raise NotFoundError(f"no incident {incident_id!r}; {hint}", kind="incident")
    connection.execute(
        sa.update(bus_incidents)
        .where(bus_incidents.c.id == incident_id, bus_incidents.c.acknowledged_at.is_(None))
        .values(acknowledged_at=clock.utc_now())
    )
    return _incident(row)
