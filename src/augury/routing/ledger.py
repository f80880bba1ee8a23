"""Reading the ledger: events, their outcomes, and how many there are of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.jobs.states import OutcomeState
from augury.routing.dead_letters import ENTRY
from augury.storage.tables import dead_letters, events, outcomes, rules


@dataclass(frozen=True, kw_only=True)
class LedgerEvent:
    """One accepted event as it was routed.

    Attributes:
        position: its place in the ledger; grows, but with gaps.
        document: the event in structured form.
        matched: ids of the rules that matched, sorted.
        duplicate_of: position of the first event with the same (source, id), or None.
        ruleset_version: under which it was matched; 0 if there were no rules.
    """

    position: int
    incarnation: str
    entry_id: str
    source: str
    event_id: str
    type: str
    subject: str | None
    document: dict[str, Any]
    content_digest: str
    ruleset_version: int
    matched: tuple[str, ...]
    duplicate_of: int | None
    accepted_at: datetime


_EVENT_FIELDS = tuple(each.name for each in fields(LedgerEvent) if each.name != "document")


@dataclass(frozen=True, kw_only=True)
class LedgerOutcome:
    """What one action of one rule made of one event.

    Attributes:
        group_id: the group that the event is in; told where one event is shown.
    """

    id: str
    position: int
    rule_id: str
    rule_version: int
    action: str
    epoch: str
    state: OutcomeState
    reason: str | None
    occurrence: str | None
    run_id: str | None
    created_at: datetime
    updated_at: datetime
    group_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are wanted; what is None does not matter.

    Attributes:
        type: exact type; one that ends in `*` stands for all that begin so.
        source: exact source.
        rule_id: only events that this rule matched, when they were routed or in a replay.
        since: accepted then or later.
        until: accepted before (exclusive).
        outcome: only events with an outcome in this state; together with `rule_id` one of the
            rule's.
    """

    type: str | None = None
    source: str | None = None
    rule_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outcome: OutcomeState | None = None

    def where(self) -> list[sa.ColumnElement[bool]]:
        """The same as conditions on `events`."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.type is not None and self.type.endswith("*"):
            conditions.append(events.c.type.startswith(self.type[:-1], autoescape=True))
        elif self.type is not None:
            conditions.append(events.c.type == self.type)
        if self.source is not None:
            conditions.append(events.c.source == self.source)
        if self.since is not None:
            conditions.append(events.c.accepted_at >= self.since)
        if self.until is not None:
            conditions.append(events.c.accepted_at < self.until)
        if self.rule_id is not None or self.outcome is not None:
            conditions.append(self._has_outcome())
        return conditions

    def _has_outcome(self) -> sa.ColumnElement[bool]:
        wanted = [outcomes.c.position == events.c.position]
        if self.rule_id is not None:
            wanted.append(outcomes.c.rule_id == self.rule_id)
        if self.outcome is not None:
            wanted.append(outcomes.c.state == self.outcome)
        return sa.exists().where(*wanted)

    def holds(self, event: LedgerEvent, decided: Iterable[LedgerOutcome]) -> bool:
        """The same for one event that is at hand."""
        return (
            self._has_type(event.type)
            and self.source in (None, event.source)
            and (self.since is None or event.accepted_at >= self.since)
            and (self.until is None or event.accepted_at < self.until)
            and (self.rule_id is self.outcome is None or any(map(self._is_wanted, decided)))
        )

    def _has_type(self, found: str) -> bool:
        if self.type is not None and self.type.endswith("*"):
            return found.startswith(self.type[:-1])
        return self.type in (None, found)

    def _is_wanted(self, outcome: LedgerOutcome) -> bool:
        return self.rule_id in (None, outcome.rule_id) and self.outcome in (None, outcome.state)


EVERYTHING = EventFilter()


def list_events(
    connection: sa.Connection,
    wanted: EventFilter = EVERYTHING,
    *,
    limit: int = 100,
    before: int | None = None,
    after: int | None = None,
) -> list[LedgerEvent]:
    """Events of the ledger itself, newest first; `history.History` also knows the archive.

    Args:
        connection: of the ledger's database.
        wanted: which ones.
        limit: most events to return.
        before: only positions smaller than this one; None: from the newest.
        after: only positions greater than this one, and then the oldest first.
    """
    order = events.c.position.desc() if after is None else events.c.position
    select = sa.select(events).where(*wanted.where()).order_by(order).limit(limit)
    if before is not None:
        select = select.where(events.c.position < before)
    if after is not None:
        select = select.where(events.c.position > after)
    return [event_of(row._mapping) for row in connection.execute(select)]


def find_event(connection: sa.Connection, position_or_id: int | str) -> LedgerEvent | None:
    """One event of the ledger itself; None if it holds none such.

    Args:
        connection: of the ledger's database.
        position_or_id: ledger position (a number, also as text), or the event's id; of several
            events with one id, the first accepted one.
    """
    text = str(position_or_id)
    row = None
    if text.isdecimal() and len(text) < 19:
        at = sa.select(events).where(events.c.position == int(text))
        row = connection.execute(at).one_or_none()
    if row is None:
        by_id = sa.select(events).where(events.c.event_id == text)
        row = connection.execute(by_id.order_by(events.c.position).limit(1)).one_or_none()
    return None if row is None else event_of(row._mapping)


def outcomes_at(
    connection: sa.Connection, positions: Sequence[int]
) -> dict[int, list[LedgerOutcome]]:
    """All outcomes of some events, by position, in the order of rules and actions."""
    found: dict[int, list[LedgerOutcome]] = {}
    columns = (outcomes.c.position, outcomes.c.epoch, outcomes.c.rule_id, outcomes.c.action)
    select = sa.select(outcomes).where(outcomes.c.position.in_(positions)).order_by(*columns)
    for row in connection.execute(select) if positions else ():
        found.setdefault(row.position, []).append(outcome_of(row._mapping))
    return found


def list_outcomes(
    connection: sa.Connection,
    *,
    position: int | None = None,
    rule_id: str | None = None,
    state: OutcomeState | None = None,
    run_id: str | None = None,
    limit: int = 1000,
    before: int | None = None,
) -> list[LedgerOutcome]:
    """Outcomes, of the newest events first, at most `limit`, of positions smaller than `before`."""
    wanted = {"position": position, "rule_id": rule_id, "state": state, "run_id": run_id}
    select = sa.select(outcomes).limit(limit)
    select = select.order_by(outcomes.c.position.desc(), outcomes.c.rule_id, outcomes.c.action)
    for name, value in wanted.items():
        if value is not None:
            select = select.where(outcomes.c[name] == value)
    if before is not None:
        select = select.where(outcomes.c.position < before)
    return [outcome_of(row._mapping) for row in connection.execute(select)]


def rule_names(connection: sa.Connection, rule_ids: Collection[str]) -> dict[str, str]:
    """Names of rules, deleted ones among them, by id."""
    select = sa.select(rules.c.id, rules.c.name).where(rules.c.id.in_(sorted(rule_ids)))
    return {row.id: row.name for row in connection.execute(select)}


def count_outcomes(
    connection: sa.Connection, *, rule_id: str | None = None
) -> dict[OutcomeState, int]:
    """Number of outcomes in each state that occurs; of one rule, or of all."""
    select = sa.select(outcomes.c.state, sa.func.count()).group_by(outcomes.c.state)
    if rule_id is not None:
        select = select.where(outcomes.c.rule_id == rule_id)
    return {OutcomeState(state): count for state, count in connection.execute(select)}


def count_events(connection: sa.Connection) -> dict[str, int]:
    """`accepted` events, `duplicates` among them, and entries in `dead_letters` beside them."""

    def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0

    return {
        "accepted": count(events),
        "duplicates": count(events, events.c.duplicate_of.is_not(None)),
        "dead_letters": count(dead_letters, dead_letters.c.kind == ENTRY),
    }


def event_of(row: Mapping[Any, Any]) -> LedgerEvent:
    """A row of `events`, of the table or of a file, as a value."""
    values = {name: row[name] for name in _EVENT_FIELDS}
    document = msgspec.json.decode(row["body"])
    return LedgerEvent(**{**values, "matched": tuple(row["matched"])}, document=document)


def outcome_of(row: Mapping[Any, Any]) -> LedgerOutcome:
    """A row of `outcomes`, of the table or of a file, as a value."""
    return LedgerOutcome(**{**row, "state": OutcomeState(row["state"])})
