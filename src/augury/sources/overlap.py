"""Whether a tick fires while the work of the previous one goes on.

Decided where ticks are recorded, from rows: the previous tick's event, the outcomes that it led to
and their runs. A tick whose event no router has seen yet counts as going on, for nobody knows what
it will start. So nothing above has to know of schedules, and any number of schedulers agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from augury import clock
from augury.jobs.states import OPEN_OUTCOMES, TERMINAL
from augury.resources.store import Resource
from augury.sources.spec import Overlap
from augury.storage.tables import event_keys, outbox, outcomes, runs, ticks

MOST_QUEUED = 100


class TickState(StrEnum):
    """What became of a tick."""

    FIRED = "FIRED"  #: its event was emitted; missed_count ticks before it were not
    MISSED = "MISSED"  #: the last of missed_count ticks that were not emitted
    SKIPPED = "SKIPPED"  #: not emitted, because the previous one's run was active
    QUEUED = "QUEUED"  #: is emitted once the previous one's run is over


def settle(
    policy: Overlap, fire: Sequence[datetime], *, busy: bool, num_queued: int = 0
) -> list[tuple[datetime, TickState]]:
    """What becomes of ticks that would fire (oldest first): pure.

    Args:
        policy: the schedule's.
        fire: nominal instants.
        busy: True if the previous tick's work goes on.
        num_queued: ticks that wait already; beyond `MOST_QUEUED` they are skipped.
    """
    if policy is Overlap.ALLOW:
        return [(at, TickState.FIRED) for at in fire]
    settled = []
    room = MOST_QUEUED - num_queued if policy is Overlap.QUEUE else 0
    free = not busy and not num_queued
    for at in fire:
        if free:
            settled.append((at, TickState.FIRED))
            free = False
        else:
            settled.append((at, TickState.QUEUED if room > 0 else TickState.SKIPPED))
            room -= 1
    return settled


def is_busy(connection: sa.Connection, schedule: Resource) -> bool:
    """True if what the schedule's last tick led to is not over."""
    last = connection.scalar(
        sa.select(ticks.c.nominal_at)
        .where(ticks.c.schedule_id == schedule.id, ticks.c.state == TickState.FIRED)
        .order_by(ticks.c.nominal_at.desc())
        .limit(1)
    )
    return last is not None and _goes_on(connection, *tick_event_key(schedule, last))


def tick_event_key(schedule: Resource, nominal_at: datetime) -> tuple[str, str]:
    """(source, id) of a tick's event."""
    return f"augury/schedules/{schedule.name}", f"{schedule.id}:{clock.iso(nominal_at)}"


def _goes_on(connection: sa.Connection, source: str, event_id: str) -> bool:
    # in this order: the router moves an event from the outbox into the ledger
    waits = sa.select(outbox.c.id).where(outbox.c.source == source, outbox.c.event_id == event_id)
    if connection.execute(waits).first() is not None:
        return True
    position = connection.scalar(
        sa.select(event_keys.c.position).where(
            event_keys.c.source == source, event_keys.c.event_id == event_id
        )
    )
    if position is None:
        return False  # it was buried, or forgotten long ago
    active = (
        sa.select(outcomes.c.id)
        .select_from(outcomes.outerjoin(runs, runs.c.id == outcomes.c.run_id))
        .where(
            outcomes.c.position == position,
            sa.or_(outcomes.c.state.in_(OPEN_OUTCOMES), runs.c.state.not_in(TERMINAL)),
        )
    )
    return connection.execute(active.limit(1)).first() is not None
