"""What becomes of each decision: claims, runs, effects, members of groups, and the outcome rows.

This is the half of the routing transaction that knows nothing of the stream: it works for events
that arrive and for events that are replayed under another epoch. It may be repeated whole, beside
any number of others, for the reasons that `commit.py` gives.

Whose action waits for others (its rule groups, or limits its active runs) only becomes a member
here, PENDING; the grouper decides the rest in the order of the stream (`grouper.py`). An event
that came twice, or an object that was announced twice, counts where it came *first*, whichever
router was faster: so the one that is kept takes over the earlier place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury import clock, ids
from augury.actions.burial import ActionBurial, bury_actions
from augury.actions.effect import EffectRequest
from augury.actions.effects import CALL, effect_row
from augury.actions.resolve import Request, as_json
from augury.actions.start_run import RunRequest
from augury.jobs import states
from augury.jobs.runs import RunDraft, accept_runs, first_queue, run_key
from augury.jobs.script_spec import ScriptSpec, parse_spec
from augury.jobs.spec import JobSpec
from augury.jobs.states import OutcomeState
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.routing.arrivals import Arrival
from augury.routing.decisions import Intent
from augury.routing.epochs import priority_of
from augury.storage.database import Database
from augury.storage.tables import effects, group_members, lanes, object_claims, outcomes

LIVE_EPOCH = states.LIVE_EPOCH
SAME_OBJECT = "same object"
SAME_OCCURRENCE = "same occurrence"
# no replay's id ends so
_SHADOW = "~shadow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """An event whose (source, id) was accepted before.

    Attributes:
        original: position of the first one.
        reason: for the outcomes, and whether the payload differs.
    """

    original: int
    reason: str


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """An outcome while it is being decided; `state` None: nothing speaks against it so far."""

    intent: Intent
    position: int
    epoch: str
    outcome_id: str = field(default_factory=lambda: ids.new_id("out"))
    state: OutcomeState | None = None
    reason: str | None = None
    run_id: str | None = None
    job: Resource | None = None
    spec: JobSpec | ScriptSpec | None = None

    def settle(self, state: OutcomeState, reason: str | None) -> None:
        self.state = state
        self.reason = reason

    def fail(self, reason: str) -> None:
        """Dead; in shadow that is only what would have been."""
        if self.intent.shadow:
            self.settle(OutcomeState.SHADOW, f"would fail: {reason}")
        else:
            self.settle(OutcomeState.DEAD, reason)

    @property
    def claim(self) -> tuple[str, str, str, str]:
        """Key in `object_claims`; what is only looked at in shadow claims nothing for real."""
        intent = self.intent
        epoch = acting_epoch(self.epoch, shadow=intent.shadow)
        return (intent.rule_id, intent.action, epoch, intent.occurrence.value)

    @property
    def run_key(self) -> str:
        intent = self.intent
        return run_key(intent.rule_id, intent.action, self.epoch, intent.occurrence.text)


def acting_epoch(epoch: str, *, shadow: bool) -> str:
    """The epoch of claims and lanes: a rule in shadow shares none with the rule in earnest."""
    return f"{epoch}{_SHADOW}" if shadow else epoch


def is_shadow(epoch: str) -> bool:
    """True if it is the acting epoch of a rule in shadow."""
    return epoch.endswith(_SHADOW)


def base_epoch(epoch: str) -> str:
    """The epoch of outcomes and runs that an acting epoch belongs to."""
    return epoch.removesuffix(_SHADOW)


def lane_id(rule_id: str, epoch: str, key: str) -> str:
    """The lane of a rule's events with one key."""
    return ids.derived_id("lane", rule_id, epoch, key)


def fitted_job(
    job: Resource | None, request: RunRequest
) -> tuple[Resource, JobSpec | ScriptSpec] | str:
    """The job that is asked for, with the overrides on its spec; or why it cannot run."""
    name = request.job_name
    if job is None:
        return f"no job named {name!r}"
    try:
        return job, parse_spec(job.spec).overridden(request.overrides)
    except ValidationError as error:
        return f"job {name!r} with these overrides: {error}"


