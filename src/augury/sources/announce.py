"""Telling of objects, once each: the memory of what was announced, and the outbox, in one step.

`source_objects` has one row per key that a source has seen. Any number of watchers may look at the
same objects at the same time: whoever changes the row first emits the event, in the same
transaction; the others find the row changed and say nothing. So a crash leaves neither an
announcement without event nor an event that would be told again.

A source that is told of objects (webhook, queue: `intake.py`) keeps the same rows, by the object's
whole URI, because it may be told of several buckets. What it finds by listing is announced here,
with the same identity; a look at the store that is older than what it was told announces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.outbox import emit
from augury.events.catalog import EventType
from augury.events.envelope import Event, new_event
from augury.ids import derived_id
from augury.resources.store import Resource
from augury.sources.spec import SourceSpec
from augury.storage.database import Database
from augury.storage.objects import ObjectInfo, split_url
from augury.storage.tables import source_objects, sources

_KEYS_PER_QUERY = 500


_CLOCK_GRAIN = timedelta(seconds=1)  # stores give the time of a content in whole seconds


class ObjectState(StrEnum):
    """What is known of the object at a key."""

    PENDING = "PENDING"  #: seen, but not complete; never announced before
    PENDING_UPDATE = "PENDING_UPDATE"  #: as it was announced once; its new content is incomplete
    ANNOUNCED = "ANNOUNCED"  #: the content `identity` was announced
    DELETED = "DELETED"  #: we were told that it is gone


_SETTLED = frozenset({ObjectState.ANNOUNCED})
_PENDING = frozenset({ObjectState.PENDING, ObjectState.PENDING_UPDATE})


@dataclass(frozen=True)
class Place:
    """Where a source's objects lie, as its events name it.

    Attributes:
        bucket: the bucket; locally the source's folder.
        prefix: what stands before a key relative to the source to make one of the bucket.
    """

    bucket: str
    prefix: str

    @classmethod
    def of(cls, spec: SourceSpec) -> Place:
        """The place that the source lists."""
        watch = spec.watch
        assert watch is not None  # nobody lists for a source that lists nothing
        scheme, rest = split_url(watch.uri)
        if scheme == "file":
            return cls(rest.rstrip("/") or "/", "")
        bucket, _, prefix = rest.partition("/")
        return cls(bucket, prefix)


def record_key(spec: SourceSpec, info: ObjectInfo) -> str:
    """Under which key the source records an object."""
    return info.uri if spec.is_told else info.key


def unknown(
    database: Database, source_id: str, spec: SourceSpec, found: Sequence[ObjectInfo]
) -> list[ObjectInfo]:
    """Those of `found` that are not announced as they are now."""
    left: list[ObjectInfo] = []
    with database.read() as connection:
        for start in range(0, len(found), _KEYS_PER_QUERY):
            part = found[start : start + _KEYS_PER_QUERY]
            rows = recorded(connection, source_id, [record_key(spec, info) for info in part])
            left += [i for i in part if not _is_settled(rows.get(record_key(spec, i)), i)]
    return left


def pending_keys(database: Database, source_id: str) -> list[str]:
    """Keys whose content was incomplete when somebody last looked."""
    with database.read() as connection:
        return list(
            connection.scalars(
                sa.select(source_objects.c.key).where(
                    source_objects.c.source_id == source_id,
                    source_objects.c.state.in_(_PENDING),
                )
            )
        )


def announce(
    database: Database, source: Resource, spec: SourceSpec, found: Sequence[ObjectInfo]
) -> int:
    """Records complete objects and emits their events; what is announced already is left alone.

    Idempotent, and safe to call from many places at once. A source that was deleted or disabled
    meanwhile announces nothing.

    Returns:
        Number of events emitted.
    """
    ordered = sorted(found, key=lambda info: info.key)  # so that two of us never deadlock
    return database.transact(
        lambda connection: _announce(database, connection, source, spec, ordered)
    )


def _announce(
    database: Database,
    connection: sa.Connection,
    source: Resource,
    spec: SourceSpec,
    found: Sequence[ObjectInfo],
) -> int:
    if not found or not is_live(connection, source.id):
        return 0
    fresh = _insert(database, connection, source.id, spec, found)
    left = [key for info in found if (key := record_key(spec, info)) not in fresh]
    rows = recorded(connection, source.id, left, lock=database)
    events = []
    for info in found:
        row = rows.get(record_key(spec, info))
        kind = EventType.OBJECT_CREATED if row is None else _settle(connection, row, info)
        if kind is not None and spec.announces(kind.rpartition(".")[2]):
            life = 0 if row is None else row.life
            events.append(_event(kind, source, Place.of(spec), info, life))
    emit(database, connection, events)
    return len(events)


def is_live(connection: sa.Connection, source_id: str) -> bool:
    """True if the source is neither deleted nor disabled."""
    live = sa.select(sources.c.id).where(
        sources.c.id == source_id, sources.c.deleted_at.is_(None), sources.c.enabled
    )
    return connection.execute(live).first() is not None


def recorded(
    connection: sa.Connection,
    source_id: str,
    keys: Sequence[str],
    *,
    lock: Database | None = None,
) -> dict[str, sa.Row[Any]]:
    """What is on record, by key; locked until commit, in order of key, if `lock` is given."""
    select = (
        sa.select(source_objects)
        .where(source_objects.c.source_id == source_id, source_objects.c.key.in_(keys))
        .order_by(source_objects.c.key)
    )
    rows = connection.execute(lock.lock_rows(select) if lock else select)
    return {row.key: row for row in rows}


def _is_settled(row: sa.Row[Any] | None, info: ObjectInfo) -> bool:
    return row is not None and row.state in _SETTLED and row.identity == info.identity


def _insert(
    database: Database,
    connection: sa.Connection,
    source_id: str,
    spec: SourceSpec,
    found: Sequence[ObjectInfo],
) -> set[str]:
    """Keys that nobody had recorded before this very call."""
    now = clock.utc_now()
    rows = [
        {
            "source_id": source_id,
            "key": record_key(spec, info),
            "identity": info.identity,
            "state": ObjectState.ANNOUNCED,
            "seen_at": now,
            "last_at": info.modified_at if spec.is_told else None,
        }
        for info in found
    ]
    inserted = database.insert_new(connection, source_objects, rows, source_objects.c.key)
    return {row.key for row in inserted}


def _settle(connection: sa.Connection, row: sa.Row[Any], info: ObjectInfo) -> EventType | None:
    """Moves a recorded key, which is locked, on to this content; None if that is no news."""
    if _is_settled(row, info) or _was_told_later(row, info):
        return None
    values: dict[str, Any] = {"identity": info.identity, "state": ObjectState.ANNOUNCED}
    if row.last_at is not None:
        values |= {"last_at": info.modified_at, "last_order": None, "version": None}
    connection.execute(
        sa.update(source_objects)
        .where(source_objects.c.source_id == row.source_id, source_objects.c.key == row.key)
        .values(seen_at=clock.utc_now(), **values)
    )
    if _returned(row, info):
        return None
    first = row.state in {ObjectState.PENDING, ObjectState.DELETED}
    return EventType.OBJECT_CREATED if first else EventType.OBJECT_UPDATED


def _was_told_later(row: sa.Row[Any], info: ObjectInfo) -> bool:
    """True if a notification told of something that happened after this content came to be."""
    return row.last_at is not None and bool(info.modified_at < row.last_at - _CLOCK_GRAIN)


def _returned(row: sa.Row[Any], info: ObjectInfo) -> bool:
    """True if what was about to replace the announced content was taken back."""
    return bool(row.state == ObjectState.PENDING_UPDATE and row.identity == info.identity)


def object_event_id(source: Resource, identity: str, life: int) -> str:
    """Id of the event that tells of a content, which follows from it; as the audit computes it.

    Args:
        source: who tells.
        identity: `{uri}#{tag}`.
        life: how often the object had been deleted before.
    """
    if life:
        return derived_id("obj", source.id, identity, str(life))
    return derived_id("obj", source.name, identity)


def _event(kind: EventType, source: Resource, place: Place, info: ObjectInfo, life: int) -> Event:
    key = place.prefix + info.key
    data = {
        "source": source.name,
        "bucket": place.bucket,
        "key": key,
        "uri": info.uri,
        "size_bytes": info.size_bytes,
        "tag": info.tag,
        "identity": info.identity,
        "event_time": clock.iso(info.modified_at),
    }
    return new_event(
        kind,
        data,
        source=f"augury/sources/{source.name}",
        subject=key,
        event_id=object_event_id(source, info.identity, life),
    )


def record_pending(database: Database, source_id: str, found: Sequence[ObjectInfo]) -> None:
    """Records that these are there and incomplete, for people to see; emits nothing."""
    ordered = sorted(found, key=lambda info: info.key)
    if ordered:
        database.transact(
            lambda connection: _record_pending(database, connection, source_id, ordered)
        )


def _record_pending(
    database: Database, connection: sa.Connection, source_id: str, found: Sequence[ObjectInfo]
) -> None:
    rows = recorded(connection, source_id, [info.key for info in found], lock=database)
    fresh = [
        {
            "source_id": source_id,
            "key": info.key,
            "identity": info.identity,
            "state": ObjectState.PENDING,
            "seen_at": clock.utc_now(),
        }
        for info in found
        if info.key not in rows
    ]
    if fresh:
        connection.execute(database.insert(source_objects).on_conflict_do_nothing(), fresh)
    replaced = [info.key for info in found if _is_replaced(rows.get(info.key), info)]
    _move(connection, source_id, replaced, ObjectState.ANNOUNCED, ObjectState.PENDING_UPDATE)


def _is_replaced(row: sa.Row[Any] | None, info: ObjectInfo) -> bool:
    return row is not None and row.state in _SETTLED and row.identity != info.identity


def forget_pending(database: Database, source_id: str, keys: Sequence[str]) -> None:
    """Incomplete objects that went away: their records return to what they were before."""
    if keys:
        database.transact(lambda connection: _forget_pending(connection, source_id, sorted(keys)))


def _forget_pending(connection: sa.Connection, source_id: str, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        connection.execute(
            sa.delete(source_objects).where(
                source_objects.c.source_id == source_id,
                source_objects.c.key.in_(part),
                source_objects.c.state == ObjectState.PENDING,
            )
        )
        _move(connection, source_id, part, ObjectState.PENDING_UPDATE, ObjectState.ANNOUNCED)


def _move(
    connection: sa.Connection,
    source_id: str,
    keys: Sequence[str],
    expected: ObjectState,
    to: ObjectState,
) -> None:
    connection.execute(
        sa.update(source_objects)
        .where(
            source_objects.c.source_id == source_id,
            source_objects.c.key.in_(keys),
            source_objects.c.state == expected,
        )
        .values(state=to, seen_at=clock.utc_now())
    )
