"""Planning a run: from a job's spec and a model to shards, by reading footers only.

Footers are read by several threads, for a data set of many small files is bound by the latency of
its store. Everything that can be known to be wrong is found here, before a worker is occupied: no
such input, a damaged file, a replaced one, columns that do not fit the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from augury.data import output
from augury.data.contract import casts, check_all, needed_columns, original_fields
from augury.data.dataset import Footer, discover, read_footer
from augury.data.manifest import Quarantined
from augury.data.policy import ColumnPolicy, OnCorruptFile, RowPolicy, allowed_rejects, may_reject
from augury.data.screening import reject_fields
from augury.errors import CorruptError, InvalidError
from augury.inference.pins import make_pins
from augury.inference.plan import (
    FileGroups,
    Plan,
    PlannedFile,
    PlannedModel,
    ShardSpec,
    WriterSettings,
    choose_mode,
    cut_shards,
)
from augury.jobs.spec import JobSpec, Mode, PredictionColumns
from augury.models.backends import UNCHECKED, Verdict
from augury.models.signature import Signature
from augury.storage.objects import ObjectInfo, canonical_url

if TYPE_CHECKING:
    import pyarrow as pa

    from augury.models.registry import ModelVersion
    from augury.settings import Settings

_READERS = min(16, 4 * (os.cpu_count() or 1))
_CHECK_S = 0.25
# XGBoost predicts in single precision; all else is kept in double
_FLOAT32_FLAVORS = frozenset({"xgboost"})


def plan_run(
    spec: JobSpec,
    model: ModelVersion | PlannedModel,
    settings: Settings,
    *,
    check: Callable[[], None],
    verdict: Verdict = UNCHECKED,
) -> tuple[Plan, list[ShardSpec]]:
    """Plans a run. The same spec over the same objects gives the same plan.

    Args:
        spec: the job's, with the run's overrides on top.
        model: the version that the spec's reference names now, or a model that is not registered.
        settings: for access to the inputs.
        check: called every 0.25 s or so; what it raises ends planning.
        verdict: of the model's self-check; a model that nobody checked is scored by its library.

    Returns:
        The plan, and at least one shard (without ranges if there is nothing to score).

    Raises:
        InvalidError: no input is named, or the output lies within the input.
        NotFoundError: an input does not exist.
        ContractError: the data does not fit the model; with every fault of every file.
        IdentityError: an object is not the one that the input's tag names.
        CorruptError: a footer does not parse, and the job does not quarantine such a file; or
            none of them parses.
        UnavailableError: a store did not answer.
    """
    _check_places(spec)
    infos = discover([(each.uri, each.tag) for each in spec.input], settings)
    check()
    names = needed_columns(model.signature, spec.columns)
    read = _read_footers(infos, names, settings, check)
    infos, footers, quarantined = _sound(infos, read, spec.on_corrupt_file)
    schemas = _distinct(infos, footers)
    rows_in = sum(footer.num_rows for footer in footers)
    schema, prediction_names = _output_schema(spec, model, schemas)
    files = [
        FileGroups(uri=info.uri, tag=info.tag, row_groups=footer.row_groups)
        for info, footer in zip(infos, footers, strict=True)
    ]
    shards = cut_shards(files, spec.target_shard_bytes, spec.target_shard_rows)
    size_bytes = sum(footer.size_bytes for footer in footers)
    plan = Plan(
        mode=_mode(spec, size_bytes, rows_in, len(files)),
        model=_planned_model(model),
        files=tuple(_planned_files(infos, footers)),
        columns=spec.columns,
        prediction_columns=prediction_names,
        output_schema=output.encode_schema(schema),
        num_shards=len(shards),
        rows_in=rows_in,
        size_bytes=size_bytes,
        pins=make_pins(
            model.flavor,
            verdict,
            WriterSettings(dictionary_columns=output.dictionary_columns(schema)),
        ),
        rows=_row_policy(spec, names, schemas, rows_in),
        on_corrupt_file=spec.on_corrupt_file,
        quarantined=quarantined,
        casts=casts(schemas, model.signature),
    )
    return plan, shards


def _check_places(spec: JobSpec) -> None:
    if not spec.input:
        raise InvalidError("nothing to score: neither the job nor the run names an `input`")
    below = canonical_url(spec.output).rstrip("/") + "/"
    for each in spec.input:
        folder = canonical_url(each.uri).rstrip("/") + "/"
        if below.startswith(folder):
            raise InvalidError(
                f"the output {below} lies within the input {folder}, so that a later run would "
                "take predictions for data; choose another output"
            )


def _mode(spec: JobSpec, size_bytes: int, rows_in: int, num_files: int) -> Mode:
    if spec.mode is not Mode.AUTO:
        return spec.mode
    return choose_mode(size_bytes, rows_in, num_files)


# --- footers --------------------------------------------------------------------------------------


def _read_footers(
    infos: Sequence[ObjectInfo],
    names: Sequence[str],
    settings: Settings,
    check: Callable[[], None],
) -> list[Footer | CorruptError]:
    if len(infos) == 1:
        return [_footer(infos[0], settings, names)]
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="augury-footer")
    try:
        futures = [pool.submit(_footer, info, settings, names) for info in infos]
        return [_result(future, check) for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _footer(info: ObjectInfo, settings: Settings, names: Sequence[str]) -> Footer | CorruptError:
    try:
        return read_footer(info, settings, names)
    except CorruptError as error:
        return error


def _sound(
    infos: Sequence[ObjectInfo], read: Sequence[Footer | CorruptError], policy: OnCorruptFile
) -> tuple[list[ObjectInfo], list[Footer], tuple[Quarantined, ...]]:
    """The files with a footer; and the others, if they may be left out."""
    sound: list[ObjectInfo] = []
    footers: list[Footer] = []
    quarantined: list[Quarantined] = []
    for info, found in zip(infos, read, strict=True):
        if isinstance(found, Footer):
            sound.append(info)
            footers.append(found)
        elif policy is OnCorruptFile.FAIL:
            raise found
        else:
            quarantined.append(_quarantined(info, found))
    if quarantined and not sound:
        raise CorruptError(
            f"every input is damaged, so nothing can be scored; the first: {quarantined[0].reason}",
            uri=quarantined[0].uri,
        )
    return sound, footers, tuple(quarantined)


def _quarantined(info: ObjectInfo, error: CorruptError) -> Quarantined:
    return Quarantined(
        uri=info.uri, tag=info.tag, row_group=None, num_rows=None, reason=error.message
    )


def _result(
    future: Future[Footer | CorruptError], check: Callable[[], None]
) -> Footer | CorruptError:
    while True:
        try:
            return future.result(timeout=_CHECK_S)
        except TimeoutError:
            if future.done():
                raise
            check()


def _planned_files(infos: Sequence[ObjectInfo], footers: Sequence[Footer]) -> Iterator[PlannedFile]:
    for info, footer in zip(infos, footers, strict=True):
        yield PlannedFile(
            uri=info.uri, tag=info.tag, size_bytes=info.size_bytes, num_rows=footer.num_rows
        )


# --- model and output -----------------------------------------------------------------------------


def _planned_model(model: ModelVersion | PlannedModel) -> PlannedModel:
    return PlannedModel(
        name=model.name,
        version=model.version,
        digest=model.digest,
        flavor=model.flavor,
        uri=model.uri,
        size_bytes=model.size_bytes,
        signature=model.signature,
    )


def _output_schema(
    spec: JobSpec,
    model: ModelVersion | PlannedModel,
    schemas: Mapping[str, pa.Schema],
) -> tuple[pa.Schema, tuple[str, ...]]:
    import pyarrow as pa

    names = _prediction_names(model.signature, spec.prediction_columns)
    number = pa.float32() if model.flavor in _FLOAT32_FLAVORS else pa.float64()
    policies = _policies(spec)
    carried = check_all(schemas, model.signature, spec.columns, names, policies)
    predicted = output.prediction_fields(model.signature, names, number)
    return pa.schema([*carried, *predicted]), names


def _policies(spec: JobSpec) -> tuple[ColumnPolicy, ...]:
    return tuple(expected.policy(name) for name, expected in spec.expect.items())


def _row_policy(
    spec: JobSpec, names: Sequence[str], schemas: Mapping[str, pa.Schema], rows_in: int
) -> RowPolicy:
    """What the job says about rows; `names` are the columns that scoring reads."""
    import pyarrow as pa

    order = {name: number for number, name in enumerate(names)}
    columns = tuple(sorted(_policies(spec), key=lambda column: order[column.name]))
    if not may_reject(spec.on_bad_row, columns):
        return RowPolicy(on_bad_row=spec.on_bad_row, columns=columns)
    fields = [*reject_fields(), *original_fields(schemas, names)]
    return RowPolicy(
        on_bad_row=spec.on_bad_row,
        columns=columns,
        reject_schema=output.encode_schema(pa.schema(fields)),
        max_rejected=allowed_rejects(rows_in, **spec.max_rejected.model_dump()),
    )


def _prediction_names(signature: Signature, names: PredictionColumns) -> tuple[str, ...]:
    return output.prediction_names(
        signature.task, names.prediction, names.probability, names.probabilities
    )


def _distinct(infos: Sequence[ObjectInfo], footers: Sequence[Footer]) -> dict[str, pa.Schema]:
    """Each schema once, by the first file that has it: thousands of files have mostly one."""
    found: dict[str, pa.Schema] = {}
    for info, footer in zip(infos, footers, strict=True):
        if not any(footer.schema.equals(other) for other in found.values()):
            found[info.uri] = footer.schema
    return found
