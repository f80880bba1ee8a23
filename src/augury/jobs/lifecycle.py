"""How a run changes its state: one conditional UPDATE, with its event and its log line.

The states that may be left, and whether the commit has been decided, are part of the UPDATE's
condition. So of two transactions that race (cancel and commit, success and maximum run time) one
changes the run and the other learns that it did not. Every transaction that touches a run's work
takes the run's row first (`lock_run`), hence they wait for each other in one direction only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.outbox import emit
from augury.data.manifest import MANIFEST_KEY, manifest_key
from augury.events.catalog import OWN_SOURCE, EventType
from augury.events.envelope import Event, new_event
from augury.jobs import logs
from augury.jobs.states import TERMINAL, TRANSITIONS, RunState, WorkState
from augury.storage.database import Database, UtcDateTime
from augury.storage.tables import runs, work

PROGRESS_PERCENTS = (25, 50, 75)
# what the events of a run that goes on tell
EVENT_COLUMNS = (
    *("id", "name", "job_name", "state", "mode"),
    *("rows_in", "rows_done", "rows_predicted", "rows_rejected", "rows_filtered"),
)
# plan and manifest name every file, which may be megabytes; no event tells of them
SHORT_COLUMNS = [column for column in runs.c if column.name not in {"plan", "manifest"}]

# what decides how a run goes on. Every report takes it: few columns, and statements that are built
# once, because building one costs several times as much as running it
_STEERING = (
    runs.c.id,
    runs.c.state,
    runs.c.spec,
    runs.c.mode,
    runs.c.host,
    runs.c.time_committed,
    runs.c.shards_total,
    runs.c.shards_isolated,
)
_LOOK = sa.select(*_STEERING).where(runs.c.id == sa.bindparam("run"))
_LOCK = _LOOK.with_for_update()

_EVENT_TYPES = {
    RunState.ACCEPTED: EventType.RUN_ACCEPTED,
    RunState.IN_PROGRESS: EventType.RUN_STARTED,
    RunState.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunState.FAILED: EventType.RUN_FAILED,
    RunState.CANCELING: EventType.RUN_CANCELING,
    RunState.CANCELED: EventType.RUN_CANCELED,
    RunState.NEEDS_ATTENTION: EventType.RUN_NEEDS_ATTENTION,
    RunState.DELETED: EventType.RUN_DELETED,
}
# once the commit is decided the output is the run's result: nothing may take that back
_FORBIDDEN_ONCE_COMMITTED = frozenset(
    {RunState.FAILED, RunState.CANCELING, RunState.NEEDS_ATTENTION}
)
_ENDS_OPEN_WORK = frozenset({RunState.FAILED, RunState.CANCELING, RunState.CANCELED})


def lock_run(database: Database, connection: sa.Connection, run_id: str) -> Any:
    """What steers a run (`_STEERING`), locked until commit; None if there is no such run."""
    select = _LOOK if database.is_sqlite else _LOCK
    return connection.execute(select, {"run": run_id}).one_or_none()


def transition(
    database: Database,
    connection: sa.Connection,
    run_id: str,
    to: RunState,
    *,
    details: str,
    reason: str | None = None,
) -> bool:
    """Changes a run's state if its present one allows it; event and log line come with it.

    Work that nobody holds ends with the run; what a worker holds is let go by that worker.

    Args:
        database: for the dialect.
        connection: the transaction.
        run_id: which run.
        to: the new state.
        details: a sentence for people.
        reason: error code, for FAILED and CANCELED.

    Returns:
        False if the run is in a state from which `to` cannot be reached (perhaps it is there
        already), or its commit has been decided and `to` speaks against that.
    """
    values: dict[str, Any] = {"state": to, "lifecycle_details": details}
    if reason is not None:
        values["reason"] = reason
    if to is RunState.IN_PROGRESS:
        now = sa.literal(clock.utc_now(), runs.c.time_started.type)
        values["time_started"] = sa.func.coalesce(runs.c.time_started, now)
        values["num_returns"] = runs.c.num_returns + _comes_back()
    if to in TERMINAL and to is not RunState.DELETED:
        values["time_finished"] = clock.utc_now()
        # a script's output stays, whatever became of the run
        values["cleaned_at"] = sa.case((_is_script(), _now()), else_=runs.c.cleaned_at)
    if to is RunState.SUCCEEDED:
        left = sa.and_(sa.not_(_is_script()), _was_interrupted(run_id))
        values["cleaned_at"] = sa.case((left, None), else_=_now())
    changed = connection.execute(
        sa.update(runs).where(*_conditions(run_id, to)).values(**values).returning(*SHORT_COLUMNS)
    ).one_or_none()
    if changed is None:
        return False
    if to in _ENDS_OPEN_WORK:
        _end_open_work(connection, run_id)
    announce(database, connection, [changed])
    return True


def _conditions(run_id: str, to: RunState) -> list[sa.ColumnElement[bool]]:
    leaves = [state for state, reachable in TRANSITIONS.items() if to in reachable]
    conditions = [runs.c.id == run_id, runs.c.state.in_(leaves)]
    if to in _FORBIDDEN_ONCE_COMMITTED:
        conditions.append(runs.c.time_committed.is_(None))
    if to is RunState.SUCCEEDED:
        conditions.append(runs.c.time_committed.is_not(None))
    return conditions


def _now() -> sa.ColumnElement[Any]:
    return sa.literal(clock.utc_now(), UtcDateTime())


def _is_script() -> sa.ColumnElement[bool]:
    return runs.c.kind == "script"


def _comes_back() -> sa.ColumnElement[int]:
    """1 if the run was in progress before, 0 if it only begins."""
    return sa.case((runs.c.state == RunState.NEEDS_ATTENTION, 1), else_=0)


def _was_interrupted(run_id: str) -> sa.ColumnElement[bool]:
    """True if something was claimed twice: the first holder may have left a temporary file."""
    return sa.exists().where(work.c.run_id == run_id, work.c.token > 1)


def _end_open_work(connection: sa.Connection, run_id: str) -> None:
    connection.execute(
        sa.update(work)
        .where(work.c.run_id == run_id, work.c.state.in_((WorkState.WAITING, WorkState.READY)))
        .values(state=WorkState.CANCELED, done_at=clock.utc_now())
    )


def announce(database: Database, connection: sa.Connection, rows: Sequence[Any]) -> None:
    """Emits the event of each run's present state, and writes its `lifecycle_details` down."""
    emit(database, connection, [_state_event(row) for row in rows])
    for row in rows:
        level = "error" if row.state == RunState.FAILED else "info"
        logs.append(connection, row.id, level, row.lifecycle_details)


