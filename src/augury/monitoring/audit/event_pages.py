"""The ledger's events, page by page, with everything that a check compares them with.

A page is read in one snapshot: its events, their outcomes, and the rows that these name. What was
routed is decided again here, from the stored body under the stored ruleset, once per event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.jobs.states import DeadLetterState
from augury.monitoring.audit.replays import AuditedReplay, audited_replays
from augury.monitoring.audit.rulesets import Rulesets, StoredRules
from augury.storage.database import Database
from augury.storage.tables import (
    archives,
    dead_letters,
    effects,
    event_keys,
    events,
    object_claims,
    outcomes,
    runs,
)

LIVE_EPOCH = "0"
_PAGE_ROWS = 500
_OBJECT = "object:"


@dataclass(frozen=True, slots=True)
class AuditedEvent:
    """One event with its evidence.

    Attributes:
        row: of `events`.
        key: of `event_keys` for its (source, id), if there is one.
        grave: of `dead_letters` for the same entry, if there is one.
        document: the body, decoded; None if it is no JSON object any more.
        rules: the ruleset it was routed under, or why that cannot be put together.
        matched: what the matcher says now; None without document or rules.
        outcomes: all of the event's, with `run_*`, `claim_outcome_id`, `effect_*` and
            `open_letters` of what belongs to them.
    """

    row: sa.Row[Any]
    key: sa.Row[Any] | None
    grave: sa.Row[Any] | None
    document: dict[str, Any] | None
    rules: StoredRules | str
    matched: list[str] | None
    outcomes: Sequence[sa.Row[Any]]

    @property
    def subject(self) -> str:
        """How a finding names it."""
        return f"event {self.row.position}"

    def expected_outcomes(self) -> set[tuple[str, str]] | None:
        """(rule id, action) of each outcome that there must be; None if that is unknown."""
        if self.matched is None or isinstance(self.rules, str):
            return None
        rules = self.rules
        return {(rule, action) for rule in self.matched for action in rules.actions(rule)}


@dataclass(frozen=True)
class EventPage:
    """Some events in ledger order.

    Attributes:
        originals: rows that duplicates of this page refer to, by position.
        archived_until: originals up to here may have left the ledger.
        replays: all of them, read in the page's snapshot.
        keys_since: keys of events accepted before this may have been forgotten.
    """

    events: Sequence[AuditedEvent]
    originals: Mapping[int, sa.Row[Any]]
    keys_since: datetime
    archived_until: int = 0
    replays: Sequence[AuditedReplay] = ()


def event_pages(
    database: Database, *, until: int, keys_since: datetime, after: int = 0
) -> Iterator[EventPage]:
    """Every event with `after` < position <= `until`, in bounded memory."""
    rulesets = Rulesets()
    while True:
        with database.read() as connection:
            first = connection.scalar(_next_position(after, until))
            if first is None:
                return
            after = min(first + _PAGE_ROWS - 1, until)
            rows = connection.execute(_events(first, after)).all()
            page = _page(connection, rows, rulesets, keys_since)
        yield page


def _page(
    connection: sa.Connection,
    rows: Sequence[sa.Row[Any]],
    rulesets: Rulesets,
    keys_since: datetime,
) -> EventPage:
    decided: dict[int, list[sa.Row[Any]]] = {}
    for outcome in connection.execute(_outcomes(rows[0].position, rows[-1].position)):
        decided.setdefault(outcome.position, []).append(outcome)
    keys = _found(
        connection, event_keys, ("source", "event_id"), ((r.source, r.event_id) for r in rows)
    )
    entries = ((row.incarnation, row.entry_id) for row in rows)
    graves = _found(connection, dead_letters, ("incarnation", "entry_id"), entries)
    audited = [
        _audited(
            row,
            keys.get((row.source, row.event_id)),
            graves.get((row.incarnation, row.entry_id)),
            rulesets.get(connection, row.ruleset_version),
            decided.get(row.position, ()),
        )
        for row in rows
    ]
    named = {row.duplicate_of for row in rows if row.duplicate_of is not None}
    found = connection.execute(_originals(named)).all() if named else []
    until = connection.scalar(sa.select(sa.func.max(archives.c.last_position))) or 0
    return EventPage(
        audited,
        {row.position: row for row in found},
        keys_since,
        until,
        audited_replays(connection),
    )


def _audited(
    row: sa.Row[Any],
    key: sa.Row[Any] | None,
    grave: sa.Row[Any] | None,
    rules: StoredRules | str,
    decided: Sequence[sa.Row[Any]],
) -> AuditedEvent:
    document = decode(row.body)
    matched = None
    if document is not None and not isinstance(rules, str):
        matched = rules.matched(document)
    return AuditedEvent(row, key, grave, document, rules, matched, decided)


def decode(body: str | bytes) -> dict[str, Any] | None:
    """An event's body as an object; None if it is none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _next_position(after: int, until: int) -> sa.Select[Any]:
    return sa.select(sa.func.min(events.c.position)).where(
        events.c.position > after, events.c.position <= until
    )


