"""What must hold for groups: members, ends, runs, sizes, slots, and that none stands still.

Each check is one look at one snapshot whose result is small, or empty, in a healthy ledger; what
is compared with a rule's own words is read page by page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury.jobs.acceptance import run_key
from augury.jobs.states import TERMINAL, GroupState, OutcomeState
from augury.monitoring.audit.check import Check, Finding, shown
from augury.rules.grouping import Policy, policy_of
from augury.rules.spec import RuleSpec
from augury.storage.tables import (
    effects,
    events,
    group_members,
    groups,
    lanes,
    outcomes,
    replays,
    rule_versions,
    rules,
    runs,
)

_SHADOW = "~shadow"
_UNFINISHED = runs.c.state.not_in(TERMINAL)
# what an outcome may be while its group is in a state; of an effect, whatever becomes of it
_EFFECT = (
    OutcomeState.QUEUED,
    OutcomeState.RETRYING,
    OutcomeState.DELIVERED,
    OutcomeState.DEAD,
    OutcomeState.DISCARDED,
)
_FITTING: dict[str, Sequence[OutcomeState]] = {
    GroupState.OPEN: (OutcomeState.PENDING,),
    GroupState.QUEUED: (OutcomeState.QUEUED,),
    GroupState.STARTED: (
        OutcomeState.STARTED,
        OutcomeState.JOINED,
        OutcomeState.SUPPRESSED,
        *_EFFECT,
    ),
    GroupState.DROPPED: (OutcomeState.DROPPED,),
    GroupState.SHADOW: (OutcomeState.SHADOW,),
    GroupState.DEAD: (
        OutcomeState.DEAD,
        OutcomeState.DISCARDED,
        OutcomeState.JOINED,
        OutcomeState.SUPPRESSED,
    ),
}


@dataclass(frozen=True)
class Groups:
    """One snapshot of the ledger.

    Attributes:
        overdue: what should have been done before this instant counts as standing still.
    """

    connection: sa.Connection
    overdue: datetime

    def stream(self, select: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
        """Rows of a result that may be large, a few at a time."""
        return iter(self.connection.execution_options(yield_per=500).execute(select))


def _member(seen: Groups) -> Iterator[Finding]:
    """A PENDING outcome is on its way into a group, or in one that is open."""
    joined = outcomes.outerjoin(
        group_members, group_members.c.outcome_id == outcomes.c.id
    ).outerjoin(groups, groups.c.id == group_members.c.group_id)
    lost = group_members.c.outcome_id.is_(None)
    elsewhere = group_members.c.group_id.is_not(None) & (
        groups.c.state.is_(None) | (groups.c.state != GroupState.OPEN)
    )
    select = (
        sa.select(outcomes.c.id, group_members.c.group_id, groups.c.state)
        .select_from(joined)
        .where(outcomes.c.state == OutcomeState.PENDING, lost | elsewhere)
    )
    for row in seen.stream(select):
        found = "in no group" if row.group_id is None else f"group {row.group_id} ({row.state})"
        yield Finding(f"outcome {row.id}", "PENDING in a group that is open", found)


def _outcome(seen: Groups) -> Iterator[Finding]:
    """Outcomes end as their group does, with its run; those of archived events are not here."""
    head = groups.alias("head")
    state = sa.func.coalesce(head.c.state, groups.c.state)
    run_id = sa.func.coalesce(head.c.run_id, groups.c.run_id)
    fits = [
        (state == group_state) & outcomes.c.state.in_(allowed)
        for group_state, allowed in _FITTING.items()
    ]
    lost = outcomes.c.id.is_(None) & events.c.position.is_not(None)
    started = outcomes.c.state.in_((OutcomeState.STARTED, OutcomeState.JOINED))
    lost = outcomes.c.id.is_(None) & events.c.position.is_not(None)
    same_run = sa.func.coalesce(outcomes.c.run_id, "") == sa.func.coalesce(run_id, "")
    select = (
        sa.select(
            group_members.c.outcome_id,
            outcomes.c.state,
            outcomes.c.run_id,
            groups.c.id,
            state.label("group_state"),
            run_id.label("group_run_id"),
        )
        .select_from(
            group_members.join(groups, groups.c.id == group_members.c.group_id)
            .outerjoin(head, head.c.id == groups.c.joined_into)
            .outerjoin(outcomes, outcomes.c.id == group_members.c.outcome_id)
            .outerjoin(events, events.c.position == group_members.c.position)
        )
        .where(lost | sa.not_(sa.or_(*fits)) | (started & sa.not_(same_run)))
    )
    for row in seen.stream(select):
        expected = f"an outcome as group {row.id} has it: {row.group_state}, {row.group_run_id}"
        yield Finding(f"outcome {row.outcome_id}", expected, f"{row.state}, {row.run_id}")


def _run(seen: Groups) -> Iterator[Finding]:
    """A group that acted has its run, made under its own key, or an effect that is owed."""
    owed, kept = _any_of(effects, effects.c.id), _any_of(outcomes, outcomes.c.id)
    select = (
        sa.select(groups, lanes.c.epoch, runs.c.run_key, owed.label("owed"), kept.label("kept"))
        .select_from(
            groups.join(lanes, lanes.c.id == groups.c.lane_id).outerjoin(
                runs, runs.c.id == groups.c.run_id
            )
        )
        .where(groups.c.state == GroupState.STARTED)
    )
    for row in seen.stream(select):
        if row.run_id is None and (row.owed or not row.kept):
            continue  # an effect, perhaps of events that are in the archive
        epoch = row.epoch.removesuffix(_SHADOW)
        wanted = run_key(row.rule_id, row.action, epoch, f"group:{row.id}")
        if row.run_key != wanted:
            found = f"run {row.run_id} with key {row.run_key}"
            yield Finding(f"group {row.id}", f"a run with key {wanted}, or an effect", found)


def _any_of(table: sa.Table, key: sa.Column[Any]) -> sa.Exists:
    """Whether there is such a row for a member of the enclosing statement's group."""
    other = groups.alias("acted_for")
    mine = (other.c.id == groups.c.id) | (other.c.joined_into == groups.c.id)
    return (
        sa.select(key)
        .select_from(
            table.join(group_members, group_members.c.outcome_id == key).join(
                other, other.c.id == group_members.c.group_id
            )
        )
        .where(mine)
        .correlate(groups)
        .exists()
    )


