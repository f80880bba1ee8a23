"""Moving old events out of the ledger, into files that are searched like it.

Two steps, and dying between or within them loses nothing. First the file: events that are older
than the setting says, in ledger order, are written to the object store, where the file is durable
and whole before its name is known to anybody. Then one transaction looks whether the rows are
still what the file holds, records the file, and deletes the rows. If they are not (an outcome
changed meanwhile) or another sweeper was faster, the file is removed and the next sweep begins
anew. A file of which nobody knows, because its writer died in between, is removed by the next
process that starts.

Events on which something is still open (an outcome, a dead letter of an action) stay in the
ledger; so does the newest event, for new positions follow from it. The keys (source, id) stay for
`duplicate_window_days` more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury import clock
from augury.errors import UnavailableError
from augury.ids import digest
from augury.jobs.states import OPEN_OUTCOMES, DeadLetterState
from augury.routing.archives import FOLDER, archived_until, list_archives, pack, read_archive
from augury.storage.objects import open_store
from augury.storage.tables import archives, dead_letters, effects, event_keys, events, outcomes

if TYPE_CHECKING:
    from augury.routing.archives import Archive
    from augury.settings import Settings
    from augury.storage.database import Database
    from augury.storage.objects import ObjectStore

_log = logging.getLogger(__name__)
_LOOK_S = 60.0
_ORPHAN_AGE_S = 3600.0
_DELETED_AT_ONCE = 500
# a file that is not full waits for more events, for a tenth of the time but not longer than a day
_PATIENCE = 0.1
_LONGEST_PATIENCE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What is to be moved: rows as they were read, and the range for which they stand."""

    first_position: int
    last_position: int
    rows: Sequence[sa.Row[Any]]
    decided: Mapping[int, Sequence[sa.Row[Any]]]

    @property
    def positions(self) -> list[int]:
        return [row.position for row in self.rows]


