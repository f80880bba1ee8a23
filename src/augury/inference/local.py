"""`augury score`: one inference run in this very process, without any service.

The same code as in a worker: plan, score every shard, count the rows, write the manifest. What is
missing is only what a service is for: no ledger, no retries, no registered model. The output folder
itself is the run's folder: `{output}/part-00000.parquet` and so on, and `{output}/_manifest.json`,
written last, so an output without a manifest is unfinished. An output that holds anything else is
refused; the same run again over the same output is not, for it writes the same bytes.

Shards run side by side, as many as there are CPUs, and a model that is left alone with its shard
computes with several threads.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from augury import clock
from augury.data.manifest import MANIFEST_KEY, Manifest
from augury.errors import ConflictError, CorruptError, Fault, InvalidError
from augury.inference.commit import build_manifest
from augury.inference.crew import Crew, Progress, share_cpus
from augury.inference.plan import Plan, PlannedModel, ShardSpec
from augury.inference.planning import plan_run
from augury.jobs.spec import JobSpec
from augury.models import backends
from augury.storage.files import file_digest
from augury.storage.objects import ObjectStore, open_store

if TYPE_CHECKING:
    from augury.models.port import Flavor
    from augury.models.signature import Signature
    from augury.settings import Settings

#: what `policy` may say
POLICY_FIELDS = ("on_bad_row", "expect", "max_rejected", "on_corrupt_file")


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What a run of `augury score` did.

    Attributes:
        seconds: wall time of the whole call, loading and planning included.
        peak_rss_bytes: the most memory that this process ever held.
        backend: what predicted, with its version.
        backend_reason: why that is the model's library; empty if it is Augury's own kernel.
        complete: False if something was damaged and left out.
        quarantined: what that was.
    """

    rows_in: int
    rows_predicted: int
    rows_rejected: int
    seconds: float
    rows_per_second: float
    peak_rss_bytes: int
    backend: str
    backend_reason: str
    output_uri: str
    manifest_uri: str
    complete: bool
    quarantined: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain document."""
        return asdict(self)


def score_local(
    model: str | Path,
    input: str | Path | Sequence[str | Path],  # noqa: A002 - the name in every surface
    output: str | Path,
    *,
    settings: Settings,
    trust: bool = False,
    signature: Signature | None = None,
    sample: str | Path | None = None,
    columns: Sequence[str] = (),
    policy: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> ScoreSummary:
    """Scores files with a model file.

    Args:
        model: the model file; it need not be registered.
        input: object, folder or prefix, or several of them.
        output: folder or prefix; made if missing, refused if it holds anything foreign.
        settings: for access to stores; `worker_cpus` limits the threads.
        trust: load a model format whose files may run code (pickle, joblib).
        signature: the model's inputs and outputs; None: as the model and `sample` say.
        sample: a Parquet file with the columns that the model was trained on.
        columns: input columns carried into the output.
        policy: what becomes of bad rows, as in a job: see `POLICY_FIELDS`.
        on_progress: called with (rows predicted so far, rows in all); first with 0, from any
            thread, one call at a time.

    Raises:
        InvalidError: the model needs `trust`, or does not say enough about its inputs.
        ConflictError: the output holds something else.
        AuguryError: whatever else `plan_run` and `score_shard` raise. Parts that this call wrote
            are removed then.
    """
    started = clock.monotonic_s()
    planned, flavor = _describe(Path(model), trust=trust, signature=signature, sample=sample)
    spec = _spec(planned, input, output=str(output), columns=columns, policy=policy)
    verdict = _verdict(flavor, Path(model), planned, settings)
    plan, shards = plan_run(spec, planned, settings, check=_go_on, verdict=verdict)
    store = open_store(spec.output.rstrip("/") + "/", settings)
    _refuse_foreign(store, plan, shards)
    threads, side_by_side = share_cpus(settings, len(shards))
    loaded = backends.load(
        planned.flavor,
        Path(model),
        planned.signature,
        backend=plan.pins.backend,
        num_threads=threads,
    )
    crew = Crew(plan, loaded, store, settings, num_threads=threads, on_progress=on_progress)
    with _removed_on_error(store, shards):
        results = crew.score(shards, side_by_side)
        manifest = build_manifest(plan, run_id="local", job="local", results=results)
        written = store.put(MANIFEST_KEY, manifest.to_bytes())
    seconds = clock.monotonic_s() - started
    return ScoreSummary(
        rows_in=manifest.rows.rows_in,
        rows_predicted=manifest.rows.rows_predicted,
        rows_rejected=manifest.rows.rows_rejected,
        seconds=round(seconds, 3),
        rows_per_second=round(manifest.rows.rows_in / seconds, 1),
        peak_rss_bytes=peak_rss_bytes(),
        backend=loaded.backend,
        backend_reason=plan.pins.backend_reason,
        output_uri=store.url,
        manifest_uri=written.uri,
        complete=manifest.complete,
        quarantined=tuple(str(each) for each in manifest.quarantined),
    )


def plan_local(
    model: str | Path,
    input: str | Path | Sequence[str | Path],  # noqa: A002 - the name in every surface
    *,
    settings: Settings,
    trust: bool = False,
    sample: str | Path | None = None,
    columns: Sequence[str] = (),
    mode: str = "auto",
) -> tuple[Plan, list[ShardSpec]]:
    """What a run with a model file would do: footers are read, nothing is scored or written.

    Raises:
        AuguryError: as `score_local`, for the same reasons.
    """
    planned, _ = _describe(Path(model), trust=trust, signature=None, sample=sample)
    spec = _spec(planned, input, output="/dev/null/", columns=columns, mode=mode)
    return plan_run(spec, planned, settings, check=_go_on)


def _spec(
    planned: PlannedModel,
    inputs: str | Path | Sequence[str | Path],
    *,
    output: str,
    columns: Sequence[str],
    mode: str = "auto",
    policy: Mapping[str, Any] | None = None,
) -> JobSpec:
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    faults = _policy_faults(policy or {})
    if faults:
        raise InvalidError("cannot score so", faults)
    try:
        return JobSpec.model_validate(
            {
                **(policy or {}),
                "model": planned.name,
                "input": [{"uri": str(uri)} for uri in given],
                "output": output,
                "columns": tuple(columns),
                "mode": mode,
            }
        )
    except ValidationError as error:
        faults = [
            Fault(path=".".join(map(str, each["loc"])), message=each["msg"])
            for each in error.errors()
        ]
        raise InvalidError("cannot score so", faults) from error


def _policy_faults(policy: Mapping[str, Any]) -> list[Fault]:
    return [
        Fault(path=str(name), message=f"unknown field; expected one of {', '.join(POLICY_FIELDS)}")
        for name in policy
        if name not in POLICY_FIELDS
    ]


# --- the model ------------------------------------------------------------------------------------


def _describe(
    path: Path, *, trust: bool, signature: Signature | None, sample: str | Path | None
) -> tuple[PlannedModel, Flavor]:
    """The file as if it were registered."""
    from augury.models.flavors import open_flavor

    flavor = open_flavor(path, trust=trust)
    planned = PlannedModel(
        name=path.stem,
        version=0,
        digest=file_digest(path),
        flavor=flavor.name,
        signature=signature or _inferred(flavor, path, sample),
        uri=f"file://{path.absolute()}",
        size_bytes=path.stat().st_size,
    )
    return planned, flavor


def _inferred(flavor: Flavor, path: Path, sample: str | Path | None) -> Signature:
    if sample is None:
        return flavor.infer(path)
    from augury.models.sample import read_sample

    return flavor.infer(path, read_sample(Path(sample)))


def _verdict(
    flavor: Flavor, path: Path, planned: PlannedModel, settings: Settings
) -> backends.Verdict:
    """As registering it would find; takes seconds for a new file, nothing for a known one."""
    folder = settings.effective_cache_dir / "verdicts"
    return backends.judge_once(folder, flavor, path, planned.signature, digest=planned.digest)


# --- the output -----------------------------------------------------------------------------------


def _refuse_foreign(store: ObjectStore, plan: Plan, shards: Sequence[ShardSpec]) -> None:
    """Lets an empty output pass, and one that this very plan wrote before."""
    present = {info.key for info in store.list()}
    if not present:
        return
    ours = {*_keys(shards), MANIFEST_KEY}
    foreign = sorted(present - ours)
    if foreign:
        raise _occupied(store, f"{len(foreign)} other objects, such as {foreign[0]!r}")
    if MANIFEST_KEY not in present:
        raise _occupied(store, "parts of a run that did not finish")
    try:
        found = Manifest.from_bytes(store.read(MANIFEST_KEY)).plan_digest
    except CorruptError:
        raise _occupied(store, f"a {MANIFEST_KEY} that does not parse") from None
    if found != plan.digest:
        raise _occupied(store, "the output of a run with another input, model or version")


def _occupied(store: ObjectStore, found: str) -> ConflictError:
    return ConflictError(
        f"expected an empty output at {store.url}, found {found}; choose another, or remove it",
        uri=store.url,
    )


@contextmanager
def _removed_on_error(store: ObjectStore, shards: Sequence[ShardSpec]) -> Iterator[None]:
    before = {info.key for info in store.list()}
    try:
        yield
    except BaseException:
        for key in _keys(shards):
            if key not in before:
                store.delete(key)
        raise


def _keys(shards: Sequence[ShardSpec]) -> list[str]:
    """Every key that scoring these shards may write."""
    return [key for shard in shards for key in (shard.part_key, shard.reject_key)]


def _go_on() -> None:
    """Planning here ends by Ctrl-C only."""


def peak_rss_bytes() -> int:
    """The most resident memory that this process ever held.

    From /proc where there is one: `getrusage` counts what the parent held before the exec, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