def _size(seen: Groups) -> Iterator[Finding]:
    """A group holds what its row says, and not more than its rule allows."""
    members = (
        sa.select(
            group_members.c.group_id,
            sa.func.count().label("number"),
            sa.func.sum(group_members.c.size_bytes).label("bytes"),
        )
        .where(group_members.c.group_id.is_not(None))
        .group_by(group_members.c.group_id)
        .subquery()
    )
    select = sa.select(
        groups, sa.func.coalesce(members.c.number, 0).label("number"), members.c.bytes
    ).select_from(groups.outerjoin(members, members.c.group_id == groups.c.id))
    policies: dict[tuple[str, int], Sequence[Policy]] = {}
    for row in seen.stream(select):
        subject = f"group {row.id}"
        if row.number != row.num_events:
            yield Finding(subject, f"{row.num_events} members", f"{row.number}")
            continue
        key = (row.rule_id, row.rule_version)
        if key not in policies:
            policies[key] = list(_policies(seen.connection, *key))
        yield from _beyond(subject, policies[key], row)


def _policies(connection: sa.Connection, rule_id: str, version: int) -> Iterator[Policy]:
    """Of the versions under which members may have joined."""
    versions = rule_versions.c
    specs = sa.select(versions.spec).where(versions.id == rule_id, versions.version <= version)
    for spec in connection.scalars(specs):
        try:
            yield policy_of(RuleSpec.model_validate(spec).group)
        except ValidationError:
            continue


def _beyond(subject: str, policies: Sequence[Policy], row: sa.Row[Any]) -> Iterator[Finding]:
    if not policies:
        found = f"rule {row.rule_id} version {row.rule_version}"
        yield Finding(subject, "a rule version that can be read", found)
        return
    most = max(policy.max_events for policy in policies)
    if row.number > most:
        yield Finding(subject, f"at most {most} events", f"{row.number}")
    limits = [policy.max_bytes for policy in policies if policy.max_bytes is not None]
    if len(limits) == len(policies) and row.number > 1 and row.bytes > max(limits):
        yield Finding(subject, f"at most {max(limits)} bytes", f"{row.bytes}")