class Retention:
    """Keeps the ledger as long as the settings say, and no longer. Any number may run.

    Args:
        database: the ledger.
        settings: how long events stay, and where the archive is.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._looked_s: float | None = None
        self._is_clean = False

    def sweep(self) -> None:
        """Moves at most one file's events; looks about once a minute, and at once after a move.

        Raises:
            UnavailableError: database or store did not answer; the next sweep goes on.
        """
        now_s = clock.monotonic_s()
        if not self._settings.retain_events_days:
            return
        if self._looked_s is not None and now_s - self._looked_s < _LOOK_S:
            return
        if not self._is_clean:
            self._remove_orphans()
            self._is_clean = True
        if not self.archive_once():
            self._looked_s = now_s
            self.purge_keys()

    @property
    def _store(self) -> ObjectStore:
        return open_store(self._settings.effective_store_url, self._settings)

    def archive_once(self) -> bool:
        """Moves the oldest events to one file; False if there is nothing to move, or not yet.

        Raises:
            UnavailableError: database or store did not answer; nothing was deleted.
        """
        with self._database.read() as connection:
            chosen = self._chosen(connection)
        if chosen is None:
            return False
        data = pack(chosen.rows, chosen.decided)
        store, key = self._store, _key(chosen, data)
        store.put(key, data)
        row = _archive_row(chosen, store.uri(key), data)
        moved = self._database.transact(lambda c: _move(self._database, c, chosen, row))
        if not moved:
            self._withdraw(store, key)
        _log.info(
            "events %d to %d %s",
            chosen.first_position,
            chosen.last_position,
            "are in the archive" if moved else "changed while they were written",
            extra={"action": "events_archived", "num_events": len(chosen.rows), "moved": moved},
        )
        return moved

    def _withdraw(self, store: ObjectStore, key: str) -> None:
        """Removes a file that did not become part of the archive, unless it did by another hand."""
        with self._database.read() as connection:
            known = connection.scalar(
                sa.select(archives.c.uri).where(archives.c.uri == store.uri(key))
            )
        if known is None:
            with suppress(UnavailableError):
                store.delete(key)

    # --- what to move -----------------------------------------------------------------------------

    def _chosen(self, connection: sa.Connection) -> _Chosen | None:
        begin = archived_until(connection)
        newest = connection.scalar(sa.select(sa.func.max(events.c.position))) or 0
        retained = timedelta(days=self._settings.retain_events_days)
        cutoff = clock.utc_now() - retained
        most = self._settings.archive_events
        select = sa.select(events).where(events.c.position > begin, events.c.position < newest)
        rows = connection.execute(select.order_by(events.c.position).limit(most)).all()
        old = _beginning(rows, cutoff)
        patience = min(_PATIENCE * retained, _LONGEST_PATIENCE)
        if not old or (len(old) < most and old[0].accepted_at >= cutoff - patience):
            return None
        first, last = begin + 1, old[-1].position
        decided = _decided(connection, first, last)
        open_ones = _open_positions(connection, first, last)
        done = [row for row in old if row.position not in open_ones]
        return _Chosen(first_position=first, last_position=last, rows=done, decided=decided)

    # --- what is forgotten ------------------------------------------------------------------------

    def purge_keys(self) -> None:
        """Forgets (source, id) of archived events once the window of duplicates is over."""
        window = self._settings.duplicate_window_days + self._settings.retain_events_days
        before = clock.utc_now() - timedelta(days=window)
        with self._database.read() as connection:
            due = [
                file
                for file in list_archives(connection)
                if file.keys_purged_at is None and file.last_accepted_at < before
            ]
        for file in due:
            self._purge(file)

    def _purge(self, file: Archive) -> None:
        by_source: dict[str, list[str]] = {}
        for past in read_archive(file, self._settings):
            by_source.setdefault(past.event.source, []).append(past.event.event_id)
        for source, event_ids in sorted(by_source.items()):
            for start in range(0, len(event_ids), _DELETED_AT_ONCE):
                some = event_ids[start : start + _DELETED_AT_ONCE]
                self._database.transact(lambda c: _forget(c, file, source, some))  # noqa: B023
        purged = sa.update(archives).where(archives.c.first_position == file.first_position)
        self._database.transact(lambda c: c.execute(purged.values(keys_purged_at=clock.utc_now())))

    def _remove_orphans(self) -> None:
        """Removes files of which no row knows and that nobody can be writing any more."""
        store = self._store
        before = clock.utc_now() - timedelta(seconds=_ORPHAN_AGE_S)
        old = [info for info in store.list(FOLDER) if info.modified_at < before]
        with self._database.read() as connection:
            known = {file.uri for file in list_archives(connection)} if old else set()
        for info in old:
            if info.uri not in known:
                store.delete(info.key)


def _beginning(rows: Sequence[sa.Row[Any]], cutoff: datetime) -> Sequence[sa.Row[Any]]:
    """The rows before the first one that is too young."""
    young = (index for index, row in enumerate(rows) if row.accepted_at >= cutoff)
    return rows[: next(young, len(rows))]


def _decided(connection: sa.Connection, first: int, last: int) -> dict[int, list[sa.Row[Any]]]:
    order = (outcomes.c.position, outcomes.c.epoch, outcomes.c.rule_id, outcomes.c.action)
    select = sa.select(outcomes).where(outcomes.c.position.between(first, last)).order_by(*order)
    found: dict[int, list[sa.Row[Any]]] = {}
    for row in connection.execute(select):
        found.setdefault(row.position, []).append(row)
    return found


def _open_positions(connection: sa.Connection, first: int, last: int) -> set[int]:
    """Events on which something is not over yet: they stay."""
    waiting = sa.select(outcomes.c.position).where(
        outcomes.c.position.between(first, last), outcomes.c.state.in_(OPEN_OUTCOMES)
    )
    buried = (
        sa.select(outcomes.c.position)
        .join(dead_letters, dead_letters.c.outcome_id == outcomes.c.id)
        .where(
            outcomes.c.position.between(first, last),
            dead_letters.c.state == DeadLetterState.OPEN,
        )
    )
    return set(connection.scalars(sa.union(waiting, buried)))


def _key(chosen: _Chosen, data: bytes) -> str:
    span = f"{chosen.first_position:019d}-{chosen.last_position:019d}"
    return f"{FOLDER}{span}-{digest(data)[:16]}.parquet"


def _archive_row(chosen: _Chosen, uri: str, data: bytes) -> dict[str, Any]:
    accepted = [row.accepted_at for row in chosen.rows] or [clock.utc_now()]
    return {
        "first_position": chosen.first_position,
        "last_position": chosen.last_position,
        "num_events": len(chosen.rows),
        "num_outcomes": sum(len(chosen.decided.get(p, ())) for p in chosen.positions),
        "incarnations": dict(Counter(row.incarnation for row in chosen.rows)),
        "first_accepted_at": min(accepted),
        "last_accepted_at": max(accepted),
        "uri": uri,
        "digest": digest(data),
        "size_bytes": len(data),
        "created_at": clock.utc_now(),
    }


# --- the transaction ------------------------------------------------------------------------------


def _move(
    database: Database, connection: sa.Connection, chosen: _Chosen, row: dict[str, Any]
) -> bool:
    """Records the file and deletes its rows, if they still are what it holds."""
    if not database.is_sqlite:  # nobody routes into the range, nobody changes an outcome
        connection.execute(sa.text("LOCK TABLE events, outcomes IN SHARE ROW EXCLUSIVE MODE"))
    first, last = chosen.first_position, chosen.last_position
    if archived_until(connection) != first - 1 or not _is_unchanged(connection, chosen):
        return False
    connection.execute(sa.insert(archives).values(**row))
    kept = _open_positions(connection, first, last)
    moved = sa.and_(outcomes.c.position.between(first, last), outcomes.c.position.not_in(kept))
    connection.execute(
        sa.delete(effects).where(effects.c.id.in_(sa.select(outcomes.c.id).where(moved)))
    )
    connection.execute(sa.delete(outcomes).where(moved))
    connection.execute(
        sa.delete(events).where(
            events.c.position.between(first, last), events.c.position.not_in(kept)
        )
    )
    return True


def _is_unchanged(connection: sa.Connection, chosen: _Chosen) -> bool:
    """Whether events and outcomes are those that were read; every change of one moves its time."""
    first, last = chosen.first_position, chosen.last_position
    at = events.c.position
    present = set(connection.scalars(sa.select(at).where(at.between(first, last))))
    if present - _open_positions(connection, first, last) != set(chosen.positions):
        return False
    columns = (outcomes.c.position, outcomes.c.id, outcomes.c.state, outcomes.c.updated_at)
    select = sa.select(*columns).where(outcomes.c.position.between(first, last))
    moved = set(chosen.positions)
    found = {tuple(row) for row in connection.execute(select) if row.position in moved}
    return found == {
        (each.position, each.id, each.state, each.updated_at)
        for position in moved
        for each in chosen.decided.get(position, ())
    }


def _forget(
    connection: sa.Connection, file: Archive, source: str, event_ids: Sequence[str]
) -> None:
    connection.execute(
        sa.delete(event_keys).where(
            event_keys.c.source == source,
            event_keys.c.event_id.in_(event_ids),
            event_keys.c.position.between(file.first_position, file.last_position),
        )
    )
