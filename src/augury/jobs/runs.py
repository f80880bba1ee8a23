"""The run store: what a run is, and everything that may be done to one from outside.

Accepting (`acceptance.py`), changing states (`lifecycle.py`) and working on runs (`work.py`) have
modules of their own; callers above find the first two here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.data.manifest import manifest_key
from augury.errors import ConflictError, NotFoundError
from augury.jobs.acceptance import (
    RunDraft,
    accept_once,
    accept_runs,
    draft_run,
    first_queue,
    run_key,
)
from augury.jobs.lifecycle import lock_run, transition
from augury.jobs.script_spec import ScriptSpec
from augury.jobs.spec import JobSpec, RunOverrides
from augury.jobs.states import CANCELABLE, TERMINAL, RunState, WorkState
from augury.storage.database import Database
from augury.storage.tables import runs, work

__all__ = [
    "Run",
    "RunDraft",
    "accept_runs",
    "cancel",
    "close_canceled",
    "delete_run",
    "first_queue",
    "get_run",
    "list_runs",
    "run_key",
    "run_states",
    "start_run",
    "transition",
]

_CANCELED = "Run canceled; nothing was committed."


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a job.

    Attributes:
        spec: the job's spec with the run's overrides on top, as JSON.
        reason: error code of a run that failed or was canceled.
        mode: None until planned when the job says `auto`.
        position: of the event that led here, in the ledger.
        epoch: `0`, or the id of the replay that started it.
        priority: smaller is sooner; see `states.Priority`.
        host: the worker that holds a run of mode `batch` or `mini_batch`, while it does.
        plan: the pins as canonical JSON, once planned.
        manifest: the committed manifest's text; set by the commit of each generation.
        num_quarantined: damaged files and row groups that its result was committed without.
        rows_done: rows read so far, those of unfinished shards among them.
        progress_announced: the last percentage that `augury.run.progressed` told.
        cleaning_at: when removing its parts began.
        time_resumed: when it was resumed last.
        num_resumes: how often it was resumed.
        num_returns: how often it came back to IN_PROGRESS, resumed or from NEEDS_ATTENTION; its
            events of later states carry the number in their ids.
        generation: of its manifest: 1, and one more for each retry of its rejected rows.
        shards_isolated: given up because they keep killing or outlasting their workers; the others
            are finished before the run fails.
        cleaned_at: when the leftovers of a run without result were removed.
        attempt: of a script run: the last one, from 1.
        exit_code: of a script run's last attempt, 0 to 255; None if a signal ended it.
        exit_signal: that signal's name, such as SIGKILL.
        peak_memory_bytes: most resident memory that was seen of a script run's last attempt.
    """

    id: str
    run_key: str
    name: str
    job_id: str
    job_name: str
    job_version: int
    kind: str
    spec: Mapping[str, Any]
    state: RunState
    lifecycle_details: str
    reason: str | None
    mode: str | None
    position: int | None
    outcome_id: str | None
    epoch: str
    priority: int
    time_accepted: datetime
    time_started: datetime | None
    time_finished: datetime | None
    time_committed: datetime | None
    host: str | None
    plan: str | None
    output_uri: str
    manifest: str | None
    manifest_digest: str | None
    rows_in: int
    rows_predicted: int
    rows_rejected: int
    rows_filtered: int
    num_quarantined: int
    rows_done: int
    shards_total: int
    shards_done: int
    progress_announced: int
    cleaning_at: datetime | None
    cleaned_at: datetime | None
    time_resumed: datetime | None
    num_resumes: int
    num_returns: int
    generation: int
    shards_isolated: int
    attempt: int
    exit_code: int | None
    exit_signal: str | None
    peak_memory_bytes: int | None

    @property
    def is_finished(self) -> bool:
        """True if nothing more will happen to it but deletion."""
        return self.state in TERMINAL

    @property
    def is_partial(self) -> bool:
        """True if its committed result lacks something that could not be read."""
        return self.num_quarantined > 0

    @property
    def job_spec(self) -> JobSpec:
        """`spec` of an inference run, validated."""
        return JobSpec.model_validate(self.spec)

    @property
    def script_spec(self) -> ScriptSpec:
        """`spec` of a script run, validated."""
        return ScriptSpec.model_validate(self.spec)

    @property
    def manifest_uri(self) -> str | None:
        """Where the manifest lies once the run has succeeded."""
        if self.manifest is None:
            return None
        return f"{self.output_uri}{manifest_key(self.generation)}"


def run_of(row: Any) -> Run:
    """A row of `runs` as a value."""
    return Run(**{**row._mapping, "state": RunState(row.state)})


def get_run(connection: sa.Connection, id_or_name: str) -> Run:
    """A run by its id, or the newest of that name.

    Raises:
        NotFoundError: neither.
    """
    by_id = sa.select(runs).where(runs.c.id == id_or_name)
    row = connection.execute(by_id).one_or_none()
    if row is None:
        by_name = sa.select(runs).where(runs.c.name == id_or_name, runs.c.state != RunState.DELETED)
        newest = by_name.order_by(runs.c.time_accepted.desc(), runs.c.id.desc()).limit(1)
        row = connection.execute(newest).one_or_none()
    if row is None:
        raise NotFoundError(f"no run with id or name {id_or_name!r}", kind="run", name=id_or_name)
    return run_of(row)


