"""Actions that failed for good, as dead letters.

Written in the transaction in which the outcome becomes DEAD, by whoever sees it fail: the router
(no such job, an event that does not fill the action) or the deliverer of an effect. What people do
with dead letters is in `routing.dead_letters`, together with those of the bus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.jobs.states import DeadLetterState
from augury.storage.tables import dead_letters

ACTION = "action"


@dataclass(frozen=True, kw_only=True)
class ActionBurial:
    """An action of a rule to give up.

    Attributes:
        payload: the event's body.
        request: what the action asked for, filled from the event; None if it could not be filled.
        attempts: how often it was tried.
    """

    outcome_id: str
    position: int
    rule_id: str
    rule_version: int
    action: str
    payload: str
    request: Mapping[str, Any] | None
    reason: str
    attempts: int = 0


def bury_actions(connection: sa.Connection, burials: Sequence[ActionBurial]) -> None:
    """Writes a dead letter for each, in the caller's transaction."""
    if not burials:
        return
    common = {"kind": ACTION, "state": DeadLetterState.OPEN, "created_at": clock.utc_now()}
    rows = [{**asdict(burial), "id": ids.new_id("dead"), **common} for burial in burials]
    connection.execute(sa.insert(dead_letters), rows)
