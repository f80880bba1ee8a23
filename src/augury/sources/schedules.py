"""The clockwork: decides which ticks are due, and lets each happen once.

A tick is a row, unique by schedule and nominal instant, written in one transaction with its event;
whoever comes second finds it there. What is due follows from the newest tick at or before now and
from the schedule itself, so a restart goes on where the last scheduler ended, a clock that is put
back repeats nothing, and one that was in the future for a while does not silence a schedule.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus import relay
from augury.bus.outbox import emit
from augury.bus.port import Bus
from augury.errors import UnavailableError
from augury.events.catalog import EventType
from augury.events.envelope import Event, new_event
from augury.resources.store import Kind, Resource
from augury.settings import Settings
from augury.sources.overlap import TickState, is_busy, settle, tick_event_key
from augury.sources.rhythm import between
from augury.sources.spec import Missed, Overlap, ScheduleSpec
from augury.sources.store import enabled
from augury.storage.database import Database
from augury.storage.tables import schedule_versions, schedules, ticks

_log = logging.getLogger(__name__)
_COLUMNS = (ticks.c.nominal_at, ticks.c.missed_count, ticks.c.state)
_LONGEST_WAIT_S = 1.0
_LONGEST_BACKOFF_S = 5.0
# most ticks that are decided in one transaction; of a longer absence, part by part
_DECIDED_AT_ONCE = 2000
_FIRED_AT_ONCE = 200
_ON_TIME = timedelta(seconds=30)
_NEVER = datetime.max.replace(tzinfo=UTC)
_RHYTHM = ("cron", "every_s", "at", "timezone", "spring", "autumn")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of the ticks that are due.

    Attributes:
        fire: nominal instants to fire, oldest first.
        missed: nominal instants that are recorded as one row.
    """

    fire: Sequence[datetime]
    missed: Sequence[datetime]


def decide(
    policy: Missed,
    due: Sequence[datetime],
    now: datetime,
    *,
    more: bool = False,
    limit: int | None = None,
) -> Decision:
    """Applies the policy to what is due (oldest first, at least one).

    Args:
        policy: the schedule's.
        due: nominal instants that came due since the last decision.
        now: what counts as on time ends half a minute before.
        more: True if still later ones are due as well.
        limit: of policy `bounded`: how many fire.
    """
    if policy is Missed.ALL:
        return Decision(fire=due, missed=())
    if policy is Missed.BOUNDED and limit is not None:
        # of a part, the newest are not the newest of all: they are decided with the next one
        undecided = more and len(due) > limit
        return Decision(fire=() if undecided else due[-limit:], missed=due[:-limit])
    late = policy is Missed.NONE and now - due[-1] > _ON_TIME
    if more or late:
        return Decision(fire=(), missed=due)
    return Decision(fire=due[-1:], missed=due[:-1])


class Schedules:
    """Lets all enabled schedules tick. Any number of processes may do so at the same time."""

    def __init__(self, database: Database, bus: Bus, settings: Settings) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._nothing_before: dict[tuple[str, int], tuple[datetime, datetime]] = {}

    def run(self, stop: threading.Event) -> None:
        """Ticks until `stop` is set; outlives any outage."""
        failures = 0
        while not stop.is_set():
            try:
                pause_s = self.step()
                failures = 0
            except UnavailableError as error:
                failures += 1
                pause_s = min(_LONGEST_BACKOFF_S, 0.25 * 2**failures)
                _log.warning("schedules wait: %s", error, extra={"action": "schedules_wait"})
            clock.sleep_s(pause_s, until=stop)

    def step(self) -> float:
        """Decides all that is due now.

        Returns:
            Seconds until something may be due, at most one: a clock that is changed, and a
            schedule that is applied, are noticed by then.

        Raises:
            UnavailableError: the database did not answer.
        """
        found = enabled(self._database, Kind.SCHEDULE)
        fired = sum(self._tick(schedule) for schedule in found)
        fired += release(self._database, found)
        if fired:
            self._flush()
        live = {(schedule.id, schedule.version) for schedule in found}
        self._nothing_before = {k: v for k, v in self._nothing_before.items() if k in live}
        now = clock.utc_now()
        waits = [(until - now).total_seconds() for _, until in self._nothing_before.values()]
        return max(0.0, min([_LONGEST_WAIT_S, *waits]))

    def _tick(self, schedule: Resource) -> int:
        now = clock.utc_now()
        key = (schedule.id, schedule.version)
        since, until = self._nothing_before.get(key, (now, now))
        if since <= now < until:
            return 0
        spec = ScheduleSpec.model_validate(schedule.spec)
        fired = tick(self._database, schedule, spec, now)
        self._nothing_before[key] = (now, spec.rhythm().after(now) or _NEVER)
        return fired

    def _flush(self) -> None:
        """For latency only: what is in the outbox the relay sends anyway."""
        try:
            relay.flush(self._database, self._bus, resend_s=self._settings.resend_s)
        except UnavailableError as error:
            _log.warning(
                "ticked, but not on the bus yet: %s", error, extra={"action": "tick_unsent"}
            )


def tick(database: Database, schedule: Resource, spec: ScheduleSpec, now: datetime) -> int:
    """Decides everything of one schedule that came due by `now` (inclusive).

    Returns:
        Number of events emitted; 0 if another scheduler was faster.
    """
    fired = 0
    while (start := _decided_until(database, schedule, now)) is not None:
        most = _FIRED_AT_ONCE if spec.missed is Missed.ALL else _DECIDED_AT_ONCE
        due = list(islice(between(spec.rhythm(), start, now), most + 1))
        if not due:
            break
        more = len(due) > most
        decision = decide(spec.missed, due[:most], now, more=more, limit=spec.missed_limit)
        work = partial(
            _record,
            database,
            schedule=schedule,
            policy=spec.overlap,
            start=start,
            now=now,
            decision=decision,
        )
        fired += database.transact(work)
    return fired