def run_states(connection: sa.Connection, run_ids: Collection[str]) -> dict[str, str]:
    """Present state of each of some runs, by id."""
    select = sa.select(runs.c.id, runs.c.state).where(runs.c.id.in_(sorted(run_ids)))
    return {row.id: row.state for row in connection.execute(select)}


def list_runs(
    connection: sa.Connection,
    *,
    state: str | None = None,
    job: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[Run]:
    """Runs, newest first.

    Args:
        connection: a reading connection.
        state: only those in this state; None: all but the deleted ones.
        job: only those of the job of this name.
        limit: at most so many.
        before: only runs older than the run of this id (exclusive): the last one of the page
            before.
    """
    select = sa.select(runs).order_by(runs.c.time_accepted.desc(), runs.c.id.desc()).limit(limit)
    wanted = runs.c.state != RunState.DELETED if state is None else runs.c.state == state
    select = select.where(wanted)
    if job is not None:
        select = select.where(runs.c.job_name == job)
    if before is not None:
        cursor = get_run(connection, before)
        older = sa.tuple_(runs.c.time_accepted, runs.c.id) < sa.tuple_(
            sa.literal(cursor.time_accepted, runs.c.time_accepted.type), sa.literal(cursor.id)
        )
        select = select.where(older)
    return [run_of(row) for row in connection.execute(select)]


def start_run(
    database: Database,
    connection: sa.Connection,
    *,
    job: str,
    overrides: RunOverrides | None = None,
    idempotency_key: str | None = None,
) -> tuple[Run, bool]:
    """Accepts a run of a job in the caller's transaction; wake `first_queue` after the commit.

    Args:
        database: for the dialect.
        connection: the transaction.
        job: name of the job.
        overrides: what this run changes of the job's spec.
        idempotency_key: the same key gives the same run, however often it is sent.

    Returns:
        The run, and whether this call made it.

    Raises:
        NotFoundError: no such job.
        InvalidError: job and overrides do not fit together.
        ConflictError: the key was used for another request.
    """
    draft = draft_run(
        connection,
        job=job,
        overrides=overrides or RunOverrides(),
        idempotency_key=idempotency_key,
    )
    run_id, created = accept_once(database, connection, draft)
    return get_run(connection, run_id), created


def cancel(database: Database, connection: sa.Connection, run_id: str) -> Run:
    """Asks a run to stop. Idempotent: a run that is stopping, or stopped so, is returned as it is.

    Work that nobody holds ends now; a worker that holds some lets go within 2 s. If there is none,
    the run is CANCELED at once.

    Raises:
        NotFoundError: no such run.
        ConflictError: too late: the result is committed, or the run has ended.
    """
    row = lock_run(database, connection, get_run(connection, run_id).id)
    state = RunState(row.state)
    if state in (RunState.CANCELING, RunState.CANCELED):
        return get_run(connection, row.id)
    if state not in CANCELABLE or row.time_committed is not None:
        what = "is committed" if row.time_committed is not None else f"has ended: {state}"
        raise ConflictError(f"too late to cancel: run {row.id} {what}", run_id=row.id, state=state)
    transition(
        database, connection, row.id, RunState.CANCELING, details="Canceling: workers let go."
    )
    close_canceled(database, connection, row.id)
    return get_run(connection, row.id)


def close_canceled(database: Database, connection: sa.Connection, run_id: str) -> bool:
    """CANCELING becomes CANCELED once no worker holds anything of the run; True if it did now."""
    held = sa.select(work.c.id).where(work.c.run_id == run_id, work.c.state == WorkState.LEASED)
    if connection.execute(held.limit(1)).first() is not None:
        return False
    kind = connection.scalar(sa.select(runs.c.kind).where(runs.c.id == run_id))
    return transition(
        database,
        connection,
        run_id,
        RunState.CANCELED,
        details=_CANCELED if kind == "inference" else "Job run canceled.",
        reason="canceled",
    )


def delete_run(database: Database, connection: sa.Connection, run_id: str) -> Run:
    """Takes a finished run out of all listings; a committed output stays where it is.

    Raises:
        NotFoundError: no such run, or deleted already.
        ConflictError: it has not ended; cancel it first.
    """
    run = get_run(connection, run_id)
    if run.state is RunState.DELETED:
        raise NotFoundError(f"run {run.id} was deleted", kind="run", name=run_id)
    if not transition(
        database,
        connection,
        run.id,
        RunState.DELETED,
        details=f"Run deleted at {clock.iso(clock.utc_now())}.",
    ):
        raise ConflictError(
            f"run {run.id} is {run.state}; only a run that has ended can be deleted, cancel it",
            run_id=run.id,
            state=run.state,
        )
    return get_run(connection, run.id)