def _state_event(row: Any) -> Event:
    data = _event_data(row)
    state = RunState(row.state)
    if row.kind == "script":
        data |= _script_data(row)
    elif state is RunState.SUCCEEDED:
        data["output_uri"] = row.output_uri
        data["manifest_uri"] = f"{row.output_uri}{MANIFEST_KEY}"
        data["manifest_digest"] = row.manifest_digest
        data["complete"] = row.num_quarantined == 0
        data["num_quarantined"] = row.num_quarantined
    if row.reason is not None or state is RunState.FAILED:
        data |= {"reason": row.reason, "details": row.lifecycle_details}
    return _event(row, _EVENT_TYPES[state], data, lifecycle_name(state, row.num_returns))


def lifecycle_name(state: str, num_returns: int) -> str:
    """What the id of a state's event ends with: a state that is entered again is news.

    Between two returns to IN_PROGRESS no state can be entered twice (`TRANSITIONS` has no other
    way round), so state and number name an entry for good.
    """
    return f"{state}:{num_returns}" if num_returns else state


def resumed_event(row: Any) -> Event:
    """Says that a run goes on that had ended."""
    data = {**_event_data(row), "num_resumes": row.num_resumes}
    return _event(row, EventType.RUN_RESUMED, data, lifecycle_name("RESUMED", row.num_returns))


def _script_data(row: Any) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "output_uri": row.output_uri,
        "attempt": row.attempt,
        "exit_code": row.exit_code,
        "exit_signal": row.exit_signal,
    }


def progress_event(row: Any, percent: int) -> Event:
    """Says that a run has passed `percent` of its rows."""
    data = {**_event_data(row), "percent": percent}
    return _event(row, EventType.RUN_PROGRESSED, data, f"PROGRESSED:{percent}")


def retried_event(row: Any) -> Event:
    """Says that a run's rejected rows were scored again, and what its result is now."""
    data = {
        **_event_data(row),
        "generation": row.generation,
        "output_uri": row.output_uri,
        "manifest_uri": f"{row.output_uri}{manifest_key(row.generation)}",
        "manifest_digest": row.manifest_digest,
    }
    return _event(row, EventType.RUN_RETRIED, data, f"RETRIED:{row.generation}")


def _event(row: Any, event_type: str, data: dict[str, Any], what: str) -> Event:
    return new_event(
        event_type,
        data,
        source=OWN_SOURCE,
        subject=f"runs/{row.id}",
        event_id=f"{row.id}:{what}",
    )


def _event_data(row: Any) -> dict[str, Any]:
    return {
        "run_id": row.id,
        "run_name": row.name,
        "job": row.job_name,
        "state": row.state,
        "mode": row.mode,
        "rows_in": row.rows_in,
        "rows_done": row.rows_done,
        "rows_predicted": row.rows_predicted,
        "rows_rejected": row.rows_rejected,
        "rows_filtered": row.rows_filtered,
    }
