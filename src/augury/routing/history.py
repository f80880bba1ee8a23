"""Everything that was ever accepted: the ledger and its archive as one.

Each page is read in one snapshot that says which positions the archive holds, so an event that
moves while somebody reads is seen exactly once: in the table or in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury.errors import NotFoundError
from augury.routing.archives import (
    Archive,
    PastEvent,
    archived_until,
    list_archives,
    read_archive,
)
from augury.routing.groups import with_groups
from augury.routing.ledger import (
    EVERYTHING,
    EventFilter,
    LedgerEvent,
    find_event,
    list_events,
    outcomes_at,
)
from augury.storage.tables import events

if TYPE_CHECKING:
    from augury.settings import Settings
    from augury.storage.database import Database

PAGE_EVENTS = 500


class History:
    """Past events, from wherever they are.

    Args:
        database: the ledger.
        settings: how the store of the archive is reached.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def newest(self) -> int:
        """The last position that was ever given to an event; 0 if none was."""
        with self._database.read() as connection:
            newest = connection.scalar(sa.select(sa.func.max(events.c.position))) or 0
            return max(newest, archived_until(connection))

    def pages(
        self, wanted: EventFilter = EVERYTHING, *, after: int = 0, until: int | None = None
    ) -> Iterator[tuple[int, list[PastEvent]]]:
        """Events in the order of the ledger.

        Args:
            wanted: which ones; pages may hold none that is.
            after: only positions greater than this one.
            until: and not greater than this one; None: than the newest one now.

        Yields:
            (position up to which everything has been looked at, the events of the page).

        Raises:
            CorruptError, NotFoundError, UnavailableError: a file of the archive cannot be read.
        """
        last = self.newest() if until is None else until
        while after < last:
            after, found = self._page(wanted, after, last)
            yield after, found

    def _page(self, wanted: EventFilter, after: int, last: int) -> tuple[int, list[PastEvent]]:
        with self._database.read() as connection:
            files = list_archives(connection, after=after, limit=1)
            if not files:
                return _live_page(connection, wanted, after, last)
            kept = _kept_behind(connection, files[0])
        past = sorted(
            [*read_archive(files[0], self._settings), *kept], key=lambda each: each.event.position
        )
        ahead = [each for each in past if after < each.event.position <= last]
        page = ahead[:PAGE_EVENTS]
        whole = len(page) == len(ahead)
        reached = min(files[0].last_position, last) if whole else page[-1].event.position
        return reached, self._completed([e for e in page if wanted.holds(e.event, e.outcomes)])

    def latest(
        self, wanted: EventFilter = EVERYTHING, *, limit: int = 100, before: int | None = None
    ) -> Sequence[PastEvent]:
        """Events, newest first, at most `limit`, at positions smaller than `before`.

        What is in the archive is looked at only if the ledger itself does not fill the list.
        """
        with self._database.read() as connection:
            live = list_events(connection, wanted, limit=limit, before=before)
            files = list_archives(connection, before=before, newest_first=True)
            found = _with_outcomes(connection, live)
        if files and (len(live) < limit or live[-1].position <= files[0].last_position):
            found += self._archived(files, wanted, limit, before)
            found.sort(key=lambda each: -each.event.position)
        return self._completed(found[:limit])

    def _archived(
        self, files: Sequence[Archive], wanted: EventFilter, limit: int, before: int | None
    ) -> list[PastEvent]:
        found: list[PastEvent] = []
        for file in files:
            if len(found) >= limit or (wanted.since and file.last_accepted_at < wanted.since):
                break
            found += [
                past
                for past in reversed(read_archive(file, self._settings))
                if (before is None or past.event.position < before)
                and wanted.holds(past.event, past.outcomes)
            ]
        return found

    def show(self, position_or_id: int | str) -> PastEvent:
        """One event with its outcomes.

        Args:
            position_or_id: position in the ledger, or the event's id; of several events with one
                id the first accepted one. Looking for an id in the archive reads all of it.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            event = find_event(connection, position_or_id)
            if event is not None:
                (past,) = _with_outcomes(connection, [event])
                return replace(past, outcomes=tuple(with_groups(connection, past.outcomes)))
            files = list_archives(connection)
        text = str(position_or_id)
        for past in self._candidates(files, text):
            if text in (str(past.event.position), past.event.event_id):
                return self._completed([past])[0]
        raise NotFoundError(f"no event at position or with id {text!r}", event=text)

    def _candidates(self, files: Sequence[Archive], text: str) -> Iterator[PastEvent]:
        """First the file whose range holds the position, if it may be one; then all of them."""
        position = int(text) if text.isdecimal() and len(text) < 19 else -1
        for file in sorted(
            files, key=lambda file: not file.first_position <= position <= file.last_position
        ):
            yield from read_archive(file, self._settings)

    def _completed(self, found: Sequence[PastEvent]) -> list[PastEvent]:
        """Adds what replays made of archived events since: that is in the ledger."""
        archived = [past.event.position for past in found if past.is_archived]
        if not archived:
            return list(found)
        with self._database.read() as connection:
            later = outcomes_at(connection, archived)
        return [
            PastEvent(
                event=past.event,
                outcomes=(*past.outcomes, *later.get(past.event.position, ())),
                is_archived=True,
            )
            if past.is_archived
            else past
            for past in found
        ]


def _live_page(
    connection: sa.Connection, wanted: EventFilter, after: int, last: int
) -> tuple[int, list[PastEvent]]:
    """A page of the table. It ends where its last event is, or at the end of all of them."""
    found = list_events(connection, wanted, limit=PAGE_EVENTS, after=after, before=last + 1)
    reached = found[-1].position if len(found) == PAGE_EVENTS else last
    return reached, _with_outcomes(connection, found)


def _kept_behind(connection: sa.Connection, file: Archive) -> list[PastEvent]:
    """Events of a file's range on which something was still open when it was written."""
    found = list_events(
        connection,
        limit=file.last_position,
        after=file.first_position - 1,
        before=file.last_position + 1,
    )
    return _with_outcomes(connection, found)


def _with_outcomes(connection: sa.Connection, found: Sequence[LedgerEvent]) -> list[PastEvent]:
    decided = outcomes_at(connection, [event.position for event in found])
    return [
        PastEvent(event=event, outcomes=tuple(decided.get(event.position, ()))) for event in found
    ]
