"""One lane of a rule's events: from what the stream has passed to groups, runs and outcomes.

All of it is one transaction under the lane's row, so of any number of groupers one works on a lane
at a time, and one that dies leaves it as it was. In it:

* members that are new are folded into groups (`folding.py`), each of which closes once;
* a closed group acts at once, or waits if as many runs of the lane as `max_active` says are
  unfinished; then `when_full` decides. Waiting groups begin in the order in which they closed;
* the group's id is the occurrence of its run, so a run is never accepted twice.

Of a group that acts, the newest member's outcome is STARTED, and it is what the run names; the
others are JOINED with the same run, or SUPPRESSED if a newer member replaces them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from augury import clock
from augury.actions.burial import ActionBurial, bury_actions
from augury.actions.effect import EffectRequest
from augury.actions.effects import CALL, effect_row, queue_again
from augury.actions.resolve import Request, as_json
from augury.actions.start_run import RunRequest
from augury.errors import InvalidError
from augury.jobs.runs import RunDraft, accept_runs, first_queue, run_key
from augury.jobs.states import LIVE_EPOCH, TERMINAL, GroupState, OutcomeState
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.epochs import priority_of, with_model
from augury.routing.folding import ClosedGroup, LaneFold, Passed, settle
from augury.routing.group_view import GroupedEvent, GroupView, group_request, key_of
from augury.routing.outcomes import (
    SAME_OCCURRENCE,
    base_epoch,
    fitted_job,
    is_shadow,
    storable,
    would_do,
)
from augury.routing.rule_versions import GroupingRule, RuleVersions
from augury.rules.group_spec import MOST_EVENTS
from augury.rules.grouping import Why
from augury.storage.database import Database
from augury.storage.tables import (
    events,
    group_members,
    groups,
    lanes,
    outcomes,
    replays,
    rules,
    runs,
)

RULE_DELETED = "the rule was deleted before its group acted"
SUPERSEDED = "superseded by a newer event of its group"


def advance_lane(
    database: Database,
    connection: sa.Connection,
    lane_id: str,
    passed: Passed,
    versions: RuleVersions,
) -> tuple[Counter[str], bool]:
    """Does what the stream so far allows; idempotent.

    Args:
        database: for the dialect.
        connection: the transaction.
        lane_id: which lane; one that somebody else holds is left to them.
        passed: how far the stream is in the ledger.
        versions: rules.

    Returns:
        Runs that were accepted, per queue in which their first work waits; and whether there is
        more to do at once.
    """
    select = database.lock_rows(sa.select(lanes).where(lanes.c.id == lane_id), skip_locked=True)
    lane = connection.execute(select).one_or_none()
    if lane is None:
        return Counter(), False
    return _Lane(database, connection, lane, versions).advance(passed)


def act_again(
    database: Database, connection: sa.Connection, outcome_id: str, versions: RuleVersions
) -> Counter[str] | None:
    """Lets the group of a dead outcome act again, by the present version of its rule.

    Returns:
        What is ready for workers now, by queue; None if the outcome is in no group. The group may
        have to wait, as any other.

    Raises:
        InvalidError: it would fail again; the caller's transaction must not be committed.
    """
    group = connection.execute(
        sa.select(groups)
        .join(group_members, group_members.c.group_id == groups.c.id)
        .where(group_members.c.outcome_id == outcome_id)
    ).one_or_none()
    if group is None:
        return None
    lane = connection.execute(
        database.lock_rows(sa.select(lanes).where(lanes.c.id == group.lane_id))
    ).one()
    return _Lane(database, connection, lane, versions).act_again(group.joined_into or group.id)


class _Lane:
    """A lane while its row is held."""

    def __init__(
        self, database: Database, connection: sa.Connection, lane: Any, versions: RuleVersions
    ) -> None:
        self._database = database
        self._connection = connection
        self._lane = lane
        self._versions = versions
        self._started: Counter[str] = Counter()
        self._rule = connection.execute(sa.select(rules).where(rules.c.id == lane.rule_id)).one()
        self._epoch = base_epoch(lane.epoch)
        replay = sa.select(replays.c.state, replays.c.model).where(replays.c.id == self._epoch)
        is_live = self._epoch == LIVE_EPOCH
        self._replay = None if is_live else connection.execute(replay).one_or_none()

    def advance(self, passed: Passed) -> tuple[Counter[str], bool]:
        if self._rule.deleted_at is not None:
            self._drop_everything()
            return self._started, False
        self._release_slots()
        self._start_waiting()
        if self._replay is not None and self._replay.state == "RUNNING":
            return self._started, False  # it has not appended everything
        fold = LaneFold(
            self._connection,
            self._lane,
            passed,
            self._versions,
            listens=self._rule.enabled,
        )
        for group in fold.run():
            self._place(group)
        return self._started, fold.more

    def act_again(self, identity: str) -> Counter[str]:
        version = self._rule.version
        self._update(identity, state=GroupState.QUEUED, rule_version=version, run_id=None)
        self._settle_members([identity], OutcomeState.QUEUED, None)
        self._release_slots()
        self._start_waiting()
        group = self._connection.execute(sa.select(groups).where(groups.c.id == identity)).one()
        if group.state == GroupState.QUEUED and not self._is_limited(
            self._version(version), group.action
        ):
            self._act(identity)
        dead = sa.select(outcomes.c.reason).where(
            outcomes.c.id.in_(_members_of(identity)), outcomes.c.state == OutcomeState.DEAD
        )
        if (reason := self._connection.scalar(dead)) is not None:
            raise InvalidError(reason)
        return self._started

    # --- where a closed group goes ----------------------------------------------------------------

    def _place(self, group: ClosedGroup) -> None:
        rule = self._version(group.rule_version)
        if not group.closed.acts:
            reason = _incomplete(group, rule)
            self._end(group.id, GroupState.DROPPED, OutcomeState.DROPPED, reason)
        elif not self._is_limited(rule, group.action) or self._free_slots():
            self._act(group.id)
        elif rule.spec.when_full == "drop":
            reason = f"{self._limit} runs of this rule and key are active, which is max_active"
            self._end(group.id, GroupState.DROPPED, OutcomeState.DROPPED, reason)
        elif rule.spec.when_full == "coalesce" and (head := self._waiting_head(group)):
            self._update(group.id, state=GroupState.JOINED, joined_into=head)
            self._settle_members([group.id], OutcomeState.QUEUED, None)
        else:
            self._settle_members([group.id], OutcomeState.QUEUED, None)

    def _is_limited(self, rule: GroupingRule, action: str) -> bool:
        """True if the action starts runs, and these count."""
        spec = rule.action(action)
        starts_run = not isinstance(spec, str) and spec.start_run is not None
        return self._limit is not None and starts_run and not is_shadow(self._lane.epoch)

    def _waiting_head(self, group: ClosedGroup) -> str | None:
        """The waiting group of the same action and version that has room for this one."""
        head = self._connection.execute(
            self._waiting()
            .where(
                groups.c.action == group.action,
                groups.c.rule_version == group.rule_version,
                groups.c.id != group.id,
            )
            .order_by(None)
            .order_by(groups.c.closed_at.desc(), groups.c.first_order.desc())
            .limit(1)
        ).one_or_none()
        if head is None:
            return None
        held = self._connection.scalar(
            sa.select(sa.func.sum(groups.c.num_events)).where(_acted_for(head.id))
        )
        return head.id if held + group.closed.num_events <= MOST_EVENTS else None

    # --- slots ------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int | None:
        """As the rule says now: a limit that was raised lets waiting groups begin."""
        return self._version(self._rule.version).spec.max_active

    def _release_slots(self) -> None:
        ended = sa.select(runs.c.id).where(runs.c.state.in_(TERMINAL))
        self._connection.execute(
            sa.update(groups)
            .where(
                groups.c.lane_id == self._lane.id,
                groups.c.slot_of.is_not(None),
                groups.c.run_id.in_(ended),
            )
            .values(slot_of=None)
        )

    def _free_slots(self) -> int:
        if self._limit is None:
            return 1
        taken = self._connection.scalar(
            sa.select(sa.func.count()).where(
                groups.c.lane_id == self._lane.id, groups.c.slot_of.is_not(None)
            )
        )
        return max(0, self._limit - (taken or 0))

    def _waiting(self) -> sa.Select[Any]:
        return (
            sa.select(groups)
            .where(groups.c.lane_id == self._lane.id, groups.c.state == GroupState.QUEUED)
            .order_by(groups.c.closed_at, groups.c.first_order, groups.c.action)
        )

    def _start_waiting(self) -> None:
        while self._free_slots():
            group = self._connection.execute(self._waiting().limit(1)).one_or_none()
            if group is None:
                return
            self._act(group.id)

    # --- acting -----------------------------------------------------------------------------------

    def _act(self, identity: str) -> None:
        group = self._connection.execute(sa.select(groups).where(groups.c.id == identity)).one()
        rule = self._version(group.rule_version)
        view = self._view(group, rule)
        action = rule.action(group.action)
        asked = action if isinstance(action, str) else group_request(action, view)
        if is_shadow(self._lane.epoch):
            text = f"would fail: {asked}" if isinstance(asked, str) else would_do(asked)
            self._end(identity, GroupState.SHADOW, OutcomeState.SHADOW, text)
        elif isinstance(asked, RunRequest):
            self._start_run(group, view, asked)
        elif isinstance(asked, EffectRequest):
            self._owe_effect(group, view, asked)
        else:
            self._give_up(group, view, asked, None)

    def _start_run(self, group: sa.Row[Any], view: GroupView, request: RunRequest) -> None:
        request = self._with_model(request)
        job = store.find(self._connection, Kind.JOB, request.job_name)
        found = fitted_job(job, request)
        if isinstance(found, str):
            self._give_up(group, view, found, request)
            return
        job, spec = found
        epoch = self._epoch
        draft = RunDraft(
            run_key=run_key(group.rule_id, group.action, epoch, f"group:{group.id}"),
            job=job,
            spec=spec,
            inputs=spec.input,
            position=view.leader.position,
            outcome_id=view.leader.outcome_id,
            display_name=request.overrides.display_name,
            epoch=epoch,
            priority=priority_of(epoch),
        )
        accepted = accept_runs(self._database, self._connection, [draft])
        run_id = accepted.get(draft.run_key)
        if run_id is None:  # only if somebody took rows away from under us
            self._end(group.id, GroupState.DEAD, OutcomeState.SUPPRESSED, SAME_OCCURRENCE)
            return
        self._started[str(first_queue(spec))] += 1
        slot = self._limit
        self._update(group.id, state=GroupState.STARTED, run_id=run_id, slot_of=slot)
        self._join(group.id, view, OutcomeState.STARTED, run_id)

    def _with_model(self, request: RunRequest) -> RunRequest:
        """A replay may say which model every run of it uses."""
        return with_model(request, None if self._replay is None else self._replay.model)

    def _owe_effect(self, group: sa.Row[Any], view: GroupView, request: EffectRequest) -> None:
        row = effect_row(
            request,
            outcome_id=view.leader.outcome_id,
            position=view.leader.position,
            rule_id=group.rule_id,
            rule_version=group.rule_version,
            action=group.action,
            now=clock.utc_now(),
        )
        queue_again(self._connection, row)
        self._started[CALL] += request.kind == CALL
        self._update(group.id, state=GroupState.STARTED)
        self._join(group.id, view, OutcomeState.QUEUED, None)

    def _give_up(
        self, group: sa.Row[Any], view: GroupView, reason: str, request: Request | None
    ) -> None:
        """The leader's outcome is dead, with a dead letter that stands for the whole group."""
        self._update(group.id, state=GroupState.DEAD)
        self._join(group.id, view, OutcomeState.DEAD, None)
        settle(self._connection, [view.leader.outcome_id], OutcomeState.DEAD, storable(reason))
        burial = ActionBurial(
            outcome_id=view.leader.outcome_id,
            position=view.leader.position,
            rule_id=group.rule_id,
            rule_version=group.rule_version,
            action=group.action,
            payload=view.body,
            request=None if request is None else as_json(request),
            reason=storable(reason) or "",
        )
        bury_actions(self._connection, [burial])

    def _join(
        self, identity: str, view: GroupView, leading: OutcomeState, run_id: str | None
    ) -> None:
        """The newest member's outcome leads; what it replaces is superseded, the others joined."""
        others = [member.outcome_id for member in view.members[:-1]]
        superseded = view.superseded
        if others:
            self._connection.execute(
                sa.update(outcomes)
                .where(outcomes.c.id.in_(_members_of(identity)))
                .values(state=OutcomeState.JOINED, run_id=run_id, reason=None, updated_at=_now())
            )
        if superseded:
            self._connection.execute(
                sa.update(outcomes)
                .where(outcomes.c.id.in_(_members_of(identity)), outcomes.c.id.in_(superseded))
                .values(run_id=None)
            )
            settle(self._connection, superseded, OutcomeState.SUPPRESSED, SUPERSEDED)
        self._connection.execute(
            sa.update(outcomes)
            .where(outcomes.c.id == view.leader.outcome_id)
            .values(state=leading, run_id=run_id, reason=None, updated_at=_now())
        )

    def _view(self, group: sa.Row[Any], rule: GroupingRule) -> GroupView:
        found = self._connection.execute(
            sa.select(group_members)
            .join(groups, groups.c.id == group_members.c.group_id)
            .where(_acted_for(group.id))
            .order_by(group_members.c.entry_order, group_members.c.position)
        ).all()
        body = found[-1].body or self._body(found[-1].position)
        return GroupView(
            id=group.id,
            rule=rule.name,
            kind=rule.policy.kind,
            key=key_of(self._lane.key),
            why=group.why,
            since=group.opened_at,
            until=group.closed_at,
            members=[_grouped(row) for row in found],
            event=msgspec.json.decode(body),
            body=body,
        )

    def _body(self, position: int) -> str:
        """Of an event that is in the ledger, for its outcome is open."""
        select = sa.select(events.c.body).where(events.c.position == position)
        body: str = self._connection.execute(select).scalar_one()
        return body

    # --- ends -------------------------------------------------------------------------------------

    def _end(self, identity: str, state: GroupState, outcome: OutcomeState, reason: str) -> None:
        self._update(identity, state=state)
        self._settle_members([identity], outcome, reason)

    def _drop_everything(self) -> None:
        """A deleted rule acts no more, whatever waits for it."""
        lane = self._lane.id
        waiting = sa.select(groups.c.id).where(
            groups.c.lane_id == lane, groups.c.state.in_((GroupState.OPEN, GroupState.QUEUED))
        )
        ids = list(self._connection.scalars(waiting))
        for identity in ids:
            self._end(identity, GroupState.DROPPED, OutcomeState.DROPPED, RULE_DELETED)
        unfolded = (group_members.c.lane_id == lane) & group_members.c.group_id.is_(None)
        names = list(
            self._connection.scalars(sa.select(group_members.c.outcome_id).where(unfolded))
        )
        if names:
            settle(self._connection, names, OutcomeState.DROPPED, RULE_DELETED)
            self._connection.execute(sa.delete(group_members).where(unfolded))

    # --- rows -------------------------------------------------------------------------------------

    def _version(self, version: int) -> GroupingRule:
        return self._versions.get(self._connection, self._lane.rule_id, version)

    def _update(self, identity: str, **values: Any) -> None:
        self._connection.execute(
            sa.update(groups).where(groups.c.id == identity).values(updated_at=_now(), **values)
        )

    def _settle_members(
        self, identities: Sequence[str], state: OutcomeState, reason: str | None
    ) -> None:
        for identity in identities:
            self._connection.execute(
                sa.update(outcomes)
                .where(outcomes.c.id.in_(_members_of(identity)))
                .values(state=state, reason=storable(reason), updated_at=_now())
            )


def _now() -> Any:
    return clock.utc_now()


def _acted_for(identity: str) -> sa.ColumnElement[bool]:
    """The group itself and those that joined it while it waited."""
    return (groups.c.id == identity) | (groups.c.joined_into == identity)


def _members_of(identity: str) -> sa.Select[Any]:
    return (
        sa.select(group_members.c.outcome_id)
        .join(groups, groups.c.id == group_members.c.group_id)
        .where(_acted_for(identity))
    )


def _grouped(row: sa.Row[Any]) -> GroupedEvent:
    return GroupedEvent(
        outcome_id=row.outcome_id,
        position=row.position,
        uri=row.uri,
        tag=row.tag,
        size_bytes=row.size_bytes,
        is_marker=row.is_marker,
    )


def _incomplete(group: ClosedGroup, rule: GroupingRule) -> str:
    assert group.closed.why is Why.INCOMPLETE  # whatever else closes a group makes it act
    wanted = rule.spec.group.complete if rule.spec.group is not None else None
    missing = "its marker" if wanted is not None and wanted.marker else "all its objects"
    return f"incomplete: {group.closed.num_events} events came, but not {missing}"
