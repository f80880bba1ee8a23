"""Scoring a run's rejected rows again, after a fix: a new generation of its output.

The rejects of a committed run are an input like others: their parts are planned into shards and
scored in this process, by another model, under another policy, or by the same ones once whatever
failed is mended. What is predicted now goes to new parts, what is rejected again to new reject
parts, and one conditional transaction commits a new manifest, `_manifest.<n>.json`, that names all
parts. No part and no manifest is ever rewritten: readers of an older generation go on reading it.

Of several retries at once, one commits; the others remove what they wrote, and say so: each retry
has names of its own for its parts. One that is killed leaves parts that `augury verify` and the
audit name, for no manifest does.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from augury.data.manifest import Manifest, manifest_key
from augury.data.policy import OnCorruptFile
from augury.data.verification import read_part
from augury.errors import ConflictError, ContractError, CorruptError, Fault, InvalidError
from augury.inference.commit import next_generation
from augury.inference.crew import Crew, Progress, share_cpus
from augury.inference.plan import Plan, ShardResult, ShardSpec
from augury.inference.planning import plan_run
from augury.jobs import commits
from augury.jobs.commits import Commitment
from augury.jobs.runs import Run, get_run
from augury.jobs.spec import Input, JobSpec, RunOverrides
from augury.jobs.states import RunState
from augury.models.cache import ModelCache
from augury.models.registry import resolve
from augury.storage.objects import ObjectStore, open_store

if TYPE_CHECKING:
    from augury.models.registry import ModelVersion
    from augury.settings import Settings
    from augury.storage.database import Database


def retry_rejected(
    database: Database,
    run_id: str,
    settings: Settings,
    *,
    overrides: RunOverrides | None = None,
    on_progress: Progress | None = None,
) -> Run:
    """Scores the rejected rows of a run again, and commits what came of it.

    Without another model, the version that scored the run before is used, wherever its alias has
    moved meanwhile. A commit whose manifest could not be put is completed first.

    Args:
        database: the ledger.
        run_id: id or name of a run that has succeeded and rejected rows.
        settings: for access to stores; `worker_cpus` limits the threads.
        overrides: `model`, `on_bad_row` and `expect`; the rest of it is left alone.
        on_progress: called with (rows done so far, rows in all).

    Returns:
        The run, with its new counts and generation.

    Raises:
        NotFoundError: no such run or model.
        ConflictError: nothing to retry, or somebody else has just committed a generation.
        ContractError: the rejected rows do not fit the model or policy, or predictions would have
            other columns than those that are there.
        CorruptError: a reject part is not the one that was committed.
        InvalidError: every row was rejected again; nothing is committed.
        AuguryError: whatever else `plan_run` and `score_shard` raise.
    """
    with database.read() as connection:
        run = get_run(connection, run_id)
    before = _committed(run)
    store = open_store(run.output_uri, settings)
    store.put(manifest_key(run.generation), (run.manifest or "").encode())
    spec = _spec(run, before, store, overrides or RunOverrides())
    with database.read() as connection:
        model = resolve(connection, spec.model)
    plan, shards = _plan(run, spec, model, settings)
    with _removed_on_error(store, shards):
        results = _score(plan, shards, store, settings, on_progress)
        after = next_generation(before, plan, results)
        _refuse_nothing_new(before, after, results)
    if not _commit(database, run, after):
        _remove(store, shards)
        raise ConflictError(
            f"run {run.id} is not of generation {run.generation} any more: its rejected rows were "
            "scored again by somebody else, or it was deleted",
            run_id=run.id,
        )
    store.put(manifest_key(after.generation), after.to_bytes())
    with database.read() as connection:
        return get_run(connection, run.id)


def _committed(run: Run) -> Manifest:
    if run.state is not RunState.SUCCEEDED or run.manifest is None:
        raise ConflictError(
            f"nothing to retry: run {run.id} is {run.state}; rejected rows can be scored again "
            "once the run has succeeded",
            run_id=run.id,
            state=run.state,
        )
    manifest = Manifest.from_bytes(run.manifest.encode())
    if not manifest.rows.rows_rejected:
        raise ConflictError(f"nothing to retry: run {run.id} rejected no row", run_id=run.id)
    return manifest


# --- planned --------------------------------------------------------------------------------------


def _spec(run: Run, before: Manifest, store: ObjectStore, overrides: RunOverrides) -> JobSpec:
    same_model = f"{before.model['name']}@{before.model['version']}"
    changes = overrides.model_copy(update={"model": overrides.model or same_model})
    spec = run.job_spec.overridden(changes)
    return spec.model_copy(
        update={
            "input": tuple(_inputs(before, store)),
            "output": run.output_uri,
            "on_corrupt_file": OnCorruptFile.FAIL,
        }
    )


def _inputs(before: Manifest, store: ObjectStore) -> Iterator[Input]:
    """The reject parts, each looked at before it is believed."""
    for part in before.reject_parts:
        tag = store.head(part.key).tag
        found = read_part(store, part.key)
        if found.sha256 != part.sha256:
            raise CorruptError(
                f"{store.uri(part.key)} is not the part that was committed: expected sha256 "
                f"{part.sha256}, found {found.sha256}",
                uri=store.uri(part.key),
                expected=part.sha256,
                found=found.sha256,
            )
        yield Input(uri=store.uri(part.key), tag=tag)


def _plan(
    run: Run, spec: JobSpec, model: ModelVersion, settings: Settings
) -> tuple[Plan, list[ShardSpec]]:
    generation = run.generation + 1
    plan, shards = plan_run(spec, model, settings, check=_go_on, verdict=model.verdict)
    first = Plan.from_json(run.plan or "")
    if plan.output_schema != first.output_schema:
        fault = Fault(
            path="model",
            message=f"expected predictions in the columns that are there "
            f"({', '.join(first.prediction_columns)}, of the same types), and {spec.model} gives "
            "others; start a new run instead",
        )
        raise ContractError("the new parts would not fit the old ones", [fault])
    rows = replace(plan.rows, max_rejected=None)  # the budget was kept when they were rejected
    plan = replace(plan, generation=generation, rows=rows)
    label = f"g{generation}-{secrets.token_hex(4)}-"
    return plan, [replace(shard, label=label) for shard in shards]


def _go_on() -> None:
    """Ends by Ctrl-C only."""


# --- scored ---------------------------------------------------------------------------------------


def _score(
    plan: Plan,
    shards: Sequence[ShardSpec],
    store: ObjectStore,
    settings: Settings,
    on_progress: Progress | None,
) -> list[ShardResult]:
    threads, side_by_side = share_cpus(settings, len(shards))
    model = ModelCache(settings.effective_cache_dir, settings).load(
        digest=plan.model.digest,
        uri=plan.model.uri,
        flavor=plan.model.flavor,
        signature=plan.model.signature,
        num_threads=threads,
        backend=plan.pins.backend,
    )
    crew = Crew(plan, model, store, settings, num_threads=threads, on_progress=on_progress)
    return crew.score(shards, side_by_side)


@contextmanager
def _removed_on_error(store: ObjectStore, shards: Sequence[ShardSpec]) -> Iterator[None]:
    """What is not committed goes: it would look like output to whoever lists the folder."""
    try:
        yield
    except BaseException:
        _remove(store, shards)
        raise


def _remove(store: ObjectStore, shards: Sequence[ShardSpec]) -> None:
    """Removes what this retry wrote; the label makes sure that it is nobody else's."""
    for shard in shards:
        store.delete(shard.part_key)
        store.delete(shard.reject_key)


def _refuse_nothing_new(before: Manifest, after: Manifest, results: Sequence[ShardResult]) -> None:
    if after.rows.rows_predicted > before.rows.rows_predicted:
        return
    first = [row for result in results for row in result.first_rejects][:5]
    raise InvalidError(
        f"all {before.rows.rows_rejected} rows were rejected again, so nothing is committed; the "
        f"first: {'; '.join(map(str, first))}",
    )


# --- committed ------------------------------------------------------------------------------------


def _commit(database: Database, run: Run, after: Manifest) -> bool:
    """Decides the commit; what nobody knows the end of (the database went away) stays there."""
    commitment = Commitment(
        manifest=after.to_bytes().decode(),
        digest=after.digest,
        rows_in=after.rows.rows_in,
        rows_predicted=after.rows.rows_predicted,
        rows_rejected=after.rows.rows_rejected,
        rows_filtered=after.rows.rows_filtered,
    )
    return database.transact(
        lambda connection: commits.commit_generation(
            database, connection, run.id, commitment, after.generation
        )
    )
