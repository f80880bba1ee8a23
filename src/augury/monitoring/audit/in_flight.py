"""What is on its way at the cut, by kind and age: shown, never judged here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury.bus.port import BusStatus
from augury.jobs.states import OPEN_OUTCOMES, TERMINAL, RunState, WorkState
from augury.monitoring.audit.report import InFlight
from augury.storage.tables import outbox, outcomes, runs, work

_OPEN_RUNS = [state for state in RunState if state not in TERMINAL]
_OPEN_WORK = (WorkState.WAITING, WorkState.READY, WorkState.LEASED)


def in_flight(connection: sa.Connection, status: BusStatus, now: datetime) -> list[InFlight]:
    """Everything that has begun and not ended, in the order of an event's life."""
    found = []
    waiting = status.pending + status.lag
    if waiting:
        found.append(InFlight(kind="bus entries", count=waiting, oldest_age_s=status.oldest_age_s))
    sent = sa.case((outbox.c.sent_at.is_(None), "unsent"), else_="sent")
    found += _by_state(connection, now, "outbox", sent, outbox.c.created_at)
    found += _by_state(
        connection,
        now,
        "outcomes",
        outcomes.c.state,
        outcomes.c.created_at,
        outcomes.c.state.in_(OPEN_OUTCOMES),
    )
    found += _by_state(
        connection, now, "runs", runs.c.state, runs.c.time_accepted, runs.c.state.in_(_OPEN_RUNS)
    )
    began = sa.type_coerce(
        sa.func.coalesce(work.c.leased_at, work.c.ready_at, runs.c.time_accepted),
        runs.c.time_accepted.type,
    )
    of_run = (work.c.state.in_(_OPEN_WORK), work.c.run_id == runs.c.id)
    found += _by_state(connection, now, "work", work.c.state, began, *of_run)
    return found


def _by_state(
    connection: sa.Connection,
    now: datetime,
    noun: str,
    state: sa.ColumnElement[Any],
    began: sa.ColumnElement[Any],
    *where: sa.ColumnElement[bool],
) -> list[InFlight]:
    counted = (sa.func.count().label("number"), sa.func.min(began).label("oldest"))
    select = sa.select(state.label("grouped"), *counted).where(*where)
    # by name: PostgreSQL takes two bound parameters of one value for two values
    select = select.group_by(sa.text("grouped")).order_by(sa.text("grouped"))
    return [
        InFlight(
            kind=f"{noun} {row.grouped}",
            count=row.number,
            oldest_age_s=max(0.0, (now - row.oldest).total_seconds()),
        )
        for row in connection.execute(select)
        if row.number
    ]
