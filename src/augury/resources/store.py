"""Create, update, delete and read of resources, the same for every kind.

A resource is a name, a spec (validated JSON) and a version. Applying the same spec again changes
nothing and makes no version, so `augury apply` is idempotent and two of them at once end with one
winner's whole spec, never a mixture. Each change emits its event in its own transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.bus.outbox import emit
from augury.errors import ConflictError, NotFoundError
from augury.events.catalog import OWN_SOURCE
from augury.events.envelope import new_event
from augury.storage import tables
from augury.storage.database import Database


class Kind(StrEnum):
    """Kind of a resource, as `apply` documents name it in lower case."""

    JOB = "job"
    RULE = "rule"
    SCHEDULE = "schedule"
    SOURCE = "source"

    @property
    def tables(self) -> tuple[sa.Table, sa.Table]:
        """(current state, all versions)."""
        return _TABLES[self]


_TABLES = {
    Kind.JOB: (tables.jobs, tables.job_versions),
    Kind.RULE: (tables.rules, tables.rule_versions),
    Kind.SCHEDULE: (tables.schedules, tables.schedule_versions),
    Kind.SOURCE: (tables.sources, tables.source_versions),
}


class Change(StrEnum):
    """What an apply did."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource at one version. Versions count from 1 and never go back."""

    kind: Kind
    id: str
    name: str
    version: int
    spec: Mapping[str, Any]
    enabled: bool
    created_at: datetime
    updated_at: datetime


def _resource(kind: Kind, row: Any) -> Resource:
    return Resource(
        kind=kind,
        id=row.id,
        name=row.name,
        version=row.version,
        spec=row.spec,
        enabled=row.enabled,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def put(
    database: Database,
    connection: sa.Connection,
    kind: Kind,
    name: str,
    spec: Mapping[str, Any],
    *,
    enabled: bool = True,
) -> tuple[Resource, Change]:
    """Creates or updates inside the caller's transaction. `spec` must be validated already."""
    found = find(connection, kind, name, lock=database)
    if found is not None and found.spec == spec and found.enabled == enabled:
        return found, Change.UNCHANGED
    now = clock.utc_now()
    resource = Resource(
        kind=kind,
        id=found.id if found else ids.new_id(kind),
        name=name,
        version=found.version + 1 if found else 1,
        spec=spec,
        enabled=enabled,
        created_at=found.created_at if found else now,
        updated_at=now,
    )
    _write(connection, resource, exists=found is not None)
    change = Change.UPDATED if found else Change.CREATED
    _announce(database, connection, resource, change)
    return resource, change


def _write(connection: sa.Connection, resource: Resource, *, exists: bool) -> None:
    current, versions = resource.kind.tables
    values = {"version": resource.version, "spec": resource.spec, "enabled": resource.enabled}
    if exists:
        changed = connection.execute(
            sa.update(current)
            .where(current.c.id == resource.id, current.c.version == resource.version - 1)
            .values(updated_at=resource.updated_at, **values)
        )
        if changed.rowcount != 1:
            raise ConflictError(f"{resource.kind} {resource.name} was changed meanwhile; try again")
    else:
        connection.execute(
            sa.insert(current).values(
                id=resource.id,
                name=resource.name,
                created_at=resource.created_at,
                updated_at=resource.updated_at,
                **values,
            )
        )
    connection.execute(
        sa.insert(versions).values(id=resource.id, created_at=resource.updated_at, **values)
    )


def delete(database: Database, connection: sa.Connection, kind: Kind, name: str) -> Resource:
    """Deletes by name inside the caller's transaction; history keeps the row.

    Raises:
        NotFoundError: no such resource.
    """
    resource = get(connection, kind, name)
    current, _ = kind.tables
    connection.execute(
        sa.update(current).where(current.c.id == resource.id).values(deleted_at=clock.utc_now())
    )
    _announce(database, connection, resource, Change.DELETED)
    return resource


def _announce(
    database: Database, connection: sa.Connection, resource: Resource, change: Change
) -> None:
    event = new_event(
        f"augury.{resource.kind}.{change}",
        {"id": resource.id, "name": resource.name, "version": resource.version},
        source=OWN_SOURCE,
        subject=f"{resource.kind}s/{resource.name}",
        event_id=f"{resource.id}:{resource.version}:{change}",
    )
    emit(database, connection, [event])


def find(
    connection: sa.Connection, kind: Kind, name: str, *, lock: Database | None = None
) -> Resource | None:
    """The live resource of that name, or None; locked until commit if `lock` is given."""
    current, _ = kind.tables
    select = sa.select(current).where(current.c.name == name, current.c.deleted_at.is_(None))
    row = connection.execute(lock.lock_rows(select) if lock else select).one_or_none()
    return _resource(kind, row) if row is not None else None


def get(connection: sa.Connection, kind: Kind, name: str) -> Resource:
    """The live resource of that name.

    Raises:
        NotFoundError: no such resource; the message names close ones.
    """
    resource = find(connection, kind, name)
    if resource is None:
        known = [other.name for other in listed(connection, kind, limit=10)]
        hint = f"; there are: {', '.join(known)}" if known else ""
        raise NotFoundError(f"no {kind} named {name!r}{hint}", kind=kind, name=name)
    return resource


def listed(
    connection: sa.Connection, kind: Kind, *, limit: int = 100, after: str = ""
) -> list[Resource]:
    """Live resources in order of name, at most `limit`, with names greater than `after`."""
    current, _ = kind.tables
    rows = connection.execute(
        sa.select(current)
        .where(current.c.deleted_at.is_(None), current.c.name > after)
        .order_by(current.c.name)
        .limit(limit)
    )
    return [_resource(kind, row) for row in rows]
