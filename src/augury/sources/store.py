"""Applying and deleting sources and schedules, inside the caller's transaction.

The processes that watch and tick look at these resources every second; nothing else is to be told.
"""

from __future__ import annotations

import sqlalchemy as sa

from augury.resources import store
from augury.resources.store import Change, Kind, Resource
from augury.sources.overlap import TickState
from augury.sources.spec import ScheduleSpec, SourceSpec
from augury.storage.database import Database
from augury.storage.tables import ticks

_PAGE = 500


def apply_source(
    database: Database, connection: sa.Connection, name: str, spec: SourceSpec
) -> tuple[Resource, Change]:
    """Creates or updates a source of any kind; the same spec changes nothing."""
    stored = spec.stored()
    return store.put(database, connection, Kind.SOURCE, name, stored, enabled=spec.enabled)


def delete_source(database: Database, connection: sa.Connection, name: str) -> Resource:
    """Deletes a source; what it announced stays announced.

    Raises:
        NotFoundError: no such source.
    """
    return store.delete(database, connection, Kind.SOURCE, name)


def apply_schedule(
    database: Database, connection: sa.Connection, name: str, spec: ScheduleSpec
) -> tuple[Resource, Change]:
    """Creates or updates a schedule; the same spec changes nothing.

    A new schedule, one that is enabled and one whose rhythm changed ticks from now on: nothing
    that would have been due before is missed.
    """
    return store.put(database, connection, Kind.SCHEDULE, name, spec.stored(), enabled=spec.enabled)


def delete_schedule(database: Database, connection: sa.Connection, name: str) -> Resource:
    """Deletes a schedule; its ticks stay recorded, and those that waited do not fire any more.

    Raises:
        NotFoundError: no such schedule.
    """
    deleted = store.delete(database, connection, Kind.SCHEDULE, name)
    waiting = (ticks.c.schedule_id == deleted.id, ticks.c.state == TickState.QUEUED)
    connection.execute(sa.update(ticks).where(*waiting).values(state=TickState.SKIPPED))
    return deleted


def enabled(database: Database, kind: Kind) -> list[Resource]:
    """All live and enabled resources of a kind, in order of name.

    Raises:
        UnavailableError: the database did not answer.
    """
    found: list[Resource] = []
    with database.read() as connection:
        while page := store.listed(connection, kind, limit=_PAGE, after=_last_name(found)):
            found += page
            if len(page) < _PAGE:
                break
    return [resource for resource in found if resource.enabled]


def _last_name(found: list[Resource]) -> str:
    return found[-1].name if found else ""
