"""What must hold for each tick: its state, what it stands for, and that somebody will fire it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from augury.monitoring.audit.check import Check, Finding, shown
from augury.storage.tables import schedules, ticks

_STATES = ("FIRED", "MISSED", "SKIPPED", "QUEUED")
_GONE = schedules.c.id.is_(None) | schedules.c.deleted_at.is_not(None)


def _state(connection: sa.Connection) -> Iterator[Finding]:
    select = (
        sa.select(ticks, schedules.c.name, _GONE.label("gone"))
        .select_from(ticks.outerjoin(schedules, schedules.c.id == ticks.c.schedule_id))
        .where(
            ticks.c.state.not_in(_STATES)
            | (ticks.c.missed_count < sa.case((ticks.c.state == "MISSED", 1), else_=0))
            | ((ticks.c.state == "QUEUED") & _GONE)
        )
    )
    for row in connection.execution_options(yield_per=500).execute(select):
        subject = f"tick of schedule {row.name or row.schedule_id} at {row.nominal_at}"
        yield Finding(subject, *_fault(row))


def _fault(row: sa.Row[Any]) -> tuple[str, str]:
    """(expected, found) of a tick that is wrong."""
    if row.state not in _STATES:
        return f"one of {', '.join(_STATES)}", shown(row.state)
    if row.state == "QUEUED" and row.gone:
        return "QUEUED only while its schedule exists", "no such schedule, or a deleted one"
    least = 1 if row.state == "MISSED" else 0
    return f"{row.state} with missed_count of at least {least}", f"{row.missed_count}"


STATE_CHECKS: tuple[Check[sa.Connection], ...] = (
    Check(
        name="tick_state",
        examine=_state,
        advice="the record of what a schedule did is wrong, or nobody will ever fire this tick: "
        "set a tick that waits for a deleted schedule to SKIPPED, start by hand what should have "
        "followed, and report a bug",
    ),
)
