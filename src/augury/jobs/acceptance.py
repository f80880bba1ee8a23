"""How a run begins: accepted in the caller's transaction, with its first item of work.

The run's key is its identity: whoever asks for the same key again, in whatever process, gets no
second run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury import clock, ids
from augury.errors import ConflictError, Fault, InvalidError
from augury.jobs.lifecycle import announce
from augury.jobs.script_spec import ScriptSpec, parse_spec
from augury.jobs.spec import Input, JobSpec, Mode, RunOverrides
from augury.jobs.states import LIVE_EPOCH, Priority, RunState, WorkState
from augury.jobs.work import PLAN, SCRIPT
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.storage.database import Database
from augury.storage.tables import runs, work

_LONGEST_NAME = 255
# a script run's are OCI's own texts, here as everywhere
_ACCEPTED = {"inference": "Run accepted.", "script": "Infrastructure provisioning."}


@dataclass(frozen=True, kw_only=True)
class RunDraft:
    """A run that is wanted.

    Attributes:
        run_key: its identity; see `run_key`.
        job: the job at the version that was read.
        spec: the job's spec with the run's overrides on top.
        inputs: what to score, each perhaps pinned to its content.
        position: of the event that led here, if one did.
        outcome_id: of the outcome that led here, if one did.
        display_name: as shown to people; None: made from the job's name.
        epoch: `0` for live runs; a replay's id for those that it started.
        priority: whether live work goes first.
    """

    run_key: str
    job: Resource
    spec: JobSpec | ScriptSpec
    inputs: tuple[Input, ...]
    position: int | None = None
    outcome_id: str | None = None
    display_name: str | None = None
    epoch: str = LIVE_EPOCH
    priority: Priority = Priority.LIVE


def run_key(rule_id: str, action: str, epoch: str, occurrence: str) -> str:
    """Identity of the run that a rule's action makes of an occurrence; at most 80 characters."""
    return ids.derived_id("rule", rule_id, action, epoch, occurrence)


def first_queue(spec: JobSpec | ScriptSpec) -> str:
    """Where a run's first item of work, its planning or its script, waits."""
    if isinstance(spec, ScriptSpec):
        return SCRIPT
    return Mode.MINI_BATCH if spec.mode is Mode.AUTO else spec.mode


def accept_runs(
    database: Database, connection: sa.Connection, drafts: Sequence[RunDraft]
) -> dict[str, str]:
    """Stores runs in state ACCEPTED, each with its first item of work, event and log line.

    Args:
        database: for the dialect.
        connection: the transaction.
        drafts: sorted by `run_key`, so that overlapping transactions do not deadlock.

    Returns:
        Run id by run key, of exactly those that this call accepted; a key that is known is left
        out and nothing is written for it.
    """
    rows = {draft.run_key: _run_row(draft) for draft in drafts}
    inserted = database.insert_new(connection, runs, list(rows.values()), *runs.c)
    accepted = sorted(inserted, key=lambda row: row.run_key)
    if accepted:
        by_key = {draft.run_key: draft for draft in drafts}
        first = [_first_row(row.id, by_key[row.run_key]) for row in accepted]
        connection.execute(sa.insert(work), first)
        announce(database, connection, accepted)
    return {row.run_key: row.id for row in accepted}


def _run_row(draft: RunDraft) -> dict[str, Any]:
    run_id = ids.new_id("run")
    spec = draft.spec.model_copy(update={"input": draft.inputs})
    name = draft.display_name or f"{draft.job.name}-{run_id[-6:].lower()}"
    return {
        "id": run_id,
        "run_key": draft.run_key,
        "name": name[:_LONGEST_NAME],
        "job_id": draft.job.id,
        "job_name": draft.job.name,
        "job_version": draft.job.version,
        "kind": spec.kind,
        "spec": spec.model_dump(mode="json"),
        "state": RunState.ACCEPTED,
        "lifecycle_details": _ACCEPTED[spec.kind],
        "mode": None if spec.mode is Mode.AUTO else spec.mode,
        "position": draft.position,
        "outcome_id": draft.outcome_id,
        "epoch": draft.epoch,
        "priority": draft.priority,
        "time_accepted": clock.utc_now(),
        "output_uri": f"{spec.output.rstrip('/')}/{run_id}/" if spec.output else "",
    }


def _first_row(run_id: str, draft: RunDraft) -> dict[str, Any]:
    queue = first_queue(draft.spec)
    return {
        "id": ids.new_id("work"),
        "run_id": run_id,
        "kind": SCRIPT if queue == SCRIPT else PLAN,
        "seq": 0,
        "queue": queue,
        "priority": draft.priority,
        "state": WorkState.READY,
        "ready_at": clock.utc_now(),
    }


def draft_run(
    connection: sa.Connection,
    *,
    job: str,
    overrides: RunOverrides,
    idempotency_key: str | None = None,
) -> RunDraft:
    """A run of a job, as somebody asks for it by name.

    Raises:
        NotFoundError: no such job; the message names close ones.
        InvalidError: job and overrides do not fit together; every fault is named.
    """
    resource = store.get(connection, Kind.JOB, job)
    try:
        spec = parse_spec(resource.spec).overridden(overrides)
    except ValidationError as error:
        raise InvalidError(f"job {job!r} with these overrides", faults=_faults(error)) from error
    key = ids.new_id("api") if idempotency_key is None else ids.derived_id("api", idempotency_key)
    return RunDraft(
        run_key=key,
        job=resource,
        spec=spec,
        inputs=spec.input,
        display_name=overrides.display_name,
    )


def accept_once(database: Database, connection: sa.Connection, draft: RunDraft) -> tuple[str, bool]:
    """Accepts one run, or finds the one that the same key made before.

    Returns:
        The run's id, and whether it is new.

    Raises:
        ConflictError: the key was used for a run of another job or with other overrides.
    """
    accepted = accept_runs(database, connection, [draft])
    if draft.run_key in accepted:
        return accepted[draft.run_key], True
    known = connection.execute(sa.select(runs).where(runs.c.run_key == draft.run_key)).one()
    wanted = _run_row(replace(draft, display_name=draft.display_name or known.name))
    same = ("job_id", "spec", "name")
    if any(wanted[column] != known._mapping[column] for column in same):
        raise ConflictError(
            f"this Idempotency-Key made run {known.id} of job {known.job_name!r} from another "
            "request; use a new key for a new request",
            run_id=known.id,
        )
    return known.id, False


def _faults(error: ValidationError) -> list[Fault]:
    return [
        Fault(
            path=".".join(str(part) for part in found["loc"]),
            message=f"{found['msg']}, found {found['input']!r:.80}",
        )
        for found in error.errors(include_url=False)
    ]
