"""Scoring one shard: one part, and one of rejects if a row is rejected; whole or not at all.

The part appears when its last byte is on disk and every input was still the planned one; before
that there is a temporary file, which an error removes. Scoring a finished shard again writes the
same bytes, which the store recognises, so it changes nothing; and a worker that lost its lease
without knowing does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from augury import clock
from augury.data.batches import FileSlice
from augury.data.manifest import FileRows, Part, Quarantined
from augury.data.policy import OnCorruptFile
from augury.errors import ConservationError, CorruptError
from augury.inference.pins import check_pins
from augury.inference.pipeline import Pipeline
from augury.inference.plan import Plan, ShardResult, ShardSpec, total_rows
from augury.inference.quarantine import unreadable, without
from augury.inference.rejects import RejectPart
from augury.storage.files import file_digest

if TYPE_CHECKING:
    from augury.models.port import Model
    from augury.settings import Settings
    from augury.storage.objects import ObjectStore


def score_shard(
    plan: Plan,
    shard: ShardSpec,
    model: Model,
    output: ObjectStore,
    settings: Settings,
    *,
    num_threads: int,
    on_progress: Callable[[int], None],
    check: Callable[[], None],
) -> ShardResult:
    """Scores a shard and publishes its part, and its rejects before it.

    Idempotent: what it writes follows from plan and shard alone.

    Args:
        plan: of the run.
        shard: one of its shards.
        model: the planned one, loaded.
        output: rooted at the run's folder.
        settings: for access to the inputs.
        num_threads: threads with which `model` computes; a `predict` call gets rows for all.
        on_progress: called with the number of rows predicted since the last call.
        check: called every 0.25 s or so, from the calling thread; what it raises aborts the
            shard: the temporary file goes, nothing is published.

    Raises:
        IdentityError: an input was replaced or deleted.
        CorruptError: an input is damaged, and the plan does not quarantine it.
        ConflictError: the plan's pins cannot be honoured here, or other content is in the place
            of the part.
        InvalidError: the model failed on the data.
        BadRowError: a row breaks what the job expects, and may not be rejected.
        RejectLimitError: more rows are bad than the run may reject.
        LimitError: no space left for the output, or no memory.
        UnavailableError: a store failed.
        ConservationError: rows were lost; a bug.
    """
    check_pins(plan.pins, model)
    attempt = _Attempt(plan, model, output, settings, num_threads, on_progress, check)
    started = clock.monotonic_s()
    lost: tuple[Quarantined, ...] = ()
    while True:
        left = without(shard, lost)
        try:
            result = attempt.score(left)
        except CorruptError as error:
            found = _unreadable(plan, left, error, settings, check)
            if not found:
                raise
            lost += found
        else:
            return replace(result, quarantined=lost, seconds=clock.monotonic_s() - started)


def _unreadable(
    plan: Plan,
    shard: ShardSpec,
    error: CorruptError,
    settings: Settings,
    check: Callable[[], None],
) -> tuple[Quarantined, ...]:
    if plan.on_corrupt_file is not OnCorruptFile.QUARANTINE:
        return ()
    return unreadable(plan, shard, str(error.attributes.get("uri")), settings, check)


@dataclass(frozen=True)
class _Attempt:
    """Scores a shard, or what is left of it; progress is taken back if it fails."""

    plan: Plan
    model: Model
    output: ObjectStore
    settings: Settings
    num_threads: int
    on_progress: Callable[[int], None]
    check: Callable[[], None]

    def score(self, shard: ShardSpec) -> ShardResult:
        told = 0

        def on_progress(num_rows: int) -> None:
            nonlocal told
            told += num_rows
            self.on_progress(num_rows)

        pipeline = Pipeline(
            self.plan,
            files_of(shard),
            self.model,
            self.settings,
            num_threads=self.num_threads,
            on_progress=on_progress,
            check=self.check,
        )
        try:
            return self._published(shard, pipeline)
        except CorruptError:
            self.on_progress(-told)
            raise

    def _published(self, shard: ShardSpec, pipeline: Pipeline) -> ShardResult:
        with ExitStack() as stages:
            path = stages.enter_context(_staged(self.output, shard.part_key))
            rejects = RejectPart(
                self.plan, lambda: stages.enter_context(_staged(self.output, shard.reject_key))
            )
            num_written = pipeline.run(path, rejects)
            files = _accounted(files_of(shard), pipeline, num_written, rejects.num_rows)
            part = _part(shard, shard.part_key, path, num_written)
            reject_part = _reject_part(shard, rejects)
            self.check()
            if reject_part is not None and rejects.path is not None:
                self.output.put_file(reject_part.key, rejects.path)
            self.output.put_file(part.key, path)
        rows = total_rows([each.rows for each in files])
        return ShardResult(
            seq=shard.seq,
            rows_in=rows.rows_in,
            rows_predicted=rows.rows_predicted,
            rows_rejected=rows.rows_rejected,
            rows_filtered=rows.rows_filtered,
            files=files,
            part=part,
            reject_part=reject_part,
            rejected_by_file=dict(pipeline.rejects.by_file),
            first_rejects=tuple(pipeline.rejects.first),
            unknown_categories=pipeline.unknown_categories,
        )


def files_of(shard: ShardSpec) -> tuple[FileSlice, ...]:
    """A shard's row groups by file, in order."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for each in shard.ranges:
        groups.setdefault((each.uri, each.tag), []).append((each.row_group, each.num_rows))
    return tuple(
        FileSlice(uri=uri, tag=tag, row_groups=tuple(row_groups))
        for (uri, tag), row_groups in groups.items()
    )


@contextmanager
def _staged(output: ObjectStore, key: str) -> Iterator[Path]:
    path = output.stage(key)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _part(shard: ShardSpec, key: str, path: Path, num_rows: int) -> Part:
    return Part(
        key=key,
        size_bytes=path.stat().st_size,
        sha256=file_digest(path),
        num_rows=num_rows,
        shard=shard.seq,
    )


def _reject_part(shard: ShardSpec, rejects: RejectPart) -> Part | None:
    if rejects.path is None:
        return None
    return _part(shard, shard.reject_key, rejects.path, rejects.num_rows)


def _accounted(
    files: Sequence[FileSlice], pipeline: Pipeline, num_written: int, num_set_aside: int
) -> tuple[FileRows, ...]:
    """The account of each file; counted where rows were predicted, not copied from the plan.

    Raises:
        ConservationError: a row is missing or too many.
    """
    predicted, rejected = pipeline.rows_predicted, pipeline.rows_rejected
    accounts = tuple(
        FileRows(
            uri=file.uri,
            tag=file.tag,
            rows_in=file.num_rows,
            rows_predicted=num_predicted,
            rows_rejected=num_rejected,
        )
        for file, num_predicted, num_rejected in zip(files, predicted, rejected, strict=True)
    )
    for account in accounts:
        if not account.rows.balanced:
            raise ConservationError(f"rows are missing: {account}", uri=account.uri)
    for what, counted, written in (
        ("predicted", sum(predicted), num_written),
        ("rejected", sum(rejected), num_set_aside),
    ):
        if counted != written:
            raise ConservationError(
                f"{counted} rows were {what}, but {written} written",
                expected=counted,
                found=written,
            )
    return accounts
