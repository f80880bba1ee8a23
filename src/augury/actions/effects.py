"""Effects as the ledger knows them: what is owed to the outside, one row per outcome.

An effect's row is written in the transaction that writes its outcome, and its id is the outcome's:
the one key under which the outside may recognise a second delivery. Like work it is claimed by a
conditional UPDATE that adds one to its token, and reported under that token; each report moves the
outcome in the same transaction:

    WAITING ──> LEASED ──> DELIVERED        outcome QUEUED ──> DELIVERED
       ^          │  └───> DEAD                       └──> RETRYING ──> DELIVERED | DEAD
       └──────────┘

An attempt counts from the claim on, so an effect that kills its deliverers ends, too.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.actions.burial import ActionBurial, bury_actions
from augury.actions.effect import EffectRequest
from augury.actions.failures import DeliveryError, judge
from augury.jobs.states import OutcomeState
from augury.storage.database import Database
from augury.storage.tables import effects, events, outcomes, workers

# effects of this kind are for workers, all others for dispatchers; also the name of their queue
CALL = "call"
# what a dispatcher is registered with instead of a worker's queues
DISPATCHED = "effects"
_LOST = "the process that held it was lost"
# written out, not bound: only then does a partial index serve the query
_IS_WAITING = sa.text("effects.state = 'WAITING'")
_IS_LEASED = sa.text("effects.state = 'LEASED'")


class EffectState(StrEnum):
    """Where an effect is on its way out."""

    WAITING = "WAITING"  #: due at `next_attempt_at`
    LEASED = "LEASED"  #: a process delivers it under a fencing token
    DELIVERED = "DELIVERED"  #: confirmed by the outside
    DEAD = "DEAD"  #: given up; in the dead letters


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An effect in the hands of a process.

    Attributes:
        id: the outcome's; the idempotency key outside.
        request: the channel's fields, filled.
        retry: fields of `effect_specs.Retry`.
        token: of this claim; a later claim has a greater one.
        attempts: made so far, this one included.
        expires_at: a failure after this is the last one.
    """

    id: str
    position: int
    rule_id: str
    rule_version: int
    action: str
    kind: str
    target: str
    request: Mapping[str, Any]
    retry: Mapping[str, Any]
    token: int
    attempts: int
    worker_id: str
    expires_at: datetime


_COLUMNS = [effects.c[name] for name in Effect.__dataclass_fields__]


def effect_row(
    request: EffectRequest,
    *,
    outcome_id: str,
    position: int,
    rule_id: str,
    rule_version: int,
    action: str,
    now: datetime,
) -> dict[str, Any]:
    """The row of an effect that is owed from now on."""
    return {
        "id": outcome_id,
        "position": position,
        "rule_id": rule_id,
        "rule_version": rule_version,
        "action": action,
        "kind": request.kind,
        "target": request.target,
        "request": dict(request.fields),
        "retry": request.retry.model_dump(),
        "state": EffectState.WAITING,
        "queued_at": now,
        "expires_at": now + timedelta(seconds=request.retry.max_time_s),
        "next_attempt_at": now,
    }


