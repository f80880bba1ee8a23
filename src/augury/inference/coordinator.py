"""What is the next step of this run?

Everything that a run needs besides scoring happens here: it is planned once, and when its last
shard is in it is committed. Any process may call `advance` at any time, any number of times and
beside any others, with the same effect: each step is one conditional transaction, or puts bytes
that the ledger has fixed already.

    all shards in ──> commit decided (ledger) ──> manifest put (store) ──> SUCCEEDED

From the first arrow on the output is the run's result, whoever dies; before it a cancel wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury.data.manifest import MANIFEST_KEY, Manifest
from augury.errors import AuguryError, ConservationError, RejectLimitError, UnavailableError
from augury.jobs import commits, logs, reports
from augury.jobs.commits import Commitment
from augury.jobs.rejected import Rejected
from augury.jobs.reports import Finished, Planned
from augury.jobs.runs import Run, close_canceled, get_run, transition
from augury.jobs.states import RunState
from augury.jobs.work import WorkItem
from augury.storage.database import Database
from augury.storage.tables import runs

if TYPE_CHECKING:
    from augury.inference.plan import ShardResult
    from augury.settings import Settings

_log = logging.getLogger(__name__)
_FEW_SHARDS = 32
_MOST_NAMED = 5


def plan(
    database: Database, run_id: str, settings: Settings, *, check: Callable[[], None]
) -> Planned:
    """Decides what a run will do, from the model's signature and the inputs' footers.

    Writes nothing. The model reference is resolved here, once: a run keeps its version even if an
    alias moves meanwhile.

    Args:
        database: to read from.
        run_id: which run.
        settings: for access to the inputs.
        check: called now and then; what it raises aborts the planning.

    Raises:
        NotFoundError: no such model (the message names what exists) or no such input.
        ContractError: inputs and model do not fit; every fault is named.
        IdentityError: an input is not the one that the event named.
        CorruptError: an input is no Parquet file.
        UnavailableError: a store or the database did not answer.
    """
    from augury.inference.planning import plan_run
    from augury.models.registry import resolve

    with database.read() as connection:
        spec = get_run(connection, run_id).job_spec
        model = resolve(connection, spec.model)
    planned, shards = plan_run(spec, model, settings, check=check, verdict=model.verdict)
    return Planned(
        plan=planned.to_json(),
        mode=planned.mode,
        rows_in=planned.rows_in,
        shards=[shard.to_json() for shard in shards],
    )


def finish_shard(
    database: Database, connection: sa.Connection, item: WorkItem, result: ShardResult
) -> Finished:
    """Records a shard's result in the caller's transaction; the last of a few decides the commit.

    For a run of many shards the commit is decided afterwards (`advance`), because reading all
    their results would keep other writers waiting.

    Raises:
        LostLeaseError: the item is not the caller's any more; nothing was recorded.
    """
    finished = reports.finish_shard(
        database,
        connection,
        item,
        result.to_json(),
        rows_done=result.rows_in,
        rejected=_rejected(result),
    )
    if finished.is_last and finished.shards_total <= _FEW_SHARDS:
        try:
            commitment = _commitment(connection, get_run(connection, item.run_id))
        except (
            ConservationError,
            RejectLimitError,
        ) as error:  # `advance` will find it again, and fail the run
            _log.error("%s", error, extra={"action": "commit_refused", "run_id": item.run_id})
        else:
            commits.commit(connection, item.run_id, commitment)
    return finished


def _rejected(result: ShardResult) -> Rejected | None:
    if not result.rows_rejected:
        return None
    first = [str(row) for row in result.first_rejects]
    return Rejected(num_rows=result.rows_rejected, first=first)


def advance(database: Database, run_id: str, settings: Settings) -> RunState:
    """Takes a run as far as it can go without another shard being scored.

    Returns:
        The run's state afterwards, as far as this call knows.

    Raises:
        NotFoundError: no such run.
        UnavailableError: a store or the database did not answer; call again later.
    """
    run = _read(database, run_id)
    if run.state is RunState.CANCELING:
        database.transact(lambda connection: close_canceled(database, connection, run_id))
        return _read(database, run_id).state
    if run.state is not RunState.IN_PROGRESS or not run.shards_total == run.shards_done > 0:
        return run.state
    if run.manifest is None:
        run = _decide(database, run)
    if run.manifest is None or run.state is not RunState.IN_PROGRESS:
        return run.state
    _publish(database, run, run.manifest, settings)
    return RunState.SUCCEEDED


def _read(database: Database, run_id: str) -> Run:
    with database.read() as connection:
        return get_run(connection, run_id)


def _decide(database: Database, run: Run) -> Run:
    """Commits, or finds that somebody else has committed or canceled; fails a run that cannot."""
    try:
        with database.read() as connection:
            commitment = _commitment(connection, run)
    except UnavailableError:
        raise
    except AuguryError as error:
        _fail(database, run, error)
    else:
        database.transact(lambda connection: commits.commit(connection, run.id, commitment))
    return _read(database, run.id)


def _commitment(connection: sa.Connection, run: Run) -> Commitment:
    from augury.inference.commit import build_manifest
    from augury.inference.plan import Plan, ShardResult

    results = [ShardResult.from_json(each) for each in commits.results(connection, run.id)]
    plan = Plan.from_json(run.plan or "")
    manifest = build_manifest(plan, run_id=run.id, job=run.job_name, results=results)
    return Commitment(
        manifest=manifest.to_bytes().decode(),
        digest=manifest.digest,
        rows_in=manifest.rows.rows_in,
        rows_predicted=manifest.rows.rows_predicted,
        rows_rejected=manifest.rows.rows_rejected,
        rows_filtered=manifest.rows.rows_filtered,
        num_quarantined=len(manifest.quarantined),
    )


def _fail(database: Database, run: Run, error: AuguryError) -> None:
    details = f"Run failed: its result cannot be committed: {error.message}"
    database.transact(
        lambda connection: transition(
            database, connection, run.id, RunState.FAILED, details=details, reason=error.code
        )
    )


def _publish(database: Database, run: Run, manifest: str, settings: Settings) -> None:
    """Puts the manifest that the ledger holds, and says so."""
    from augury.storage.objects import open_store

    try:
        open_store(run.output_uri, settings).put(MANIFEST_KEY, manifest.encode())
    except AuguryError as error:
        _describe(database, run, f"Committed; the manifest cannot be put yet: {error.message}")
        raise UnavailableError(
            f"the manifest of run {run.id} cannot be put: {error.message}", run_id=run.id
        ) from error
    details = _success(run)
    database.transact(
        lambda connection: transition(
            database, connection, run.id, RunState.SUCCEEDED, details=details
        )
    )


def _success(run: Run) -> str:
    counts = [f"{run.rows_predicted} row{'s' * (run.rows_predicted != 1)} predicted"]
    if run.rows_rejected:
        counts.append(f"{run.rows_rejected} rejected")
    if run.rows_filtered:
        counts.append(f"{run.rows_filtered} filtered")
    if not run.is_partial:
        return f"Run succeeded: {', '.join(counts)}."
    lost = Manifest.from_bytes((run.manifest or "").encode()).quarantined
    named = ", ".join(str(each) for each in lost[:_MOST_NAMED])
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    return (
        f"Run succeeded, and its result is partial: {', '.join(counts)}; damaged and left out: "
        f"{named}{more}."
    )


def _describe(database: Database, run: Run, details: str) -> None:
    """Tells what a run waits for, once."""
    if run.lifecycle_details == details:
        return
    _log.warning(details, extra={"action": "manifest_waits", "run_id": run.id})

    def write(connection: sa.Connection) -> None:
        changed = connection.execute(
            sa.update(runs)
            .where(runs.c.id == run.id, runs.c.state == RunState.IN_PROGRESS)
            .values(lifecycle_details=details)
        )
        if changed.rowcount:
            logs.append(connection, run.id, "warning", details)

    database.transact(write)
