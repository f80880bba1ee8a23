"""The archive: its files are those that were written, in unbroken order, and law 1 holds in them.

The files are read here with the audit's own eyes: nothing of what wrote them is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from augury.errors import AuguryError
from augury.ids import digest
from augury.monitoring.audit.check import Check, Finding, differences
from augury.monitoring.audit.event_checks import content_digest
from augury.monitoring.audit.event_pages import LIVE_EPOCH, decode
from augury.monitoring.audit.replays import AuditedReplay, Decided, audited_replays, compared
from augury.monitoring.audit.rulesets import Rulesets, StoredRules
from augury.storage.objects import locate
from augury.storage.tables import archives, events, outcomes

if TYPE_CHECKING:
    from augury.settings import Settings
    from augury.storage.database import Database


@dataclass(frozen=True)
class ArchiveRanges:
    """All rows of `archives` in the order of their ranges, and the ledger's last position."""

    rows: Sequence[sa.Row[Any]]


@dataclass(frozen=True)
class ArchiveFile:
    """One file with what its row says of it.

    Attributes:
        row: of `archives`.
        fault: why the file cannot be used; empty if it can.
        events: its rows; those of `outcomes` as JSON objects.
        twice: its positions that are in the ledger, too.
        rules: the rulesets that its events name, or why one cannot be put together.
        replays: all of them, and `later`, what they left in the ledger at these positions since.
    """

    row: sa.Row[Any]
    fault: str = ""
    events: Sequence[dict[str, Any]] = ()
    twice: Sequence[int] = ()
    rules: Mapping[int, StoredRules | str] = field(default_factory=dict)
    replays: Sequence[AuditedReplay] = ()
    later: Mapping[int, Sequence[Decided]] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """How a finding names it."""
        return f"archive {self.row.first_position} to {self.row.last_position}"


def archived_until(connection: sa.Connection) -> int:
    """The last position that left the ledger; 0 if none did."""
    return connection.scalar(sa.select(sa.func.max(archives.c.last_position))) or 0


def archived_entries(connection: sa.Connection, incarnations: Sequence[str]) -> int:
    """Number of archived events of these lives of the bus."""
    counted = connection.scalars(sa.select(archives.c.incarnations)).all()
    return sum(found.get(life, 0) for found in counted for life in incarnations)


def archive_ranges(database: Database) -> ArchiveRanges:
    """Every file's row."""
    with database.read() as connection:
        select = sa.select(archives).order_by(archives.c.first_position)
        return ArchiveRanges(connection.execute(select).all())


def archive_files(database: Database, settings: Settings) -> Iterator[ArchiveFile]:
    """Every file, read and decoded, one after the other.

    Raises:
        UnavailableError: the database did not answer; a store that does not is a finding.
    """
    rulesets = Rulesets()
    for row in archive_ranges(database).rows:
        try:
            store, key = locate(row.uri, settings)
            data = store.read(key)
            found = digest(data)
            if found != row.digest:
                yield ArchiveFile(row, f"digest={found}")
                continue
            yield _opened(database, row, data, rulesets)
        except AuguryError as error:
            yield ArchiveFile(row, error.message)


def _opened(database: Database, row: sa.Row[Any], data: bytes, rulesets: Rulesets) -> ArchiveFile:
    from pyarrow import parquet as pq

    found = pq.read_table(BytesIO(data)).to_pylist()
    for event in found:
        event["outcomes"] = [msgspec.json.decode(text) for text in event["outcomes"]]
    at = events.c.position
    with database.read() as connection:
        between = sa.select(at).where(at.between(row.first_position, row.last_position))
        live = set(connection.scalars(between))
        versions = {event["ruleset_version"] for event in found}
        rules = {version: rulesets.get(connection, version) for version in versions}
        replays = audited_replays(connection)
        later = _later(connection, row)
    twice = [event["position"] for event in found if event["position"] in live]
    return ArchiveFile(row, "", found, twice, rules, replays, later)


def _later(connection: sa.Connection, row: sa.Row[Any]) -> dict[int, list[Decided]]:
    """What the ledger's outcomes say of the range of a file: only replays can have written them."""
    columns = (outcomes.c.position, outcomes.c.epoch, outcomes.c.rule_id, outcomes.c.action)
    at = outcomes.c.position.between(row.first_position, row.last_position)
    found: dict[int, list[Decided]] = {}
    for position, *decided in connection.execute(sa.select(*columns).where(at)):
        found.setdefault(position, []).append((decided[0], decided[1], decided[2]))
    return found


