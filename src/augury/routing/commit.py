"""The one transaction in which events become outcomes, runs, and effects that are owed.

It may run again at any point and beside any number of others: a router that dies before the
commit leaves nothing, one that dies after it leaves entries that are known and only acknowledged.
Three rules make that so.

* What must happen once is a unique key (delivery, event, object per rule, run), inserted with ON
  CONFLICT DO NOTHING; what follows is derived from the rows that *this* transaction inserted.
* Tables are written in one fixed order and rows in the order of their keys, so that overlapping
  transactions wait for each other in one direction only.
* The ruleset that decided is still the active one, or the caller decides again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury import clock, ids
from augury.actions.effect import EffectRequest
from augury.actions.effects import effect_row
from augury.actions.start_run import RunRequest
from augury.events.catalog import OWN_SOURCE
from augury.jobs.runs import RunDraft, accept_runs, run_key
from augury.jobs.spec import JobSpec, Mode
from augury.jobs.states import OutcomeState
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.routing.arrivals import Arrival
from augury.routing.dead_letters import buried
from augury.routing.decisions import Decision, Intent
from augury.rules.ruleset import active_version
from augury.storage.database import Database
from augury.storage.tables import effects, event_keys, events, object_claims, outbox, outcomes

LIVE_EPOCH = "0"
DUPLICATE = "duplicate"
DUPLICATE_DIFFERS = "duplicate, payload differs"
SAME_OBJECT = "same object"
SAME_OCCURRENCE = "same occurrence"


class RulesetMovedError(Exception):
    """The decisions were made under a ruleset that is no longer the active one."""


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What one transaction did.

    Attributes:
        num_accepted: events that are new in the ledger, duplicates among them.
        num_known: deliveries that the ledger held already.
        num_outcomes: outcomes written.
        started: runs accepted, per queue in which their first work waits.
        reused: known deliveries whose content is not what the ledger holds: the bus went back in
            time and gave an entry id twice.
    """

    num_accepted: int
    num_known: int
    num_outcomes: int
    started: Counter[str]
    reused: tuple[Arrival, ...]


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """An outcome while it is being decided; `state` None: nothing speaks against it so far."""

    intent: Intent
    position: int
    outcome_id: str = field(default_factory=lambda: ids.new_id("out"))
    state: OutcomeState | None = None
    reason: str | None = None
    run_id: str | None = None
    job: Resource | None = None
    spec: JobSpec | None = None

    def settle(self, state: OutcomeState, reason: str | None) -> None:
        self.state = state
        self.reason = reason

    @property
    def claim(self) -> tuple[str, str, str, str]:
        """Key in `object_claims`."""
        return (self.intent.rule_id, self.intent.action, LIVE_EPOCH, self.intent.occurrence.value)

    @property
    def run_key(self) -> str:
        intent = self.intent
        return run_key(intent.rule_id, intent.action, LIVE_EPOCH, intent.occurrence.text)


def commit_batch(
    database: Database,
    connection: sa.Connection,
    decisions: Sequence[Decision],
    ruleset_version: int,
) -> Routed:
    """Writes everything that follows from `decisions`; does nothing outside `connection`.

    Args:
        database: for the dialect.
        connection: the transaction.
        decisions: in the stream's order (in which all routers insert), each delivery at most once.
        ruleset_version: under which they were made.

    Raises:
        RulesetMovedError: another ruleset is active; nothing was written.
    """
    if active_version(connection) != ruleset_version:
        raise RulesetMovedError
    write = _Write(database, connection)
    positions = write.events(decisions, ruleset_version)
    fresh = [decision for decision in decisions if decision.arrival.entry in positions]
    known = [decision.arrival for decision in decisions if decision.arrival.entry not in positions]
    duplicates = write.keys([decision.arrival for decision in fresh], positions)
    decided = [
        _Outcome(intent=intent, position=positions[decision.arrival.entry])
        for decision in fresh
        for intent in decision.intents
    ]
    started = write.outcomes(decided, duplicates)
    write.outbox_deletions([decision.arrival for decision in fresh])
    return Routed(
        num_accepted=len(fresh),
        num_known=len(known),
        num_outcomes=len(decided),
        started=started,
        reused=tuple(write.reused(known)),
    )


