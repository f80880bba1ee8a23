"""The one transaction in which events become outcomes, runs, and effects that are owed.

It may run again at any point and beside any number of others: a router that dies before the
commit leaves nothing, one that dies after it leaves entries that are known and only acknowledged.
Three rules make that so.

* What must happen once is a unique key (delivery, event, object per rule, run), inserted with ON
  CONFLICT DO NOTHING; what follows is derived from the rows that *this* transaction inserted.
* Tables are written in one fixed order and rows in the order of their keys, so that overlapping
  transactions wait for each other in one direction only.
* The ruleset that decided is still the active one, or the caller decides again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.events.catalog import OWN_SOURCE
from augury.routing.arrivals import Arrival
from augury.routing.dead_letters import buried
from augury.routing.decisions import Decision
from augury.routing.outcomes import Duplicate, write_outcomes
from augury.rules.ruleset import active_version
from augury.storage.database import Database
from augury.storage.tables import event_keys, events, outbox

DUPLICATE = "duplicate"
DUPLICATE_DIFFERS = "duplicate, payload differs"


class RulesetMovedError(Exception):
    """The decisions were made under a ruleset that is no longer the active one."""


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What one transaction did.

    Attributes:
        num_accepted: events that are new in the ledger, duplicates among them.
        num_known: deliveries that the ledger held already.
        num_outcomes: outcomes written.
        started: runs accepted and calls owed, per queue in which their first work waits.
        reused: known deliveries whose content is not what the ledger holds: the bus went back in
            time and gave an entry id twice.
    """

    num_accepted: int
    num_known: int
    num_outcomes: int
    started: Counter[str]
    reused: tuple[Arrival, ...]


def commit_batch(
    database: Database,
    connection: sa.Connection,
    decisions: Sequence[Decision],
    ruleset_version: int,
) -> Routed:
    """Writes everything that follows from `decisions`; does nothing outside `connection`.

    Args:
        database: for the dialect.
        connection: the transaction.
        decisions: in the stream's order (in which all routers insert), each delivery at most once.
        ruleset_version: under which they were made.

    Raises:
        RulesetMovedError: another ruleset is active; nothing was written.
    """
    if active_version(connection) != ruleset_version:
        raise RulesetMovedError
    write = _Write(database, connection)
    positions = write.events(decisions, ruleset_version)
    fresh = [decision for decision in decisions if decision.arrival.entry in positions]
    known = [decision.arrival for decision in decisions if decision.arrival.entry not in positions]
    duplicates = write.keys([decision.arrival for decision in fresh], positions)
    decided = [
        (positions[decision.arrival.entry], intent)
        for decision in fresh
        for intent in decision.intents
    ]
    started = write_outcomes(database, connection, decided, duplicates=duplicates)
    write.outbox_deletions([decision.arrival for decision in fresh])
    return Routed(
        num_accepted=len(fresh),
        num_known=len(known),
        num_outcomes=len(decided),
        started=started,
        reused=tuple(write.reused(known)),
    )


