"""Trying again what was given up, once and on a person's word.

An entry is published again exactly as it came; if it fails again it becomes another dead letter.
An action is decided again from the event's payload by the rule as it is *now*, against the jobs
that there are now: most often one of these was mended in between. It keeps its outcome, and with
it the occurrence and the idempotency key, so whatever happened before is recognised. The action of
a group is decided again for the whole group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from augury import clock
from augury.actions.effect import EffectRequest
from augury.actions.effects import CALL, effect_row, queue_again
from augury.actions.resolve import Request, resolve
from augury.actions.spec import ActionSpec, parse_actions
from augury.actions.start_run import RunRequest
from augury.errors import ConflictError, InvalidError
from augury.events.envelope import parse_event
from augury.jobs.acceptance import first_queue
from augury.jobs.runs import RunDraft, accept_runs, run_key
from augury.jobs.states import DeadLetterState, OutcomeState
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.dead_letters import ENTRY, DeadLetter, settle
from augury.routing.epochs import in_epoch, priority_of
from augury.routing.lanes import act_again
from augury.routing.outcomes import SAME_OBJECT, SAME_OCCURRENCE, fitted_job
from augury.routing.rule_versions import RuleVersions
from augury.storage.database import Database
from augury.storage.tables import object_claims, outbox, outcomes, rules

_OBJECT = "object:"


def redrive(
    database: Database, connection: sa.Connection, dead_letter_id: str
) -> tuple[DeadLetter, Counter[str]]:
    """Tries a dead letter again and marks it, in the caller's transaction.

    Returns:
        The letter, and what is ready for workers now, by queue.

    Raises:
        NotFoundError: no such dead letter; or its action names a job that does not exist.
        ConflictError: it was redriven or discarded before; or its rule or action is gone.
        InvalidError: what it holds is no event, or the event does not fill the action: nothing
            was changed, and it stays open.
    """
    letter = settle(database, connection, dead_letter_id, DeadLetterState.REDRIVEN)
    if letter.kind == ENTRY:
        _publish_again(database, connection, letter)
        return letter, Counter()
    return letter, _Action(database, connection, letter).redrive()


def _publish_again(database: Database, connection: sa.Connection, letter: DeadLetter) -> None:
    event = parse_event(letter.payload, max_bytes=max(len(letter.payload.encode()), 1))
    row = {
        "source": event.source,
        "event_id": event.id,
        "body": letter.payload,  # the bytes that came: the ledger compares content
        "created_at": clock.utc_now(),
    }
    database.insert_new(connection, outbox, [row], outbox.c.id)


class _Action:
    """One action that is decided again."""

    def __init__(self, database: Database, connection: sa.Connection, letter: DeadLetter) -> None:
        self._database = database
        self._connection = connection
        self._letter = letter
        found = sa.select(outcomes).where(outcomes.c.id == letter.outcome_id)
        self._outcome: Any = connection.execute(database.lock_rows(found)).one_or_none()

    def redrive(self) -> Counter[str]:
        if self._outcome is None or self._outcome.state != OutcomeState.DEAD:
            state = "gone" if self._outcome is None else self._outcome.state
            raise ConflictError(
                f"expected outcome {self._letter.outcome_id} to be DEAD, found it {state}"
            )
        self._present_action()  # raises if there is none
        grouped = act_again(self._database, self._connection, self._outcome.id, RuleVersions())
        if grouped is not None:
            return grouped
        request, rule_version = self._decide()
        if not self._claim_object():
            self._settle(OutcomeState.SUPPRESSED, SAME_OBJECT)
            return Counter()
        if isinstance(request, RunRequest):
            return self._start(request)
        return self._queue(request, rule_version)

    def _decide(self) -> tuple[Request, int]:
        action, rule_version = self._present_action()
        document: Mapping[str, Any] = msgspec.json.decode(self._letter.payload)
        return resolve(action, document), rule_version

    def _present_action(self) -> tuple[ActionSpec, int]:
        row = self._connection.execute(
            sa.select(rules).where(rules.c.id == self._letter.rule_id, rules.c.deleted_at.is_(None))
        ).one_or_none()
        if row is None:
            raise ConflictError(
                f"rule {self._letter.rule_id} was deleted, so nobody says what to do; discard the "
                "dead letter"
            )
        name = self._letter.action
        for action in parse_actions(row.spec["actions"]):
            if action.name == name:
                return action, row.version
        raise ConflictError(
            f"rule {row.name!r} has no action {name!r} any more; give it one of this name, or "
            "discard the dead letter"
        )

    def _claim_object(self) -> bool:
        """False if another outcome has the object."""
        outcome = self._outcome
        if not (outcome.occurrence or "").startswith(_OBJECT):
            return True
        key = {
            "rule_id": outcome.rule_id,
            "action": outcome.action,
            "epoch": outcome.epoch,
            "object_identity": outcome.occurrence.removeprefix(_OBJECT),
        }
        row = {**key, "outcome_id": outcome.id, "position": outcome.position}
        self._database.insert_new(self._connection, object_claims, [row], *object_claims.c)
        where = [object_claims.c[name] == value for name, value in key.items()]
        held = sa.select(object_claims.c.outcome_id).where(*where)
        return bool(self._connection.scalar(held) == outcome.id)

    def _start(self, request: RunRequest) -> Counter[str]:
        outcome = self._outcome
        request = in_epoch(self._connection, request, outcome.epoch)
        fitted = fitted_job(store.get(self._connection, Kind.JOB, request.job_name), request)
        if isinstance(fitted, str):
            raise InvalidError(fitted)
        job, spec = fitted
        draft = RunDraft(
            run_key=run_key(outcome.rule_id, outcome.action, outcome.epoch, outcome.occurrence),
            job=job,
            spec=spec,
            inputs=spec.input,
            position=outcome.position,
            outcome_id=outcome.id,
            display_name=request.overrides.display_name,
            epoch=outcome.epoch,
            priority=priority_of(outcome.epoch),
        )
        accepted = accept_runs(self._database, self._connection, [draft])
        if draft.run_key not in accepted:
            self._settle(OutcomeState.SUPPRESSED, SAME_OCCURRENCE)
            return Counter()
        self._settle(OutcomeState.STARTED, None, run_id=accepted[draft.run_key])
        return Counter({str(first_queue(spec)): 1})

    def _queue(self, request: EffectRequest, rule_version: int) -> Counter[str]:
        outcome = self._outcome
        row = effect_row(
            request,
            outcome_id=outcome.id,
            position=outcome.position,
            rule_id=outcome.rule_id,
            rule_version=rule_version,
            action=outcome.action,
            now=clock.utc_now(),
        )
        queue_again(self._connection, row)
        self._settle(OutcomeState.QUEUED, None)
        return Counter({CALL: 1} if request.kind == CALL else {})

    def _settle(
        self, state: OutcomeState, reason: str | None, *, run_id: str | None = None
    ) -> None:
        self._connection.execute(
            sa.update(outcomes)
            .where(outcomes.c.id == self._outcome.id)
            .values(state=state, reason=reason, run_id=run_id, updated_at=clock.utc_now())
        )
