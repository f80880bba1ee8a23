"""Reading groups: what is open, what waits, and why an outcome is not decided yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury import clock
from augury.errors import NotFoundError
from augury.jobs.states import TERMINAL, GroupState, OutcomeState
from augury.routing.group_view import key_of
from augury.storage.tables import group_members, groups, lanes, rule_versions, rules, runs

if TYPE_CHECKING:
    from augury.routing.ledger import LedgerOutcome

_LISTED_MEMBERS = 1000


@dataclass(frozen=True, kw_only=True)
class Group:
    """Events that act together.

    Attributes:
        rule: name of the rule.
        key: values of its `group_by`.
        epoch: `0`, or the replay; ends in `~shadow` for a rule in shadow.
        state: see `jobs.states.GroupState`.
        due_at: when it closes if nothing else closes it; None: only an event does.
        why: what closed it.
        num_active: unfinished runs of this rule and key.
        max_active: how many there may be, as the rule says now; None: no limit.
        joined_into: the waiting group that acts for this one.
    """

    id: str
    rule_id: str
    rule: str
    rule_version: int
    action: str
    key: list[Any]
    epoch: str
    state: GroupState
    num_events: int
    size_bytes: int
    expected: int | None
    opened_at: datetime
    last_at: datetime
    due_at: datetime | None
    closed_at: datetime | None
    why: str | None
    num_active: int
    max_active: int | None
    joined_into: str | None
    run_id: str | None


@dataclass(frozen=True, kw_only=True)
class GroupMember:
    """An event in a group; `order` is its place in the stream."""

    position: int
    outcome_id: str
    order: str
    accepted_at: datetime
    uri: str | None
    tag: str | None
    size_bytes: int
    is_marker: bool


def list_groups(
    connection: sa.Connection,
    *,
    state: GroupState | None = None,
    rule: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[Group]:
    """Groups, newest first: by their first events, in the order of the stream.

    Args:
        connection: of the ledger's database.
        state: only those in this state.
        rule: only those of the rule with this name or id.
        limit: at most so many.
        before: only those older than the group of this id: the last one of the page before.

    Raises:
        NotFoundError: there is no group `before`.
    """
    select = _groups().order_by(groups.c.first_order.desc(), groups.c.id.desc()).limit(limit)
    if state is not None:
        select = select.where(groups.c.state == state)
    if rule is not None:
        select = select.where((rules.c.name == rule) | (rules.c.id == rule))
    if before is not None:
        row = connection.execute(sa.select(groups).where(groups.c.id == before)).one_or_none()
        if row is None:
            raise NotFoundError(f"no group with id {before!r}", kind="group", name=before)
        older = sa.tuple_(groups.c.first_order, groups.c.id) < sa.tuple_(
            sa.literal(row.first_order), sa.literal(row.id)
        )
        select = select.where(older)
    return [_group(row) for row in connection.execute(select)]


def show_group(connection: sa.Connection, group_id: str) -> tuple[Group, list[GroupMember]]:
    """One group with its members in the order of the stream, the first 1,000 of them.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.execute(_groups().where(groups.c.id == group_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no group with id {group_id!r}", kind="group", name=group_id)
    found = connection.execute(
        sa.select(group_members)
        .where(group_members.c.group_id == group_id)
        .order_by(group_members.c.entry_order, group_members.c.position)
        .limit(_LISTED_MEMBERS)
    )
    return _group(row), [
        GroupMember(
            position=member.position,
            outcome_id=member.outcome_id,
            order=member.entry_order,
            accepted_at=member.accepted_at,
            uri=member.uri,
            tag=member.tag,
            size_bytes=member.size_bytes,
            is_marker=member.is_marker,
        )
        for member in found
    ]


def with_groups(connection: sa.Connection, found: Sequence[LedgerOutcome]) -> list[LedgerOutcome]:
    """The outcomes with the group that each is in; one that waits for it says so as its reason."""
    wanted = [outcome.id for outcome in found]
    rows = {
        row.outcome_id: row.group_id
        for row in connection.execute(
            sa.select(group_members).where(group_members.c.outcome_id.in_(wanted))
        )
    }
    ids = {group_id for group_id in rows.values() if group_id is not None}
    known = {
        row.id: _group(row) for row in connection.execute(_groups().where(groups.c.id.in_(ids)))
    }
    return [
        replace(
            outcome,
            group_id=rows[outcome.id],
            reason=outcome.reason or _waits_for(outcome.state, known.get(rows[outcome.id] or "")),
        )
        if outcome.id in rows
        else outcome
        for outcome in found
    ]


def _waits_for(state: OutcomeState, group: Group | None) -> str | None:
    if group is None:
        return "will enter a group when everything before it is routed"
    if state is OutcomeState.PENDING:
        return f"in group {group.id}: {progress(group)}"
    if state is OutcomeState.QUEUED and group.state in (GroupState.QUEUED, GroupState.JOINED):
        of = "" if group.joined_into is None else f", which joined {group.joined_into},"
        return (
            f"group {group.id}{of} waits: {group.num_active} runs of this rule and key are active, "
            f"max_active is {group.max_active}"
        )
    return None


def progress(group: Group) -> str:
    """How far an open group is, and when it closes, in words."""
    of = "" if group.expected is None else f" of {group.expected}"
    noun = "event" if (group.expected or group.num_events) == 1 else "events"
    ends = "closes when complete" if group.due_at is None else f"closes {clock.iso(group.due_at)}"
    return f"{group.num_events}{of} {noun} so far, {ends}"


def _groups() -> sa.Select[Any]:
    slots = groups.alias("slots")
    active = (
        sa.select(sa.func.count())
        .select_from(slots.join(runs, runs.c.id == slots.c.run_id))
        .where(
            slots.c.lane_id == groups.c.lane_id,
            slots.c.slot_of.is_not(None),
            runs.c.state.not_in(TERMINAL),
        )
        .correlate(groups)
        .scalar_subquery()
    )
    return sa.select(
        groups,
        lanes.c.key,
        lanes.c.epoch,
        rules.c.name.label("rule"),
        rule_versions.c.spec.label("rule_spec"),
        active.label("num_active"),
    ).select_from(
        groups.join(lanes, lanes.c.id == groups.c.lane_id)
        .join(rules, rules.c.id == groups.c.rule_id)
        .join(
            rule_versions,
            (rule_versions.c.id == rules.c.id) & (rule_versions.c.version == rules.c.version),
        )
    )


def _group(row: sa.Row[Any]) -> Group:
    return Group(
        id=row.id,
        rule_id=row.rule_id,
        rule=row.rule,
        rule_version=row.rule_version,
        action=row.action,
        key=key_of(row.key),
        epoch=row.epoch,
        state=GroupState(row.state),
        num_events=row.num_events,
        size_bytes=row.size_bytes,
        expected=row.expected,
        opened_at=row.opened_at,
        last_at=row.last_at,
        due_at=row.due_at,
        closed_at=row.closed_at,
        why=row.why,
        num_active=row.num_active,
        max_active=row.rule_spec.get("max_active"),
        joined_into=row.joined_into,
        run_id=row.run_id,
    )