def _decided_until(database: Database, schedule: Resource, now: datetime) -> datetime | None:
    """Up to where all is decided; None if the schedule is no longer what it was."""
    with database.read() as connection:
        if connection.execute(_live(schedule)).first() is None:
            return None
        last = _last_tick(connection, schedule.id, now)
        begin = _counts_from(connection, schedule.id)
    return max(last, begin) if last is not None else begin


def _last_tick(connection: sa.Connection, schedule_id: str, now: datetime) -> datetime | None:
    found: datetime | None = connection.scalar(
        sa.select(ticks.c.nominal_at)
        .where(ticks.c.schedule_id == schedule_id, ticks.c.nominal_at <= now)
        .order_by(ticks.c.nominal_at.desc())
        .limit(1)
    )
    return found


def _counts_from(connection: sa.Connection, schedule_id: str) -> datetime:
    """Since when the schedule has its present rhythm and is enabled."""
    versions = connection.execute(
        sa.select(schedule_versions)
        .where(schedule_versions.c.id == schedule_id)
        .order_by(schedule_versions.c.version.desc())
    ).all()
    begin: datetime = versions[0].created_at
    for version in versions:
        if not version.enabled or _rhythm(version.spec) != _rhythm(versions[0].spec):
            break
        begin = version.created_at
    return begin


def _rhythm(spec: Mapping[str, Any]) -> list[Any]:
    return [spec.get(name) for name in _RHYTHM]


def _record(
    database: Database,
    connection: sa.Connection,
    *,
    schedule: Resource,
    policy: Overlap,
    start: datetime,
    now: datetime,
    decision: Decision,
) -> int:
    # of two schedulers one waits here, and then finds the ticks decided
    if connection.execute(database.lock_rows(_live(schedule))).first() is None:
        return 0
    last = _last_tick(connection, schedule.id, now)
    if last is not None and last > start:
        return 0  # somebody else decided meanwhile
    num_missed = len(decision.missed)
    missed = [_row(schedule, at, TickState.MISSED, num_missed) for at in decision.missed[-1:]]
    settled = _settled(connection, schedule, policy, decision.fire)
    # the first of those that fire says how many it comes after
    counts = [num_missed] + [0] * len(settled)
    rows = [
        _row(schedule, at, state, count)
        for (at, state), count in zip(settled, counts, strict=False)
    ]
    inserted = database.insert_new(connection, ticks, missed + rows, *_COLUMNS)
    fired = [row for row in sorted(inserted) if row.state == TickState.FIRED]
    events = [_event(schedule, row.nominal_at, row.missed_count) for row in fired]
    emit(database, connection, events)
    return len(fired)


def _settled(
    connection: sa.Connection, schedule: Resource, policy: Overlap, fire: Sequence[datetime]
) -> list[tuple[datetime, TickState]]:
    if policy is Overlap.ALLOW or not fire:
        return settle(policy, fire, busy=False)
    waiting = sa.select(sa.func.count()).where(
        ticks.c.schedule_id == schedule.id, ticks.c.state == TickState.QUEUED
    )
    num_queued = connection.scalar(waiting) or 0
    return settle(policy, fire, busy=is_busy(connection, schedule), num_queued=num_queued)


def release(database: Database, live: Sequence[Resource]) -> int:
    """Fires the oldest queued tick of each of these schedules whose previous tick's work is over.

    Returns:
        Number of events emitted.
    """
    with database.read() as connection:
        waiting = set(
            connection.scalars(
                sa.select(ticks.c.schedule_id).where(ticks.c.state == TickState.QUEUED).distinct()
            )
        )
        free = [s for s in live if s.id in waiting and not is_busy(connection, s)]
    return sum(database.transact(partial(_release, database, schedule=s)) for s in free)


def _release(database: Database, connection: sa.Connection, *, schedule: Resource) -> int:
    if connection.execute(database.lock_rows(_live(schedule))).first() is None:
        return 0
    queued = (ticks.c.schedule_id == schedule.id, ticks.c.state == TickState.QUEUED)
    oldest = connection.execute(
        sa.select(*_COLUMNS).where(*queued).order_by(ticks.c.nominal_at).limit(1)
    ).first()
    if oldest is None or is_busy(connection, schedule):
        return 0  # somebody else was faster
    connection.execute(
        sa.update(ticks)
        .where(*queued, ticks.c.nominal_at == oldest.nominal_at)
        .values(state=TickState.FIRED, recorded_at=clock.utc_now())
    )
    emit(database, connection, [_event(schedule, oldest.nominal_at, oldest.missed_count)])
    return 1


def _live(schedule: Resource) -> sa.Select[Any]:
    return sa.select(schedules.c.id).where(
        schedules.c.id == schedule.id,
        schedules.c.version == schedule.version,
        schedules.c.deleted_at.is_(None),
        schedules.c.enabled,
    )


def _row(
    schedule: Resource, nominal_at: datetime, state: TickState, missed_count: int
) -> dict[str, Any]:
    return {
        "schedule_id": schedule.id,
        "nominal_at": nominal_at,
        "state": state,
        "missed_count": missed_count,
        "recorded_at": clock.utc_now(),
    }


def _event(schedule: Resource, nominal_at: datetime, missed_count: int) -> Event:
    source, event_id = tick_event_key(schedule, nominal_at)
    data = {
        "schedule": schedule.name,
        "nominal_at": clock.iso(nominal_at),
        "missed_count": missed_count,
    }
    return new_event(
        EventType.SCHEDULE_TICKED, data, source=source, subject=schedule.name, event_id=event_id
    )
