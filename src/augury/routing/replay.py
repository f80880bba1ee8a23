"""Past events through a rule again, as an epoch of its own.

A replay is a row with its progress. Each step decides about one page of events and writes the
outcomes, the runs and the progress in one transaction, by the same code that routes what arrives,
under the replay's id as epoch. So a step happens once however many processes carry the replay on,
a crash repeats at most a decision, and the same id asked for again goes on instead of doubling.
Its runs wait for live work (`jobs.states.Priority`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury import clock, ids
from augury.bus.outbox import emit
from augury.errors import ConflictError, InvalidError, NotFoundError
from augury.events.catalog import OWN_SOURCE, EventType
from augury.events.envelope import new_event
from augury.models import registry
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.again import RuleAgain
from augury.routing.ledger import EventFilter
from augury.routing.outcomes import LIVE_EPOCH, write_outcomes
from augury.routing.silences import SILENCE_EPOCH
from augury.rules.ruleset import RuleVersion
from augury.rules.spec import RuleSpec
from augury.storage.tables import outcomes, replays, rule_versions, rules

if TYPE_CHECKING:
    from augury.routing.again import Decided
    from augury.routing.history import History
    from augury.storage.database import Database

_EPOCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")

# what its events tell of it
_TOLD = (
    *("id", "rule_id", "rule_version", "model", "state"),
    *("num_events", "num_matched", "num_outcomes"),
)
_TAKEN = (LIVE_EPOCH, SILENCE_EPOCH)  # epochs that are no replays


class ReplayState(StrEnum):
    """Where a replay is."""

    RUNNING = "RUNNING"  #: goes on until it has decided about every event
    DONE = "DONE"  #: every event is decided; the runs may still be going on
    CANCELED = "CANCELED"  #: stopped; what it started goes on


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One replay.

    Attributes:
        id: the epoch of its outcomes and runs.
        model: `name@version` of every run; None: what the rule or its job says.
        since, until: only events accepted in between (`until` exclusive); None: without bound.
        last_position: the newest event when it was asked for; later ones are not replayed.
        position: everything up to here is decided.
        num_events: events in the time that were looked at.
        num_matched: those that the rule matches.
        num_outcomes: outcomes written in this epoch.
        num_resumes: how often it went on after it was canceled.
        last_error: why it does not go on at the moment; None: it does.
    """

    id: str
    rule_id: str
    rule_version: int
    model: str | None
    since: datetime | None
    until: datetime | None
    last_position: int
    state: ReplayState
    position: int
    num_events: int
    num_matched: int
    num_outcomes: int
    num_resumes: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def wanted(self) -> EventFilter:
        """Which events it looks at."""
        return EventFilter(since=self.since, until=self.until)


@dataclass(frozen=True, kw_only=True)
class ReplayRequest:
    """What is asked for; the fields as in `Replay`. `model` may be any reference to a version."""

    rule: str
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    epoch: str | None = None


def start_replay(
    database: Database, connection: sa.Connection, request: ReplayRequest, newest: int
) -> tuple[Replay, bool]:
    """Records a replay; any sweeper carries it on.

    Args:
        database: for the dialect.
        connection: the transaction.
        request: what is asked for.
        newest: the ledger's last position (`History.newest`): where the replay ends.

    Returns:
        The replay, and False if its id was asked for before: then it is that one, as it is now; one
        that was canceled goes on.

    Raises:
        NotFoundError: no such rule or model.
        InvalidError: no epoch that can be one.
        ConflictError: the id was used for another replay.
    """
    epoch = request.epoch or ids.new_id("replay")
    if not _EPOCH.match(epoch) or epoch in _TAKEN:
        raise InvalidError(
            "expected up to 100 letters, digits, '_', '-' and '.' as epoch, beginning with one of "
            f"the first two, and none of {', '.join(_TAKEN)}; found {epoch!r:.120}"
        )
    rule = store.get(connection, Kind.RULE, request.rule)
    now = clock.utc_now()
    row = {
        "id": epoch,
        "rule_id": rule.id,
        "rule_version": rule.version,
        "model": _pinned(connection, request.model),
        "since": request.since,
        "until": request.until,
        "last_position": newest,
        "state": ReplayState.RUNNING,
        "position": 0,
        "created_at": now,
        "updated_at": now,
    }
    inserted = database.insert_new(connection, replays, [row], replays.c.id)
    found = get_replay(connection, epoch)
    if not inserted:
        _check_same(found, row)
    else:
        _tell(database, connection, EventType.REPLAY_CREATED, found)
    if found.state is ReplayState.CANCELED:
        _resume(database, connection, epoch)
        found = get_replay(connection, epoch)
    return found, bool(inserted)


