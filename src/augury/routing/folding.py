"""The fold of `rules.grouping`, from the members that a lane has in the database and back to it.

Whoever calls this holds the lane's row. What is read and written is proportional to the members
that are new, not to the groups: of an open group the sums are kept, its members only where the
kind of the group looks at each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.jobs.states import GroupState, OutcomeState
from augury.routing.rule_versions import RuleVersions
from augury.rules.grouping import Closed, Member, Open, Policy, Progress, advance, deadline
from augury.storage.tables import group_members, groups, lanes, outcomes

MOST_AT_ONCE = 2000
TOO_FEW = "fewer events came within the time than the rule asks for"
IN_TIME = "the next event came in time"
NOT_LISTENING = "the rule was disabled before the silence was long enough"


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """What the stream has passed for good: no event at or before it is still to be routed.

    Attributes:
        order: everything before this place in the stream is in the ledger, and nothing will be
            put there.
        at: no event will be accepted before this instant.
    """

    order: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedGroup:
    """A group that this fold closed; its row is there, its action is still to be decided."""

    id: str
    action: str
    rule_version: int
    closed: Closed


def group_id(lane_id: str, action: str, first: str) -> str:
    """Identity of a group: the same stream gives the same, whoever folds."""
    return ids.derived_id("grp", lane_id, action, first)


def settle(
    connection: sa.Connection, names: Collection[str], state: OutcomeState, reason: str | None
) -> None:
    """Gives outcomes that are open their state."""
    connection.execute(
        sa.update(outcomes)
        .where(outcomes.c.id.in_(sorted(names)))
        .values(state=state, reason=reason, updated_at=clock.utc_now())
    )


class LaneFold:
    """Folds what a lane has; `more` is True if there is more than one call takes.

    Args:
        connection: the transaction that holds the lane's row.
        lane: that row.
        passed: how far.
        rules: where policies come from.
        listens: False if the rule is disabled: then no silence is heard.
    """

    def __init__(
        self,
        connection: sa.Connection,
        lane: Any,
        passed: Passed,
        rules: RuleVersions,
        *,
        listens: bool,
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._rules = rules
        self._listens = listens
        rows = connection.execute(_unfolded(lane.id, passed.order)).all()
        self.more = len(rows) > MOST_AT_ONCE
        self._rows = rows[:MOST_AT_ONCE]
        self._now = self._rows[-1].accepted_at if self.more else passed.at

    def run(self) -> list[ClosedGroup]:
        """Groups that closed, in the order of the stream."""
        select = sa.select(groups).where(
            groups.c.lane_id == self._lane.id, groups.c.state == GroupState.OPEN
        )
        opened = {row.action: row for row in self._connection.execute(select)}
        closed: list[ClosedGroup] = []
        for action in sorted({row.action for row in self._rows} | opened.keys()):
            rows = [row for row in self._rows if row.action == action]
            closed += self._fold_action(action, rows, opened.get(action))
        self._note_version()
        return sorted(closed, key=lambda group: (group.closed.at, group.closed.first, group.action))

    def _fold_action(
        self, action: str, rows: Sequence[sa.Row[Any]], row: sa.Row[Any] | None
    ) -> list[ClosedGroup]:
        """Folds under the newest version that any member so far was routed under.

        It never goes back: routers that take up a change at slightly different times may give a
        member the older version after one with the newer.
        """
        closed: list[ClosedGroup] = []
        parts = list(_by_version(rows, self._lane.rule_version))
        for index, (version, part) in enumerate(parts):
            policy = self._rules.get(self._connection, self._lane.rule_id, version).policy
            last = index == len(parts) - 1
            # until the first member under the next version, time passes under this one
            now = self._now if last else parts[index + 1][1][0].accepted_at
            open_group = None if row is None else self._open(policy, row)
            if policy.kind == "absent" and not self._listens:
                progress = _unheard(open_group, part)
            else:
                progress = advance(policy, open_group, [_member(found) for found in part], now)
            self._write(action, version, policy, row, progress)
            for group in progress.closed:
                found = group_id(self._lane.id, action, group.first)
                closed.append(
                    ClosedGroup(id=found, action=action, rule_version=version, closed=group)
                )
            row = self._open_row(action) if not last else None
        return closed

    def _note_version(self) -> None:
        newest = max((row.rule_version for row in self._rows), default=0)
        if newest > self._lane.rule_version:
            self._connection.execute(
                sa.update(lanes).where(lanes.c.id == self._lane.id).values(rule_version=newest)
            )

    # --- from rows --------------------------------------------------------------------------------

    def _open(self, policy: Policy, row: sa.Row[Any]) -> Open:
        subjects: frozenset[str] = frozenset()
        window: tuple[tuple[str, datetime], ...] = ()
        if policy.completes or policy.kind in ("at_least", "absent"):
            members = self._connection.execute(_folded(row.id)).all()
            if policy.completes:
                subjects = frozenset(_subject(m) for m in members if not m.is_marker)
            else:
                window = tuple((m.outcome_id, m.accepted_at) for m in members)
        return Open(
            first=row.first_order,
            opened_at=row.opened_at,
            last_at=row.last_at,
            num_events=row.num_events,
            size_bytes=row.size_bytes,
            expected=row.expected,
            subjects=subjects,
            window=window,
        )

    def _open_row(self, action: str) -> sa.Row[Any] | None:
        return self._connection.execute(
            sa.select(groups).where(
                groups.c.lane_id == self._lane.id,
                groups.c.action == action,
                groups.c.state == GroupState.OPEN,
            )
        ).one_or_none()

    # --- to rows ----------------------------------------------------------------------------------

    def _write(
        self,
        action: str,
        version: int,
        policy: Policy,
        row: sa.Row[Any] | None,
        progress: Progress,
    ) -> None:
        self._write_members(action, progress)
        common = {
            "lane_id": self._lane.id,
            "rule_id": self._lane.rule_id,
            "rule_version": version,
            "action": action,
            "updated_at": clock.utc_now(),
        }
        found = [{**common, **_closed_values(group)} for group in progress.closed]
        if progress.open is not None:
            found.append({**common, **_open_values(policy, progress.open)})
        rows = {group_id(self._lane.id, action, str(v["first_order"])): v for v in found}
        if row is not None and row.id not in rows:  # all of its members passed
            self._connection.execute(sa.delete(groups).where(groups.c.id == row.id))
        for identity, values in rows.items():
            if row is not None and row.id == identity:
                here = groups.c.id == identity
                self._connection.execute(sa.update(groups).where(here).values(**values))
            else:
                new = {"id": identity, "created_at": values["updated_at"], **values}
                self._connection.execute(sa.insert(groups).values(**new))

    def _write_members(self, action: str, progress: Progress) -> None:
        by_group: dict[str, list[str]] = {}
        for name, first in progress.joined.items():
            by_group.setdefault(group_id(self._lane.id, action, first), []).append(name)
        for identity, names in by_group.items():
            self._connection.execute(
                sa.update(group_members)
                .where(group_members.c.outcome_id.in_(names))
                .values(group_id=identity)
            )
        late = [name for name, ran_out in progress.passed.items() if ran_out]
        early = [name for name, ran_out in progress.passed.items() if not ran_out]
        reason = IN_TIME if self._listens else NOT_LISTENING
        for names, state, text in (
            (late, OutcomeState.DROPPED, TOO_FEW),
            (early, OutcomeState.SUPPRESSED, reason),
        ):
            if names:
                settle(self._connection, names, state, text)
                gone = group_members.c.outcome_id.in_(names)
                self._connection.execute(sa.delete(group_members).where(gone))


def _unheard(open_group: Open | None, part: Sequence[sa.Row[Any]]) -> Progress:
    names = [] if open_group is None else [name for name, _ in open_group.window]
    return Progress(passed=dict.fromkeys([*names, *(row.outcome_id for row in part)], False))


def _by_version(
    rows: Sequence[sa.Row[Any]], version: int
) -> Iterator[tuple[int, Sequence[sa.Row[Any]]]]:
    """Runs of rows under one version; it never goes back. Only the first may be empty."""
    part: list[sa.Row[Any]] = []
    for row in rows:
        if row.rule_version > version:
            if part or version:
                yield version, part
            version, part = row.rule_version, []
        part.append(row)
    yield version, part


def _unfolded(lane_id: str, before: str) -> sa.Select[Any]:
    return (
        sa.select(group_members)
        .where(
            group_members.c.lane_id == lane_id,
            group_members.c.group_id.is_(None),
            group_members.c.entry_order < before,
        )
        .order_by(group_members.c.entry_order, group_members.c.position)
        .limit(MOST_AT_ONCE + 1)
    )


def _folded(identity: str) -> sa.Select[Any]:
    return (
        sa.select(group_members)
        .where(group_members.c.group_id == identity)
        .order_by(group_members.c.entry_order, group_members.c.position)
    )


def _member(row: sa.Row[Any]) -> Member:
    return Member(
        name=row.outcome_id,
        order=row.entry_order,
        at=row.accepted_at,
        size_bytes=row.size_bytes,
        subject=_subject(row),
        is_marker=row.is_marker,
        expected=row.expected,
    )


def _subject(row: sa.Row[Any]) -> str:
    """What a number of objects counts: the object whatever its content, or the event."""
    return str(row.uri or row.outcome_id)


def _closed_values(group: Closed) -> dict[str, Any]:
    return {
        "state": GroupState.QUEUED,
        "first_order": group.first,
        "opened_at": group.opened_at,
        "last_at": group.last_at,
        "due_at": None,
        "closed_at": group.at,
        "why": group.why,
        "num_events": group.num_events,
        "size_bytes": group.size_bytes,
    }


def _open_values(policy: Policy, group: Open) -> dict[str, Any]:
    return {
        "state": GroupState.OPEN,
        "first_order": group.first,
        "opened_at": group.opened_at,
        "last_at": group.last_at,
        "due_at": deadline(policy, group),
        "num_events": group.num_events,
        "size_bytes": group.size_bytes,
        "expected": group.expected,
    }