class _Write:
    """The steps of the transaction, in the order in which they must be called."""

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self._database = database
        self._connection = connection
        self._now: datetime = clock.utc_now()

    def events(
        self, decisions: Sequence[Decision], ruleset_version: int
    ) -> dict[tuple[str, str], int]:
        """Inserts events; gives the position of each that is new, by (incarnation, entry id)."""
        inserted = self._database.insert_new(
            self._connection,
            events,
            [_event_row(decision, ruleset_version) for decision in decisions],
            events.c.position,
            events.c.incarnation,
            events.c.entry_id,
        )
        positions = {(row.incarnation, row.entry_id): row.position for row in inserted}
        # only after the insert: from here on nobody can bury these (see dead_letters)
        for entry in buried(self._connection, positions):
            position = positions.pop(entry)
            self._connection.execute(sa.delete(events).where(events.c.position == position))
        return positions

    def keys(
        self, arrivals: Sequence[Arrival], positions: dict[tuple[str, str], int]
    ) -> dict[int, str]:
        """Remembers (source, id); gives the reason of each duplicate, by position."""
        first: dict[tuple[str, str], Arrival] = {}
        for arrival in arrivals:
            first.setdefault(arrival.key, arrival)
        rows = [
            {
                "source": source,
                "event_id": event_id,
                "position": positions[first[source, event_id].entry],
                "content_digest": first[source, event_id].content_digest,
                "seen_at": self._now,
            }
            for source, event_id in sorted(first)
        ]
        columns = (event_keys.c.source, event_keys.c.event_id)
        inserted = self._database.insert_new(self._connection, event_keys, rows, *columns)
        new = {(row.source, row.event_id) for row in inserted}
        again = [
            arrival
            for arrival in arrivals
            if arrival.key not in new or first[arrival.key] is not arrival
        ]
        return self._mark_duplicates(again, positions) if again else {}

    def _mark_duplicates(
        self, arrivals: Sequence[Arrival], positions: dict[tuple[str, str], int]
    ) -> dict[int, str]:
        originals = self._originals({arrival.key for arrival in arrivals})
        reasons: dict[int, str] = {}
        marks = []
        for arrival in arrivals:
            original, content_digest = originals[arrival.key]
            position = positions[arrival.entry]
            same = content_digest == arrival.content_digest
            reasons[position] = DUPLICATE if same else DUPLICATE_DIFFERS
            marks.append({"at": position, "of": original})
        statement = sa.update(events).where(events.c.position == sa.bindparam("at"))
        self._connection.execute(statement.values(duplicate_of=sa.bindparam("of")), marks)
        return reasons

    def _originals(
        self, keys: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[int, str]]:
        found: dict[tuple[str, str], tuple[int, str]] = {}
        for source, event_ids in _by_source(keys).items():
            rows = self._connection.execute(
                sa.select(
                    event_keys.c.event_id, event_keys.c.position, event_keys.c.content_digest
                ).where(event_keys.c.source == source, event_keys.c.event_id.in_(event_ids))
            )
            found |= {(source, row.event_id): (row.position, row.content_digest) for row in rows}
        return found

    def outcomes(self, decided: Sequence[_Outcome], duplicates: dict[int, str]) -> Counter[str]:
        """Settles and writes every outcome; gives the runs that were accepted, per queue."""
        if not decided:
            return Counter()
        for outcome in decided:
            if outcome.position in duplicates:
                outcome.settle(OutcomeState.SUPPRESSED, duplicates[outcome.position])
            elif outcome.intent.fault is not None:
                outcome.settle(OutcomeState.DEAD, outcome.intent.fault)
        self._find_jobs(_runs(_open(decided)))
        self._claim_objects(_open(decided))
        started = self._accept_runs(_runs(_open(decided)))
        owed = _open(decided)
        for outcome in owed:
            outcome.settle(OutcomeState.QUEUED, None)
        ordered = sorted(decided, key=lambda o: (o.position, o.intent.rule_id, o.intent.action))
        rows = [_outcome_row(outcome, self._now) for outcome in ordered]
        self._connection.execute(sa.insert(outcomes), rows)
        self._queue_effects(owed)
        return started

    def _find_jobs(self, candidates: Sequence[_Outcome]) -> None:
        jobs: dict[str, Resource | None] = {}
        for outcome in candidates:
            request = _run_request(outcome)
            name = request.job_name
            if name not in jobs:
                jobs[name] = store.find(self._connection, Kind.JOB, name)
            job = jobs[name]
            if job is None:
                outcome.settle(OutcomeState.DEAD, f"no job named {name!r}")
                continue
            try:
                spec = JobSpec.model_validate(job.spec).overridden(request.overrides)
            except ValidationError as error:
                outcome.settle(OutcomeState.DEAD, f"job {name!r} with these overrides: {error}")
                continue
            outcome.job, outcome.spec = job, spec

    def _claim_objects(self, candidates: Sequence[_Outcome]) -> None:
        first: dict[tuple[str, str, str, str], _Outcome] = {}
        for outcome in candidates:
            if outcome.intent.occurrence.kind != "object":
                continue
            if first.setdefault(outcome.claim, outcome) is not outcome:
                outcome.settle(OutcomeState.SUPPRESSED, SAME_OBJECT)
        columns = object_claims.primary_key.columns
        rows = [
            {**dict(zip(columns.keys(), claim, strict=True)), "outcome_id": outcome.outcome_id}
            for claim, outcome in sorted(first.items(), key=lambda item: item[0])
        ]
        won = self._database.insert_new(self._connection, object_claims, rows, *columns)
        for claim in first.keys() - {tuple(row) for row in won}:
            first[claim].settle(OutcomeState.SUPPRESSED, SAME_OBJECT)

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
                started[_queue(outcome.spec)] += 1
        return started

    def _queue_effects(self, owed: Sequence[_Outcome]) -> None:
        rows = [_effect_row(outcome, self._now) for outcome in owed]
        if rows:
            ordered = sorted(rows, key=lambda row: row["id"])
            self._connection.execute(sa.insert(effects), ordered)

    def outbox_deletions(self, arrivals: Iterable[Arrival]) -> None:
        """Takes events of ours out of the outbox: the ledger holds them now."""
        ours = [arrival.key for arrival in arrivals if arrival.source.startswith(OWN_SOURCE)]
        for source, event_ids in sorted(_by_source(ours).items()):
            self._connection.execute(
                sa.delete(outbox).where(
                    outbox.c.source == source, outbox.c.event_id.in_(sorted(event_ids))
                )
            )

    def reused(self, known: Sequence[Arrival]) -> list[Arrival]:
        """Known deliveries that are not what the ledger knows under their entry id."""
        if not known:
            return []
        digests: dict[tuple[str, str], str] = {}
        for life in {arrival.delivery.incarnation for arrival in known}:
            entry_ids = [a.delivery.entry_id for a in known if a.delivery.incarnation == life]
            rows = self._connection.execute(
                sa.select(events.c.entry_id, events.c.content_digest).where(
                    events.c.incarnation == life, events.c.entry_id.in_(entry_ids)
                )
            )
            digests |= {(life, entry_id): content_digest for entry_id, content_digest in rows}
        return [a for a in known if digests.get(a.entry, a.content_digest) != a.content_digest]