def _resume(database: Database, connection: sa.Connection, replay_id: str) -> None:
    """Lets a canceled one go on; of two that ask at once one does, and tells."""
    changed = connection.execute(
        sa.update(replays)
        .where(replays.c.id == replay_id, replays.c.state == ReplayState.CANCELED)
        .values(
            state=ReplayState.RUNNING,
            num_resumes=replays.c.num_resumes + 1,
            updated_at=clock.utc_now(),
            finished_at=None,
        )
        .returning(replays)
    ).one_or_none()
    if changed is not None:
        _tell(database, connection, EventType.REPLAY_RESUMED, _replay(changed))


def _tell(
    database: Database, connection: sa.Connection, event_type: EventType, replay: Replay
) -> None:
    """Emits what became of a replay, in the transaction that made it so."""
    data = {name: getattr(replay, name) for name in _TOLD}
    subject = f"replays/{replay.id}"
    # each happens at most once between two resumes; the prefix keeps epochs, which people name,
    # apart from the ids of runs and resources
    event_id = f"replay:{replay.id}:{event_type.rpartition('.')[2]}:{replay.num_resumes}"
    event = new_event(event_type, data, source=OWN_SOURCE, subject=subject, event_id=event_id)
    emit(database, connection, [event])


def _pinned(connection: sa.Connection, model: str | None) -> str | None:
    """The version that a reference names now: an alias that moves must not change a replay."""
    if model is None:
        return None
    version = registry.resolve(connection, model)
    return f"{version.name}@{version.version}"


def _check_same(found: Replay, wanted: dict[str, object]) -> None:
    """The rule's version and the ledger's end are those of the first time."""
    differing = [
        name
        for name in ("rule_id", "model", "since", "until")
        if getattr(found, name) != wanted[name]
    ]
    if differing:
        named = ", ".join(f"{name}={getattr(found, name)}" for name in differing)
        raise ConflictError(
            f"epoch {found.id!r} is a replay with {named}; give this one another epoch, or repeat "
            "that one exactly to go on with it",
            epoch=found.id,
        )


def get_replay(connection: sa.Connection, replay_id: str) -> Replay:
    """One replay.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = connection.execute(sa.select(replays).where(replays.c.id == replay_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no replay {replay_id!r}; `augury replays list` shows all")
    return _replay(row)


def list_replays(
    connection: sa.Connection,
    *,
    state: ReplayState | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[Replay]:
    """Replays, newest first, at most `limit`, older than the one of id `before`."""
    select = sa.select(replays).order_by(replays.c.created_at.desc(), replays.c.id.desc())
    if state is not None:
        select = select.where(replays.c.state == state)
    if before is not None:
        last = get_replay(connection, before)
        created = sa.literal(last.created_at, replays.c.created_at.type)
        older = sa.tuple_(replays.c.created_at, replays.c.id) < sa.tuple_(created, last.id)
        select = select.where(older)
    return [_replay(row) for row in connection.execute(select.limit(limit))]


def running_replays(connection: sa.Connection) -> list[Replay]:
    """Those that have to go on, the oldest first."""
    running = sa.text("replays.state = 'RUNNING'")  # written out for the partial index
    select = sa.select(replays).where(running).order_by(replays.c.created_at)
    return [_replay(row) for row in connection.execute(select)]


def cancel_replay(database: Database, connection: sa.Connection, replay_id: str) -> Replay:
    """Stops a replay in the caller's transaction; a second time changes nothing.

    What it decided stays: runs that it started go on, and may be canceled one by one. Asked for
    again under the same id, it goes on where it stopped.

    Raises:
        NotFoundError: no such replay.
        ConflictError: it is done.
    """
    locked = database.lock_rows(sa.select(replays.c.state).where(replays.c.id == replay_id))
    state = connection.scalar(locked)
    if state == ReplayState.DONE:
        raise ConflictError(f"replay {replay_id} is done; its runs can be canceled one by one")
    if state == ReplayState.RUNNING:
        now = clock.utc_now()
        connection.execute(
            sa.update(replays)
            .where(replays.c.id == replay_id)
            .values(state=ReplayState.CANCELED, updated_at=now, finished_at=now)
        )
        canceled = get_replay(connection, replay_id)
        _tell(database, connection, EventType.REPLAY_CANCELED, canceled)
    return get_replay(connection, replay_id)


def count_states(connection: sa.Connection, replay: Replay) -> dict[str, int]:
    """Number of outcomes of a replay in each state that occurs; archived ones are not counted."""
    select = (
        sa.select(outcomes.c.state, sa.func.count().label("number"))
        .where(outcomes.c.rule_id == replay.rule_id, outcomes.c.epoch == replay.id)
        .group_by(outcomes.c.state)
    )
    return {row.state: row.number for row in connection.execute(select)}


def _replay(row: sa.Row[tuple[object, ...]]) -> Replay:
    return Replay(**{**row._mapping, "state": ReplayState(row.state)})


# --- carrying on ----------------------------------------------------------------------------------


def carry_on(database: Database, history: History, replay: Replay) -> Counter[str] | None:
    """Decides about the next page of events, in one transaction with the progress.

    Args:
        database: the ledger.
        history: of all events.
        replay: as it was read; if somebody else was faster, nothing happens.

    Returns:
        Runs that were accepted, per queue in which their first work waits; None if the replay
        needs no more steps.

    Raises:
        AuguryError: a file of the archive cannot be read, or the rule cannot; nothing was written.
    """
    page = next(
        history.pages(replay.wanted, after=replay.position, until=replay.last_position), None
    )
    reached, past = page or (replay.last_position, [])
    with database.read() as connection:
        rule = rule_version(connection, replay.rule_id, replay.rule_version)
    decided = RuleAgain(rule, model=replay.model).decide(past)
    step = _Step(replay=replay, decided=decided, num_events=len(past), reached=reached)
    return database.transact(lambda connection: _write(database, connection, step))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One page, decided: `reached` is the position up to which everything was looked at."""

    replay: Replay
    decided: Decided
    num_events: int
    reached: int