def _events(first: int, last: int) -> sa.Select[Any]:
    """A range of positions, not a number of rows: no database can read more than these."""
    return (
        sa.select(events)
        .where(events.c.position >= first, events.c.position <= last)
        .order_by(events.c.position)
    )


def _found(
    connection: sa.Connection,
    table: sa.Table,
    names: tuple[str, str],
    pairs: Iterable[tuple[str, str]],
) -> dict[tuple[str, str], sa.Row[Any]]:
    """Rows of `table` whose columns `names` are one of `pairs`.

    Not a join: without statistics PostgreSQL would read the whole table for every page. Not a list
    of pairs either: SQLite would do so always.
    """
    if connection.execute(sa.select(table).limit(1)).first() is None:
        return {}  # most often there is no dead letter at all
    grouped: dict[str, list[str]] = {}
    for first, second in pairs:
        grouped.setdefault(first, []).append(second)
    first_column, second_column = (table.c[name] for name in names)
    found: dict[tuple[str, str], sa.Row[Any]] = {}
    for first, seconds in grouped.items():
        select = sa.select(table).where(first_column == first, second_column.in_(seconds))
        for row in connection.execute(select):
            found[first, row._mapping[second_column]] = row
    return found


def _outcomes(first: int, last: int) -> sa.Select[Any]:
    claims = object_claims
    claim = (
        (claims.c.rule_id == outcomes.c.rule_id)
        & (claims.c.action == outcomes.c.action)
        & (claims.c.epoch == outcomes.c.epoch)
        & (claims.c.object_identity == sa.func.substr(outcomes.c.occurrence, len(_OBJECT) + 1))
        & outcomes.c.occurrence.startswith(_OBJECT)
    )
    letters = dead_letters
    open_letters = (
        sa.select(sa.func.count())
        .where(letters.c.outcome_id == outcomes.c.id, letters.c.state == DeadLetterState.OPEN)
        .scalar_subquery()
    )
    return (
        sa.select(
            outcomes,
            runs.c.id.label("run_found"),
            runs.c.outcome_id.label("run_outcome_id"),
            runs.c.position.label("run_position"),
            claims.c.outcome_id.label("claim_outcome_id"),
            effects.c.state.label("effect_state"),
            effects.c.attempts.label("effect_attempts"),
            effects.c.first_attempt_at.label("effect_first_attempt_at"),
            open_letters.label("open_letters"),
        )
        .select_from(
            outcomes.outerjoin(runs, runs.c.id == outcomes.c.run_id)
            .outerjoin(claims, claim)
            .outerjoin(effects, effects.c.id == outcomes.c.id)
        )
        .where(outcomes.c.position >= first, outcomes.c.position <= last)
        .order_by(outcomes.c.position)
    )


def _originals(positions: set[int]) -> sa.Select[Any]:
    return sa.select(
        events.c.position,
        events.c.source,
        events.c.event_id,
        events.c.content_digest,
        events.c.duplicate_of,
    ).where(events.c.position.in_(sorted(positions)))
