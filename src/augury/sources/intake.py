"""Notifications in, events out: what they mean, the record of it and the outbox in one transaction.

One row of `source_objects` per object (by its URI) says what was told of it last. Whoever takes a
notification locks that row, so that of two that come at the same time the second finds what the
first one told; a transaction that fails leaves nothing, and one whose answer was lost is repeated
without telling anything twice. What passes through untouched goes to the bus as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.outbox import emit
from augury.errors import UnavailableError
from augury.events.catalog import EventType
from augury.events.envelope import Event, new_event
from augury.events.normalise import ObjectNotice
from augury.ids import derived_id
from augury.resources.store import Resource
from augury.sources.announce import ObjectState, is_live, object_event_id, recorded
from augury.sources.notices import Known, Meaning, after, meaning
from augury.sources.spec import SourceSpec
from augury.storage.database import Database
from augury.storage.tables import source_objects

_AT_ONCE = 200


@dataclass(kw_only=True)
class Taken:
    """What notifications became.

    Attributes:
        event_ids: of the events that were emitted, in the order of the notifications.
        meanings: how many notifications meant what.
    """

    event_ids: list[str] = field(default_factory=list)
    meanings: Counter[Meaning] = field(default_factory=Counter)


def take(
    database: Database, source: Resource, spec: SourceSpec, notices: Sequence[ObjectNotice]
) -> Taken:
    """Records what notifications say and emits their events. Idempotent.

    Raises:
        UnavailableError: the source was deleted or disabled meanwhile, or the database did not
            answer; what was taken is taken, and taking it again is harmless.
    """
    taken = Taken()
    for part in batched(notices, _AT_ONCE, strict=False):
        step = database.transact(lambda connection: _take(database, connection, source, spec, part))  # noqa: B023 - used before the next turn
        taken.event_ids += step.event_ids
        taken.meanings += step.meanings
    return taken


def _take(
    database: Database,
    connection: sa.Connection,
    source: Resource,
    spec: SourceSpec,
    notices: Sequence[ObjectNotice],
) -> Taken:
    if not is_live(connection, source.id):
        raise UnavailableError(f"source {source.name} is disabled or deleted; enable it")
    uris = sorted({notice.uri for notice in notices})
    rows = recorded(connection, source.id, uris, lock=database)
    before = {uri: _known(row) for uri, row in rows.items()}
    now: dict[str, Known | None] = dict(before)
    taken = Taken()
    events = []
    for notice in notices:
        known = now.get(notice.uri)
        found = meaning(known, notice)
        now[notice.uri] = after(known, notice, found)
        taken.meanings[found] += 1
        event = _event(source, notice, found, known)
        if event is not None and _is_announced(spec, found):
            events.append(event)
            taken.event_ids.append(event.id)
    _write(connection, source.id, before, now)
    emit(database, connection, events)
    return taken


def _is_announced(spec: SourceSpec, found: Meaning) -> bool:
    """What is superseded is always told: it would be swallowed otherwise."""
    kind = found.event_type
    if kind is None or found is Meaning.SUPERSEDED:
        return found is Meaning.SUPERSEDED
    return spec.announces(kind.rpartition(".")[2])


def _known(row: Any) -> Known:
    return Known(
        identity=row.identity,
        exists=row.state != ObjectState.DELETED,
        life=row.life,
        order=row.last_order,
        at=row.last_at,
        version=row.version,
    )


def _write(
    connection: sa.Connection,
    source_id: str,
    before: Mapping[str, Known],
    now: Mapping[str, Known | None],
) -> None:
    seen_at = clock.utc_now()
    changed = [(uri, known) for uri, known in sorted(now.items()) if known != before.get(uri)]
    fresh = []
    for uri, known in changed:
        assert known is not None  # nothing on record is ever forgotten
        values = _values(known, seen_at)
        if uri in before:
            where = (source_objects.c.source_id == source_id, source_objects.c.key == uri)
            connection.execute(sa.update(source_objects).where(*where).values(**values))
        else:
            fresh.append({"source_id": source_id, "key": uri, **values})
    if fresh:  # another one may insert the same at this moment: then all of this is done again
        connection.execute(sa.insert(source_objects), fresh)


def _values(known: Known, seen_at: datetime) -> dict[str, Any]:
    return {
        "identity": known.identity,
        "state": ObjectState.ANNOUNCED if known.exists else ObjectState.DELETED,
        "seen_at": seen_at,
        "version": known.version,
        "last_order": known.order,
        "last_at": known.at,
        "life": known.life,
    }


def _event(
    source: Resource, notice: ObjectNotice, found: Meaning, known: Known | None
) -> Event | None:
    kind = found.event_type
    if kind is None:
        return None
    data = _data(source, notice)
    if kind is EventType.OBJECT_SUPERSEDED:
        data |= {"change": notice.change, "known": known.identity if known else ""}
    return new_event(
        kind,
        data,
        source=f"augury/sources/{source.name}",
        subject=notice.key,
        event_id=_event_id(source, notice, found, known),
        time=notice.time,
    )


def _event_id(source: Resource, notice: ObjectNotice, found: Meaning, known: Known | None) -> str:
    life = known.life if known else 0
    if found in {Meaning.CREATED, Meaning.UPDATED} and notice.identity is not None:
        return object_event_id(source, notice.identity, life)
    if found is Meaning.DELETED:
        return deletion_event_id(source.id, notice.uri, life + 1)
    return derived_id("obj", source.id, found, notice.notice_id)


def deletion_event_id(source_id: str, uri: str, life: int) -> str:
    """Id of the event that tells that an object is gone for the `life`-th time (from 1)."""
    return derived_id("obj", source_id, "deleted", uri, str(life))


def _data(source: Resource, notice: ObjectNotice) -> dict[str, Any]:
    """As the watcher's events have it, and what only a notification knows."""
    data = {
        "source": source.name,
        "bucket": notice.bucket,
        "key": notice.key,
        "uri": notice.uri,
        "size_bytes": notice.size_bytes,
        "tag": notice.tag,
        "identity": notice.identity,
        "event_time": None if notice.time is None else clock.iso(notice.time),
        "provider": notice.provider,
        "version": notice.version,
        "sequencer": notice.sequencer,
    }
    return {name: value for name, value in data.items() if value is not None}