def _write(database: Database, connection: sa.Connection, step: _Step) -> Counter[str] | None:
    """Outcomes, runs and progress; nothing if another process did this step or it was canceled."""
    replay, decided = step.replay, step.decided
    locked = database.lock_rows(sa.select(replays).where(replays.c.id == replay.id))
    present = _replay(connection.execute(locked).one())
    if present.state is not ReplayState.RUNNING:
        return None
    if present.position != replay.position:
        return Counter()
    started = write_outcomes(
        database, connection, decided.intents, epoch=replay.id, duplicates=decided.duplicates
    )
    is_done = step.reached >= replay.last_position
    now = clock.utc_now()
    connection.execute(
        sa.update(replays)
        .where(replays.c.id == replay.id)
        .values(
            position=step.reached,
            num_events=replays.c.num_events + step.num_events,
            num_matched=replays.c.num_matched + decided.num_matched,
            num_outcomes=replays.c.num_outcomes + len(decided.intents),
            state=ReplayState.DONE if is_done else ReplayState.RUNNING,
            last_error=None,
            updated_at=now,
            finished_at=now if is_done else None,
        )
    )
    if is_done:
        done = get_replay(connection, replay.id)
        _tell(database, connection, EventType.REPLAY_DONE, done)
    return started


def note_error(connection: sa.Connection, replay_id: str, error: str) -> None:
    """Records why a replay does not go on; it is tried again."""
    text, known = error.replace("\x00", "\\x00"), replays.c.last_error
    connection.execute(
        sa.update(replays)
        .where(replays.c.id == replay_id, replays.c.state == ReplayState.RUNNING)
        .where(known.is_(None) | (known != text))
        .values(last_error=text, updated_at=clock.utc_now())
    )


def rule_version(connection: sa.Connection, rule_id: str, version: int) -> RuleVersion:
    """A rule as it was at a version, be it disabled or deleted since.

    Raises:
        NotFoundError: there never was such a version.
    """
    row = connection.execute(
        sa.select(rule_versions.c.spec, rules.c.name)
        .join(rules, rules.c.id == rule_versions.c.id)
        .where(rule_versions.c.id == rule_id, rule_versions.c.version == version)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"no version {version} of rule {rule_id}")
    spec = RuleSpec.model_validate(row.spec)
    return RuleVersion(rule_id=rule_id, name=row.name, version=version, spec=spec)
