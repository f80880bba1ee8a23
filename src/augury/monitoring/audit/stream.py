"""The stream against the ledger: what the bus took and has let go of must be somewhere.

Order makes a running system safe to look at: first what the group has not settled, then the
ledger. What was settled at the first look was committed before it, so the second look sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from augury.bus.port import Bus, BusStatus, Delivery
from augury.monitoring.audit.archive_checks import archived_entries, archived_until
from augury.monitoring.audit.check import Check, Finding, shown
from augury.monitoring.audit.event_checks import content_digest
from augury.monitoring.audit.event_pages import decode
from augury.storage.database import Database
from augury.storage.tables import bus_incidents, dead_letters, event_keys, events

_PAGE_ENTRIES = 1000


@dataclass(frozen=True)
class StreamPage:
    """Some entries that the stream still holds and that the group has settled.

    Attributes:
        num_entries: entries looked at, unsettled ones among them.
        routed: content digest in the ledger, by (incarnation, entry id).
        buried: (incarnation, entry id) of dead letters.
    """

    settled: Sequence[Delivery]
    num_entries: int
    routed: Mapping[tuple[str, str], str]
    buried: frozenset[tuple[str, str]]


def stream_pages(database: Database, bus: Bus, *, num_entries: int) -> Iterator[StreamPage]:
    """The stream's first `num_entries` entries; those published meanwhile are left out."""
    after_id, left = "", num_entries
    while left > 0:
        entries = bus.entries(after_id, min(left, _PAGE_ENTRIES))
        if not entries:
            return
        yield _page(database, bus, entries)
        after_id, left = entries[-1].entry_id, left - len(entries)


def _page(database: Database, bus: Bus, entries: Sequence[Delivery]) -> StreamPage:
    unsettled = bus.unsettled([entry.entry_id for entry in entries])
    settled = [entry for entry in entries if entry.entry_id not in unsettled]
    routed: dict[tuple[str, str], str] = {}
    buried: set[tuple[str, str]] = set()
    with database.read() as connection:
        for life in {entry.incarnation for entry in settled}:
            ids = [entry.entry_id for entry in settled if entry.incarnation == life]
            routed |= _routed(connection, life, ids)
            buried |= _buried(connection, life, ids)
        missing = [entry for entry in settled if _entry(entry) not in routed.keys() | buried]
        archived = _archived(connection, missing) if missing else set()
    settled = [entry for entry in settled if _entry(entry) not in archived]
    return StreamPage(settled, len(entries), routed, frozenset(buried))


def _entry(entry: Delivery) -> tuple[str, str]:
    return entry.incarnation, entry.entry_id


def _archived(connection: sa.Connection, missing: Sequence[Delivery]) -> set[tuple[str, str]]:
    """Entries that outlived their event: what is known of its (source, id) lies in the archive."""
    until, found = archived_until(connection), set()
    for entry in missing if until else ():
        document = decode(entry.body) or {}
        position = connection.scalar(
            sa.select(event_keys.c.position).where(
                event_keys.c.source == str(document.get("source")),
                event_keys.c.event_id == str(document.get("id")),
            )
        )
        if position is not None and position <= until:
            found.add(_entry(entry))
    return found


def _routed(
    connection: sa.Connection, life: str, entry_ids: Sequence[str]
) -> dict[tuple[str, str], str]:
    rows = connection.execute(
        sa.select(events.c.entry_id, events.c.content_digest).where(
            events.c.incarnation == life, events.c.entry_id.in_(entry_ids)
        )
    )
    return {(life, row.entry_id): row.content_digest for row in rows}


def _buried(connection: sa.Connection, life: str, entry_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Dead letters of these entries; a reused entry id has them under a life of its own."""
    same_life = (dead_letters.c.incarnation == life) | dead_letters.c.incarnation.startswith(
        f"{life[:40]}~", autoescape=True
    )
    rows = connection.scalars(
        sa.select(dead_letters.c.entry_id).where(same_life, dead_letters.c.entry_id.in_(entry_ids))
    )
    return {(life, entry_id) for entry_id in rows}


def _entries(page: StreamPage) -> Iterator[Finding]:
    for entry in page.settled:
        key = _entry(entry)
        if key not in page.routed and key not in page.buried:
            expected = "acknowledged, so in `events` or `dead_letters`"
            yield Finding(f"entry {entry.entry_id}", expected, f"in neither: {shown(entry.body)}")


def _bodies(page: StreamPage) -> Iterator[Finding]:
    for entry in page.settled:
        key = _entry(entry)
        document = decode(entry.body)
        if document is None or key not in page.routed or key in page.buried:
            continue
        published = content_digest(document)
        if published != page.routed[key]:
            expected = f"the published event: content_digest={published}"
            yield Finding(f"entry {entry.entry_id}", expected, page.routed[key])


@dataclass(frozen=True)
class StreamCount:
    """How many entries the server counts, and how many of them are accounted for.

    Attributes:
        status: of the bus, read before the ledger.
        recorded: entries of this life in `events`, its archive, and `dead_letters`.
        trimmed: entries of this life that an incident names as deleted before they were routed.
        named: entries that are in the stream and not in the ledger: reported one by one.
    """

    status: BusStatus
    recorded: int
    trimmed: int
    named: int

    @property
    def accounted(self) -> int:
        """Entries that somebody says something about."""
        return self.recorded + self.trimmed + self.named


def count_stream(
    database: Database, status: BusStatus, incarnation: str, *, named: int
) -> StreamCount:
    """Counts what the ledger has of this life of the bus; `status` must have been read before."""
    with database.read() as connection:
        recorded = sum(
            connection.scalar(
                sa.select(sa.func.count())
                .select_from(table)
                # entries that somebody else wrote carry no life
                .where(table.c.incarnation.in_([incarnation, ""]))
            )
            or 0
            for table in (events, dead_letters)
        )
        recorded += archived_entries(connection, [incarnation, ""])
        trimmed = connection.scalars(
            sa.select(bus_incidents.c.detail).where(bus_incidents.c.kind == "TRIMMED")
        ).all()
    gone = {
        entry_id
        for detail in trimmed
        if detail.get("incarnation") == incarnation
        for entry_id in detail.get("entry_ids", ())
    }
    return StreamCount(status, recorded, len(gone), named)


def _count(count: StreamCount) -> Iterator[Finding]:
    status = count.status
    settled = status.num_added - status.pending - status.lag
    if settled > count.accounted:
        expected = (
            f"at least {settled} entries in the ledger ({status.num_added} were added, "
            f"{status.pending} are pending, {status.lag} unread)"
        )
        yield Finding("stream", expected, f"{count.accounted}")


_LOST = (
    "an event was accepted and nobody decided it: publish it again (the report shows it if the "
    "stream still has it), see who else acknowledges or deletes entries of this stream, and "
    "report a bug if nobody does"
)

STREAM_CHECKS: tuple[Check[StreamPage], ...] = (
    Check(name="stream_entry", examine=_entries, advice=_LOST),
    Check(
        name="stream_body",
        examine=_bodies,
        advice="the ledger does not hold what was published: it was changed by something other "
        "than Augury, or is damaged; compare with a backup",
    ),
)
COUNT_CHECKS: tuple[Check[StreamCount], ...] = (
    Check(name="stream_count", examine=_count, advice=_LOST),
)