def queue_again(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """Owes an effect anew, with a fresh budget, whether or not it was owed before."""
    fresh = {**row, "attempts": 0, "worker_id": None, "first_attempt_at": None, "done_at": None}
    known = connection.execute(sa.update(effects).where(effects.c.id == row["id"]).values(**fresh))
    if known.rowcount == 0:
        connection.execute(sa.insert(effects).values(**row))


# --- claims ---------------------------------------------------------------------------------------


def due_targets(connection: sa.Connection, *, calls: bool = False) -> dict[str, datetime]:
    """Targets for which something is due now, whoever waits longest first.

    Args:
        connection: a reading connection.
        calls: those of kind `call`, instead of all others.

    Returns:
        For each target the earliest `expires_at` of what is due.
    """
    oldest = sa.func.min(effects.c.next_attempt_at)
    expiry = sa.func.min(effects.c.expires_at)
    select = (
        sa.select(
            effects.c.target, sa.type_coerce(expiry, effects.c.expires_at.type).label("expiry")
        )
        .where(_IS_WAITING, effects.c.next_attempt_at <= clock.utc_now(), _of_kind(calls))
        .group_by(effects.c.target)
        .order_by(oldest, effects.c.target)
    )
    return {row.target: row.expiry for row in connection.execute(select)}


def count_due_calls(connection: sa.Connection, *, limit: int) -> int:
    """Effects of kind `call` that a worker may claim now; counted up to `limit`."""
    due = (
        sa.select(effects.c.id)
        .where(_IS_WAITING, effects.c.next_attempt_at <= clock.utc_now(), _of_kind(calls=True))
        .limit(limit)
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(due.subquery())) or 0


def _of_kind(calls: bool) -> sa.ColumnElement[bool]:
    return effects.c.kind == CALL if calls else effects.c.kind != CALL


def claim(
    database: Database, connection: sa.Connection, worker_id: str, target: str, count: int
) -> list[Effect]:
    """Takes up to `count` effects of a target that are due, those due longest first."""
    now = clock.utc_now()
    due = (
        sa.select(effects.c.id)
        .where(_IS_WAITING, effects.c.target == target, effects.c.next_attempt_at <= now)
        .order_by(effects.c.next_attempt_at, effects.c.id)
        .limit(count)
    )
    taken = sorted(connection.scalars(database.lock_rows(due, skip_locked=True)))
    if not taken:
        return []
    first = sa.func.coalesce(effects.c.first_attempt_at, sa.literal(now, effects.c.queued_at.type))
    rows = connection.execute(
        sa.update(effects)
        .where(effects.c.id.in_(taken), effects.c.state == EffectState.WAITING)
        .values(
            state=EffectState.LEASED,
            token=effects.c.token + 1,
            attempts=effects.c.attempts + 1,
            worker_id=worker_id,
            first_attempt_at=first,
            last_attempt_at=now,
            next_attempt_at=None,
        )
        .returning(*_COLUMNS)
    )
    return sorted((Effect(**row._mapping) for row in rows), key=lambda effect: effect.id)


# --- reports --------------------------------------------------------------------------------------


def report(
    connection: sa.Connection, results: Iterable[tuple[Effect, DeliveryError | None]]
) -> int:
    """Records how attempts ended: None is success. What was lost meanwhile is left as it is.

    Returns:
        Number of attempts that were still this process's to report.
    """
    ordered = sorted(results, key=lambda result: result[0].id)
    return sum(_report(connection, effect, error) for effect, error in ordered)


def _report(connection: sa.Connection, effect: Effect, error: DeliveryError | None) -> bool:
    now = clock.utc_now()
    if error is None:
        return _move(connection, effect, EffectState.DELIVERED, OutcomeState.DELIVERED, done_at=now)
    verdict = judge(
        error,
        attempts=effect.attempts,
        retry=effect.retry,
        now=now,
        expires_at=effect.expires_at,
        jitter=random.random(),
    )
    reason = verdict.reason.replace("\x00", "\\x00")
    if verdict.next_attempt_at is not None:
        return _move(
            connection,
            effect,
            EffectState.WAITING,
            OutcomeState.RETRYING,
            reason=reason,
            next_attempt_at=verdict.next_attempt_at,
        )
    return _die(connection, effect, reason)


def _die(connection: sa.Connection, effect: Effect, reason: str) -> bool:
    now = clock.utc_now()
    if not _move(
        connection, effect, EffectState.DEAD, OutcomeState.DEAD, reason=reason, done_at=now
    ):
        return False
    body = sa.select(events.c.body).where(events.c.position == effect.position)
    burial = ActionBurial(
        outcome_id=effect.id,
        position=effect.position,
        rule_id=effect.rule_id,
        rule_version=effect.rule_version,
        action=effect.action,
        payload=connection.scalar(body) or "",
        request={"kind": effect.kind, **effect.request},
        reason=reason,
        attempts=effect.attempts,
    )
    bury_actions(connection, [burial])
    return True


def _move(
    connection: sa.Connection,
    effect: Effect,
    to: EffectState,
    outcome: OutcomeState,
    *,
    reason: str | None = None,
    **values: Any,
) -> bool:
    """Ends a claim, and moves the outcome with it; False if the claim is not the last one."""
    held = (
        effects.c.id == effect.id,
        effects.c.state == EffectState.LEASED,
        effects.c.token == effect.token,
        effects.c.worker_id == effect.worker_id,
    )
    if reason is not None:
        values["last_error"] = reason
    changed = connection.execute(
        sa.update(effects).where(*held).values(state=to, worker_id=None, **values)
    )
    if changed.rowcount != 1:
        return False
    connection.execute(
        sa.update(outcomes)
        .where(outcomes.c.id == effect.id)
        .values(state=outcome, reason=reason, updated_at=clock.utc_now())
    )
    return True


def give_up_expired(
    database: Database, connection: sa.Connection, target: str, *, why: str, limit: int = 100
) -> int:
    """Ends effects of a target that does not work, whose time is over while they waited for it.

    Returns:
        Number of effects that are dead now.
    """
    now = clock.utc_now()
    select = (
        sa.select(*_COLUMNS)
        .where(_IS_WAITING, effects.c.target == target)
        .where(effects.c.next_attempt_at <= now, effects.c.expires_at <= now)
        .order_by(effects.c.id)
        .limit(limit)
    )
    rows = connection.execute(database.lock_rows(select, skip_locked=True)).all()
    for row in rows:
        effect = Effect(**{**row._mapping, "worker_id": ""})
        _seize(connection, effect)
        _die(connection, effect, f"its time is over, and {target} does not work: {why}")
    return len(rows)


def _seize(connection: sa.Connection, effect: Effect) -> None:
    connection.execute(
        sa.update(effects)
        .where(effects.c.id == effect.id)
        .values(state=EffectState.LEASED, worker_id="")
    )


# --- what holders leave behind --------------------------------------------------------------------


def release(connection: sa.Connection, worker_id: str, *, keep: Collection[str] = ()) -> int:
    """Gives back what a process holds and has not begun; the attempts do not count."""
    select = sa.select(effects.c.id).where(_IS_LEASED, effects.c.worker_id == worker_id)
    given = sorted(set(connection.scalars(select)) - set(keep))
    if given:
        connection.execute(
            sa.update(effects)
            .where(effects.c.id.in_(given), effects.c.worker_id == worker_id)
            .values(
                state=EffectState.WAITING,
                attempts=effects.c.attempts - 1,
                worker_id=None,
                next_attempt_at=clock.utc_now(),
            )
        )
    return len(given)


def is_holding(connection: sa.Connection, worker_id: str) -> bool:
    """Whether a process holds anything."""
    select = sa.select(effects.c.id).where(_IS_LEASED, effects.c.worker_id == worker_id)
    return connection.execute(select.limit(1)).first() is not None


def silent_holders(connection: sa.Connection) -> dict[str, int]:
    """Heartbeat counter of each process that holds something though it says that it stopped."""
    select = (
        sa.select(workers.c.id, workers.c.heartbeat)
        .join(effects, effects.c.worker_id == workers.c.id)
        .where(_IS_LEASED, workers.c.stopped_at.is_not(None))
    )
    return {row.id: row.heartbeat for row in connection.execute(select)}


def expire(
    database: Database, connection: sa.Connection, worker_id: str, heartbeat: int
) -> Sequence[Effect]:
    """Takes every effect from a process whose heartbeat counter still is `heartbeat`.

    The attempt counts: it may have reached the outside.

    Returns:
        The effects; none if the process has moved its counter meanwhile.
    """
    beats = sa.select(workers.c.heartbeat).where(workers.c.id == worker_id)
    if connection.scalar(database.lock_rows(beats)) != heartbeat:
        return ()
    select = sa.select(*_COLUMNS).where(_IS_LEASED, effects.c.worker_id == worker_id)
    held = [Effect(**row._mapping) for row in connection.execute(select.order_by(effects.c.id))]
    report(connection, [(effect, DeliveryError(_LOST)) for effect in held])
    return held