class _Write:
    """The steps of the transaction, in the order in which they must be called."""

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self._database = database
        self._connection = connection
        self._now: datetime = clock.utc_now()

    def events(
        self, decisions: Sequence[Decision], ruleset_version: int
    ) -> dict[tuple[str, str], int]:
        """Inserts events; gives the position of each that is new, by (incarnation, entry id)."""
        inserted = self._database.insert_new(
            self._connection,
            events,
            [_event_row(decision, ruleset_version) for decision in decisions],
            events.c.position,
            events.c.incarnation,
            events.c.entry_id,
        )
        positions = {(row.incarnation, row.entry_id): row.position for row in inserted}
        # only after the insert: from here on nobody can bury these (see dead_letters)
        for entry in buried(self._connection, positions):
            position = positions.pop(entry)
            self._connection.execute(sa.delete(events).where(events.c.position == position))
        return positions

    def keys(
        self, arrivals: Sequence[Arrival], positions: dict[tuple[str, str], int]
    ) -> dict[int, Duplicate]:
        """Remembers (source, id); gives each duplicate, by position."""
        first: dict[tuple[str, str], Arrival] = {}
        for arrival in arrivals:
            first.setdefault(arrival.key, arrival)
        rows = [
            {
                "source": source,
                "event_id": event_id,
                "position": positions[first[source, event_id].entry],
                "content_digest": first[source, event_id].content_digest,
                "seen_at": self._now,
            }
            for source, event_id in sorted(first)
        ]
        columns = (event_keys.c.source, event_keys.c.event_id)
        inserted = self._database.insert_new(self._connection, event_keys, rows, *columns)
        new = {(row.source, row.event_id) for row in inserted}
        again = [
            arrival
            for arrival in arrivals
            if arrival.key not in new or first[arrival.key] is not arrival
        ]
        return self._mark_duplicates(again, positions) if again else {}

    def _mark_duplicates(
        self, arrivals: Sequence[Arrival], positions: dict[tuple[str, str], int]
    ) -> dict[int, Duplicate]:
        originals = self._originals({arrival.key for arrival in arrivals})
        duplicates: dict[int, Duplicate] = {}
        marks = []
        for arrival in arrivals:
            original, content_digest = originals[arrival.key]
            position = positions[arrival.entry]
            same = content_digest == arrival.content_digest
            reason = DUPLICATE if same else DUPLICATE_DIFFERS
            duplicates[position] = Duplicate(original=original, reason=reason)
            marks.append({"at": position, "of": original})
        statement = sa.update(events).where(events.c.position == sa.bindparam("at"))
        self._connection.execute(statement.values(duplicate_of=sa.bindparam("of")), marks)
        return duplicates

    def _originals(
        self, keys: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[int, str]]:
        found: dict[tuple[str, str], tuple[int, str]] = {}
        for source, event_ids in _by_source(keys).items():
            rows = self._connection.execute(
                sa.select(
                    event_keys.c.event_id, event_keys.c.position, event_keys.c.content_digest
                ).where(event_keys.c.source == source, event_keys.c.event_id.in_(event_ids))
            )
            found |= {(source, row.event_id): (row.position, row.content_digest) for row in rows}
        return found

    def outbox_deletions(self, arrivals: Iterable[Arrival]) -> None:
        """Takes events of ours out of the outbox: the ledger holds them now."""
        ours = [arrival.key for arrival in arrivals if arrival.source.startswith(OWN_SOURCE)]
        for source, event_ids in sorted(_by_source(ours).items()):
            self._connection.execute(
                sa.delete(outbox).where(
                    outbox.c.source == source, outbox.c.event_id.in_(sorted(event_ids))
                )
            )

    def reused(self, known: Sequence[Arrival]) -> list[Arrival]:
        """Known deliveries that are not what the ledger knows under their entry id."""
        if not known:
            return []
        digests: dict[tuple[str, str], str] = {}
        for life in {arrival.delivery.incarnation for arrival in known}:
            entry_ids = [a.delivery.entry_id for a in known if a.delivery.incarnation == life]
            rows = self._connection.execute(
                sa.select(events.c.entry_id, events.c.content_digest).where(
                    events.c.incarnation == life, events.c.entry_id.in_(entry_ids)
                )
            )
            digests |= {(life, entry_id): content_digest for entry_id, content_digest in rows}
        return [a for a in known if digests.get(a.entry, a.content_digest) != a.content_digest]


def _by_source(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for source, event_id in keys:
        grouped.setdefault(source, []).append(event_id)
    return grouped


def _event_row(decision: Decision, ruleset_version: int) -> dict[str, Any]:
    arrival = decision.arrival
    return {
        "incarnation": arrival.delivery.incarnation,
        "entry_id": arrival.delivery.entry_id,
        "source": arrival.source,
        "event_id": arrival.event_id,
        "type": arrival.event_type,
        "subject": arrival.subject,
        "body": arrival.body,
        "content_digest": arrival.content_digest,
        "ruleset_version": ruleset_version,
        "matched": list(decision.matched),
        "accepted_at": arrival.accepted_at,
    }
