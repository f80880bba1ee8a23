"""Messages of foreign brokers that can never become events, put among the dead letters.

A consumer acknowledges such a message only after this: it is kept with its payload and the reason
until a person decides, as an entry of the stream is that no router can route (see
`routing.dead_letters`, which lists and settles both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.ids import digest
from augury.storage.database import Database
from augury.storage.tables import dead_letters

_KIND = "entry"
_OPEN = "OPEN"
_LONGEST_KEY = 48


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A message to give up.

    Attributes:
        origin: where it came from, at most 64 characters, for example the source's id.
        key: the same when the message is delivered again.
        body: the message's body, as it came.
        reason: what was expected and what was found.
    """

    origin: str
    key: str
    body: bytes
    reason: str


def bury_messages(database: Database, refused: Sequence[Refused]) -> int:
    """Writes a dead letter for each; one that is there already is skipped.

    Returns:
        Number of dead letters written. All of `refused` may be acknowledged whatever it is.

    Raises:
        UnavailableError: the database did not answer.
    """
    rows = {(each.origin, _key(each)): _row(each) for each in refused}
    ordered = [rows[key] for key in sorted(rows)]

    def work(connection: sa.Connection) -> int:
        return len(database.insert_new(connection, dead_letters, ordered, dead_letters.c.id))

    return database.transact(work)


def _row(refused: Refused) -> dict[str, Any]:
    return {
        "id": ids.new_id("dead"),
        "kind": _KIND,
        "incarnation": refused.origin,
        "entry_id": _key(refused),
        "payload": refused.body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00"),
        "reason": refused.reason.replace("\x00", "\\x00"),
        "attempts": 0,
        "state": _OPEN,
        "created_at": clock.utc_now(),
    }


def _key(refused: Refused) -> str:
    return digest(refused.key.encode())[:_LONGEST_KEY]