def would_do(request: Request) -> str:
    """What a rule in shadow would have done, for people."""
    if isinstance(request, EffectRequest):
        return f"would deliver {request.kind} to {request.target}"
    text = f"would start job {request.job_name!r}"
    named = request.overrides.input
    if not named:
        return text
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    return f"{text} on {named[0].uri}{more}"


def storable(reason: str | None) -> str | None:
    """Text that any database holds; reasons may quote what an event holds."""
    return None if reason is None else reason.replace("\x00", "\\x00")


def write_outcomes(
    database: Database,
    connection: sa.Connection,
    decided: Sequence[tuple[int, Intent]],
    *,
    epoch: str = LIVE_EPOCH,
    duplicates: Mapping[int, Duplicate],
) -> Counter[str]:
    """Settles and writes one outcome for each intent, and everything that follows from it.

    Args:
        database: for the dialect.
        connection: the transaction.
        decided: ledger position of the event, and what an action wants to do about it; in the
            order of the stream.
        epoch: `LIVE_EPOCH`, or the id of a replay; part of every key that makes things happen once.
        duplicates: events that were accepted before, by position.

    Returns:
        The number of runs accepted and calls owed, per queue in which their first work waits.
    """
    if not decided:
        return Counter()
    write = _Write(database, connection)
    found = [
        _Outcome(intent=intent, position=position, epoch=epoch) for position, intent in decided
    ]
    for outcome in found:
        if outcome.position in duplicates:
            outcome.settle(OutcomeState.SUPPRESSED, duplicates[outcome.position].reason)
        elif outcome.intent.fault is not None:
            outcome.fail(outcome.intent.fault)
    started = write.settle(found)
    write.bequeath_places(
        [o for o in found if o.position in duplicates and o.intent.membership is not None],
        duplicates,
    )
    return started


