"""Has an event that must have been emitted arrived, or is it on its way?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from augury.storage.tables import dead_letters, event_keys, outbox

type Key = tuple[str, str]


def arrived(connection: sa.Connection, keys: Collection[Key]) -> set[Key]:
    """Those of `keys` (source, id) whose event the ledger, its dead letters or the outbox has."""
    found: set[Key] = set()
    for source in sorted({source for source, _ in keys}):
        event_ids = sorted(event_id for found_source, event_id in keys if found_source == source)
        for table in (event_keys, outbox):
            found |= {
                (source, event_id) for event_id in _held(connection, table, source, event_ids)
            }
    for key in sorted(set(keys) - found):  # rare: only now is a search worth it
        if _is_buried(connection, key[1]):
            found.add(key)
    return found


def _held(
    connection: sa.Connection, table: sa.Table, source: str, event_ids: Sequence[str]
) -> Sequence[str]:
    select = sa.select(table.c.event_id).where(
        table.c.source == source, table.c.event_id.in_(event_ids)
    )
    return connection.scalars(select).all()


def _is_buried(connection: sa.Connection, event_id: str) -> bool:
    quoted = dead_letters.c.payload.contains(f'"{event_id}"', autoescape=True)
    return (
        connection.execute(sa.select(dead_letters.c.id).where(quoted).limit(1)).first() is not None
    )