# --- checks ---------------------------------------------------------------------------------------


def _range(page: ArchiveRanges) -> Iterator[Finding]:
    following = 1
    for row in page.rows:
        subject = f"archive {row.first_position} to {row.last_position}"
        if row.first_position != following:
            expected = f"to begin at {following}, where the one before ends"
            yield Finding(subject, expected, f"first_position={row.first_position}")
        following = row.last_position + 1


def _file(page: ArchiveFile) -> Iterator[Finding]:
    if page.fault:
        yield Finding(page.subject, f"digest={page.row.digest} at {page.row.uri}", page.fault)


def _content(page: ArchiveFile) -> Iterator[Finding]:
    if page.fault:
        return
    said = {
        "num_events": len(page.events),
        "num_outcomes": sum(len(event["outcomes"]) for event in page.events),
        "incarnations": dict(Counter(event["incarnation"] for event in page.events)),
    }
    expected, found = differences(said, page.row._mapping)
    if found:
        yield Finding(page.subject, f"what its file holds: {expected}", found)
    positions = [event["position"] for event in page.events]
    inside = all(page.row.first_position <= p <= page.row.last_position for p in positions)
    if positions != sorted(set(positions)) or not inside:
        yield Finding(page.subject, "positions in order, within its range", "others")
    for position in page.twice:
        yield Finding(f"event {position}", "in the ledger or in the archive", "in both")


def _law(page: ArchiveFile) -> Iterator[Finding]:
    """Law 1 for events that left the ledger: matched again, one outcome for each action."""
    for event in page.events:
        subject = f"archived event {event['position']}"
        document, rules = decode(event["body"]), page.rules[event["ruleset_version"]]
        if document is None or content_digest(document) != event["content_digest"]:
            yield Finding(subject, f"a body of digest {event['content_digest']}", "another")
            continue
        if isinstance(rules, str):
            yield Finding(subject, "its ruleset to be readable", rules)
            continue
        yield from _decided(subject, event, rules, document)


def _decided(
    subject: str, event: dict[str, Any], rules: StoredRules, document: Mapping[str, Any]
) -> Iterator[Finding]:
    matched = rules.matched(document)
    if matched != event["matched"]:
        yield Finding(subject, f"matched={matched}", f"matched={event['matched']}")
    expected = sorted((rule, action) for rule in matched for action in rules.actions(rule))
    found = sorted(
        (outcome["rule_id"], outcome["action"])
        for outcome in event["outcomes"]
        if outcome["epoch"] == LIVE_EPOCH
    )
    if found != expected:
        yield Finding(subject, f"one outcome for each of {expected}", f"{found}")


def _replayed(page: ArchiveFile) -> Iterator[Finding]:
    for event in page.events if page.replays else ():
        document = decode(event["body"])
        if document is None:
            continue
        position = event["position"]
        at = (position, event["accepted_at"], document)
        decided = [(o["epoch"], o["rule_id"], o["action"]) for o in event["outcomes"]]
        decided += page.later.get(position, ())
        yield from compared(page.replays, f"archived event {position}", at, decided)


_RESTORE = (
    "the archive was changed by something other than Augury, or is damaged: put the file or the "
    "row back from a backup, and report a bug if nobody touched it"
)

RANGE_CHECKS: tuple[Check[ArchiveRanges], ...] = (
    Check(name="archive_range", examine=_range, advice=_RESTORE),
)
FILE_CHECKS: tuple[Check[ArchiveFile], ...] = (
    Check(
        name="archive_file",
        examine=_file,
        advice="events of this range cannot be shown or replayed: restore the file from a backup "
        "of the store; nothing in the ledger can make it again",
    ),
    Check(name="archive_content", examine=_content, advice=_RESTORE),
    Check(
        name="archive_replay",
        examine=_replayed,
        advice="see what the rule should have made of this event (`augury explain POSITION RULE`); "
        "start the missing run by hand or delete the one too many, and report a bug",
    ),
    Check(
        name="archive_law",
        examine=_law,
        advice="what became of this event is not what its rules say: compare with a backup, and "
        "report a bug if nobody touched the archive",
    ),
)