class _Write:
    """The steps of the transaction, in the order in which they must be called."""

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self._database = database
        self._connection = connection
        self._now: datetime = clock.utc_now()

    def settle(self, found: Sequence[_Outcome]) -> Counter[str]:
        self._find_jobs(_runs(_open(found)))
        self._claim_objects(_open(found))
        members = [o for o in _open(found) if o.intent.membership is not None]
        for outcome in members:
            outcome.settle(OutcomeState.PENDING, None)
        _look_on(_open(found))
        started = self._accept_runs(_runs(_open(found)))
        owed = _open(found)
        for outcome in owed:
            outcome.settle(OutcomeState.QUEUED, None)
            started[CALL] += _is_call(outcome)
        ordered = sorted(found, key=lambda o: (o.position, o.intent.rule_id, o.intent.action))
        rows = [_outcome_row(outcome, self._now) for outcome in ordered]
        self._connection.execute(sa.insert(outcomes), rows)
        self._queue_effects(owed)
        dead = [_burial(outcome) for outcome in ordered if outcome.state is OutcomeState.DEAD]
        bury_actions(self._connection, dead)
        self._join_lanes(members)
        return started

    def _find_jobs(self, candidates: Sequence[_Outcome]) -> None:
        jobs: dict[str, Resource | None] = {}
        for outcome in candidates:
            request = _run_request(outcome)
            name = request.job_name
            if name not in jobs:
                jobs[name] = store.find(self._connection, Kind.JOB, name)
            found = fitted_job(jobs[name], request)
            if isinstance(found, str):
                outcome.fail(found)
            else:
                outcome.job, outcome.spec = found

    def _claim_objects(self, candidates: Sequence[_Outcome]) -> None:
        first: dict[tuple[str, str, str, str], _Outcome] = {}
        known: list[_Outcome] = []
        for outcome in candidates:
            if outcome.intent.occurrence.kind != "object":
                continue
            if first.setdefault(outcome.claim, outcome) is not outcome:
                outcome.settle(OutcomeState.SUPPRESSED, SAME_OBJECT)
        columns = object_claims.primary_key.columns
        rows = [
            {
                **dict(zip(columns.keys(), claim, strict=True)),
                "outcome_id": outcome.outcome_id,
                "position": outcome.position,
            }
            for claim, outcome in sorted(first.items(), key=lambda item: item[0])
        ]
        won = self._database.insert_new(self._connection, object_claims, rows, *columns)
        for claim in first.keys() - {tuple(row) for row in won}:
            first[claim].settle(OutcomeState.SUPPRESSED, SAME_OBJECT)
            known.append(first[claim])
        self._bequeath_objects([o for o in known if o.intent.membership is not None])

    def _accept_runs(self, candidates: Sequence[_Outcome]) -> Counter[str]:
        drafts = sorted((_draft(outcome) for outcome in candidates), key=lambda d: d.run_key)
        run_ids = accept_runs(self._database, self._connection, drafts) if drafts else {}
        started: Counter[str] = Counter()
        for outcome in candidates:
            outcome.run_id = run_ids.get(outcome.run_key)
            if outcome.run_id is None:
                # the key outlived the memory of (source, id): it is the same event nevertheless
                outcome.settle(OutcomeState.SUPPRESSED, SAME_OCCURRENCE)
            else:
                outcome.settle(OutcomeState.STARTED, None)
                assert outcome.spec is not None  # a run was accepted from it
                started[str(first_queue(outcome.spec))] += 1
        return started

    def _queue_effects(self, owed: Sequence[_Outcome]) -> None:
        rows = [_effect_row(outcome, self._now) for outcome in owed]
        if rows:
            ordered = sorted(rows, key=lambda row: row["id"])
            self._connection.execute(sa.insert(effects), ordered)

    def _join_lanes(self, members: Sequence[_Outcome]) -> None:
        """Appends to lanes; nothing of a group that is there already is touched."""
        if not members:
            return
        needed = {row["id"]: row for row in (_lane_row(o, self._now) for o in members)}
        rows = [needed[found] for found in sorted(needed)]
        self._database.insert_new(self._connection, lanes, rows, lanes.c.id)
        self._connection.execute(
            sa.insert(group_members),
            sorted((_member_row(o) for o in members), key=lambda row: row["outcome_id"]),
        )

    # --- the earlier place counts -----------------------------------------------------------------
    # Whoever bequeaths was delivered and is not acknowledged, so the watermark is not past its
    # place, so no grouper has folded anything that comes later: not the heir either.

    def bequeath_places(
        self, given: Sequence[_Outcome], duplicates: Mapping[int, Duplicate]
    ) -> None:
        """Lets the event that was accepted first count where its duplicate stands, if earlier."""
        of = [(duplicates[o.position].original, *_place(o.intent.arrival)) for o in given]
        heirs = group_members.c.position == sa.bindparam("heir")
        self._bequeath(heirs, sorted(set(of)))

    def _bequeath_objects(self, given: Sequence[_Outcome]) -> None:
        owners = sa.select(object_claims.c.outcome_id).where(
            *(column == sa.bindparam(column.name) for column in object_claims.primary_key.columns)
        )
        names = object_claims.primary_key.columns.keys()
        for outcome in sorted(given, key=lambda o: o.claim):
            claim = dict(zip(names, outcome.claim, strict=True))
            owner = self._connection.scalar(owners, claim)
            of = [(owner, *_place(outcome.intent.arrival))]
            self._bequeath(group_members.c.outcome_id == sa.bindparam("heir"), of)

    def _bequeath(
        self, heirs: sa.ColumnElement[bool], of: Sequence[tuple[Any, str, datetime]]
    ) -> None:
        if not of:
            return
        statement = (
            sa.update(group_members)
            .where(
                heirs,
                group_members.c.group_id.is_(None),
                group_members.c.entry_order > sa.bindparam("place"),
            )
            .values(entry_order=sa.bindparam("place"), accepted_at=sa.bindparam("since"))
        )
        names = ("heir", "place", "since")
        self._connection.execute(statement, [dict(zip(names, row, strict=True)) for row in of])


def _look_on(decided: Sequence[_Outcome]) -> None:
    """In shadow nothing is done; what would have been is the outcome."""
    for outcome in decided:
        if outcome.intent.shadow:
            assert outcome.intent.request is not None  # what has none has a fault
            outcome.settle(OutcomeState.SHADOW, would_do(outcome.intent.request))


