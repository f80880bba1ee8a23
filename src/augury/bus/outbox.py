"""Writing events in the same transaction as the facts they tell.

`emit` only inserts rows; `relay.py` sends them. A row stays until the ledger holds its event, not
merely until the stream took it: a bus that forgets is fed again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from augury import clock
from augury.events.envelope import Event
from augury.storage.database import Database
from augury.storage.tables import outbox


def emit(database: Database, connection: sa.Connection, events: Sequence[Event]) -> None:
    """Puts events into the outbox; one whose (source, id) is there already is skipped."""
    now = clock.utc_now()
    rows = [
        {
            "source": event.source,
            "event_id": event.id,
            "body": event.to_json().decode(),
            "created_at": now,
        }
        for event in events
    ]
    if rows:
        connection.execute(database.insert(outbox).on_conflict_do_nothing(), rows)
