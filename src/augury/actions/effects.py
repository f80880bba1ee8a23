"""Effects as the ledger knows them: what is owed to the outside, one row per outcome.

An effect's row is written in the transaction that writes its outcome, and its id is the outcome's:
the one key under which the outside may recognise a second delivery.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from augury.actions.effect import EffectRequest


class EffectState(StrEnum):
    """Where an effect is on its way out."""

    WAITING = "WAITING"  #: due at `next_attempt_at`
    LEASED = "LEASED"  #: a process delivers it under a fencing token
    DELIVERED = "DELIVERED"  #: confirmed by the outside
    DEAD = "DEAD"  #: given up; in the dead letters


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