def _open(decided: Sequence[_Outcome]) -> list[_Outcome]:
    return [outcome for outcome in decided if outcome.state is None]


def _runs(decided: Sequence[_Outcome]) -> list[_Outcome]:
    """Those whose action starts a run."""
    return [outcome for outcome in decided if isinstance(outcome.intent.request, RunRequest)]


def _is_call(outcome: _Outcome) -> bool:
    request = outcome.intent.request
    return isinstance(request, EffectRequest) and request.kind == CALL


def _run_request(outcome: _Outcome) -> RunRequest:
    assert isinstance(outcome.intent.request, RunRequest)  # see `_runs`
    return outcome.intent.request


def _place(arrival: Arrival) -> tuple[str, datetime]:
    """Where in the stream an event stands."""
    return arrival.order, arrival.accepted_at


def _draft(outcome: _Outcome) -> RunDraft:
    assert outcome.job is not None and outcome.spec is not None  # found before
    return RunDraft(
        run_key=outcome.run_key,
        job=outcome.job,
        spec=outcome.spec,
        inputs=outcome.spec.input,
        position=outcome.position,
        outcome_id=outcome.outcome_id,
        display_name=_run_request(outcome).overrides.display_name,
        epoch=outcome.epoch,
        priority=priority_of(outcome.epoch),
    )


def _lane_row(outcome: _Outcome, now: datetime) -> dict[str, Any]:
    intent = outcome.intent
    assert intent.membership is not None  # only members come here
    epoch = acting_epoch(outcome.epoch, shadow=intent.shadow)
    key = intent.membership.key
    return {
        "id": lane_id(intent.rule_id, epoch, key),
        "rule_id": intent.rule_id,
        "epoch": epoch,
        "key": storable(key),
        "created_at": now,
    }


def _member_row(outcome: _Outcome) -> dict[str, Any]:
    intent, joins = outcome.intent, outcome.intent.membership
    assert joins is not None  # only members come here
    entry_order, accepted_at = _place(intent.arrival)
    epoch = acting_epoch(outcome.epoch, shadow=intent.shadow)
    return {
        "outcome_id": outcome.outcome_id,
        "lane_id": lane_id(intent.rule_id, epoch, joins.key),
        "action": intent.action,
        "rule_version": intent.rule_version,
        "position": outcome.position,
        "entry_order": entry_order,
        "accepted_at": accepted_at,
        "size_bytes": joins.size_bytes,
        "uri": storable(joins.uri),
        "tag": storable(joins.tag),
        "is_marker": joins.is_marker,
        "expected": joins.expected,
        "body": None if outcome.epoch == LIVE_EPOCH else intent.arrival.body,
    }


def _effect_row(outcome: _Outcome, now: datetime) -> dict[str, Any]:
    intent = outcome.intent
    assert isinstance(intent.request, EffectRequest)  # whatever else was open is settled
    return effect_row(
        intent.request,
        outcome_id=outcome.outcome_id,
        position=outcome.position,
        rule_id=intent.rule_id,
        rule_version=intent.rule_version,
        action=intent.action,
        now=now,
    )


def _burial(outcome: _Outcome) -> ActionBurial:
    intent = outcome.intent
    return ActionBurial(
        outcome_id=outcome.outcome_id,
        position=outcome.position,
        rule_id=intent.rule_id,
        rule_version=intent.rule_version,
        action=intent.action,
        payload=intent.arrival.body,
        request=None if intent.request is None else as_json(intent.request),
        reason=storable(outcome.reason) or "",
    )


def _outcome_row(outcome: _Outcome, now: datetime) -> dict[str, Any]:
    intent = outcome.intent
    return {
        "id": outcome.outcome_id,
        "position": outcome.position,
        "rule_id": intent.rule_id,
        "rule_version": intent.rule_version,
        "action": intent.action,
        "epoch": outcome.epoch,
        "state": outcome.state,
        "reason": storable(outcome.reason),
        "occurrence": intent.occurrence.text,
        "run_id": outcome.run_id,
        "created_at": now,
        "updated_at": now,
    }