def _stuck(seen: Groups) -> Iterator[Finding]:
    """What is due is done: members enter groups, and groups close when their time is up."""
    # events of the past are grouped when their replay has come to its end
    replayed = (
        sa.select(lanes.c.id)
        .join(replays, lanes.c.epoch.in_((replays.c.id, replays.c.id + _SHADOW)))
        .where((replays.c.state == "RUNNING") | (replays.c.updated_at >= seen.overdue))
    )
    waiting = sa.select(group_members).where(
        group_members.c.group_id.is_(None),
        group_members.c.accepted_at < seen.overdue,
        group_members.c.lane_id.not_in(replayed),
    )
    for row in seen.stream(waiting):
        found = f"in none, accepted at {row.accepted_at}"
        yield Finding(f"outcome {row.outcome_id}", "to be in a group", found)
    due = sa.select(groups).where(
        groups.c.state == GroupState.OPEN,
        groups.c.due_at < seen.overdue,
        groups.c.lane_id.not_in(replayed),
    )
    for row in seen.stream(due):
        yield Finding(f"group {row.id}", f"to close at {row.due_at}", "open")


def _slots() -> sa.Subquery:
    """Per lane: unfinished runs that count, the largest limit under which one began."""
    return (
        sa.select(
            groups.c.lane_id,
            sa.func.count().label("active"),
            sa.func.max(groups.c.slot_of).label("limit"),
        )
        .join(runs, runs.c.id == groups.c.run_id)
        .where(groups.c.slot_of.is_not(None), _UNFINISHED)
        .group_by(groups.c.lane_id)
        .subquery("slots")
    )


def _active(seen: Groups) -> Iterator[Finding]:
    slots = _slots()
    for row in seen.stream(sa.select(slots).where(slots.c.active > slots.c.limit)):
        expected = f"at most {row.limit} unfinished runs (max_active)"
        yield Finding(f"lane {row.lane_id}", expected, f"{row.active}")


def _backlog(seen: Groups) -> Iterator[Finding]:
    """Nobody waits for a slot that has long been free."""
    slots = _slots()
    select = (
        sa.select(groups, rules.c.spec, sa.func.coalesce(slots.c.active, 0).label("active"))
        .select_from(
            groups.join(rules, rules.c.id == groups.c.rule_id).outerjoin(
                slots, slots.c.lane_id == groups.c.lane_id
            )
        )
        .where(groups.c.state == GroupState.QUEUED, groups.c.updated_at < seen.overdue)
    )
    for row in seen.stream(select):
        limit = row.spec.get("max_active")
        if (limit is None or row.active < limit) and not _just_ended(seen, row.lane_id):
            expected = f"to begin: {row.active} runs are active, max_active is {shown(limit)}"
            yield Finding(f"group {row.id}", expected, f"waits since {row.updated_at}")


def _just_ended(seen: Groups, lane_id: str) -> bool:
    """True if a run of the lane ended so recently that its slot may not be taken yet."""
    select = (
        sa.select(sa.func.max(runs.c.time_finished))
        .join(groups, groups.c.run_id == runs.c.id)
        .where(groups.c.lane_id == lane_id)
    )
    ended = seen.connection.scalar(select)
    return ended is not None and ended > seen.overdue


_RESTORE = (
    "the ledger was changed by something other than Augury, or is damaged: compare with a backup, "
    "and report a bug if nobody touched it"
)
_ROUTERS = "see that a router runs (`augury doctor`) and read its log: it names a lane that it "
_ROUTERS += "cannot group; nothing is lost, the group stays where it is"

GROUP_CHECKS: tuple[Check[Groups], ...] = (
    Check(name="group_member", examine=_member, advice=_RESTORE),
    Check(
        name="group_outcome",
        examine=_outcome,
        advice="the ledger contradicts itself about what became of an event: see the group "
        "(`augury groups show GROUP`) and its run, and report a bug",
    ),
    Check(
        name="group_run",
        examine=_run,
        advice="the ledger says that the group acted and there is nothing: start the run by hand "
        "on its objects (`augury groups show GROUP`), and report a bug",
    ),
    Check(name="group_size", examine=_size, advice=_RESTORE),
    Check(name="group_stuck", examine=_stuck, advice=_ROUTERS),
    Check(
        name="group_active",
        examine=_active,
        advice="more runs are active than the rule allows: cancel those too many "
        "(`augury runs cancel`), and report a bug",
    ),
    Check(name="group_backlog", examine=_backlog, advice=_ROUTERS),
)

GROUPS_COUNTED: dict[str, sa.Table] = {
    **dict.fromkeys((check.name for check in GROUP_CHECKS), groups),
    "group_member": outcomes,
    "group_outcome": group_members,
}