def _open(decided: Sequence[_Outcome]) -> list[_Outcome]:
    return [outcome for outcome in decided if outcome.state is None]


def _runs(decided: Sequence[_Outcome]) -> list[_Outcome]:
    """Those whose action starts a run."""
    return [outcome for outcome in decided if isinstance(outcome.intent.request, RunRequest)]


def _run_request(outcome: _Outcome) -> RunRequest:
    assert isinstance(outcome.intent.request, RunRequest)  # see `_runs`
    return outcome.intent.request


def _by_source(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for source, event_id in keys:
        grouped.setdefault(source, []).append(event_id)
    return grouped


def _queue(spec: JobSpec | None) -> str:
    """Where the run's first item of work waits (see jobs.runs)."""
    assert spec is not None  # a run was accepted from it
    return Mode.MINI_BATCH if spec.mode is Mode.AUTO else spec.mode


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
    )


def _event_row(decision: Decision, ruleset_version: int) -> dict[str, Any]:
    arrival = decision.arrival
    return {
        "incarnation": arrival.delivery.incarnation,
        "entry_id": arrival.delivery.entry_id,
        "source": arrival.source,
        "event_id": arrival.event_id,
        "type": arrival.event_type,
        "subject": arrival.subject,
        "body": arrival.body,
        "content_digest": arrival.content_digest,
        "ruleset_version": ruleset_version,
        "matched": list(decision.matched),
        "accepted_at": arrival.accepted_at,
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


def _outcome_row(outcome: _Outcome, now: datetime) -> dict[str, Any]:
    intent = outcome.intent
    return {
        "id": outcome.outcome_id,
        "position": outcome.position,
        "rule_id": intent.rule_id,
        "rule_version": intent.rule_version,
        "action": intent.action,
        "epoch": LIVE_EPOCH,
        "state": outcome.state,
        "reason": None if outcome.reason is None else outcome.reason.replace("\x00", "\\x00"),
        "occurrence": intent.occurrence.text,
        "run_id": outcome.run_id,
        "created_at": now,
        "updated_at": now,
    }
