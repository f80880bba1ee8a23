"""Models, files and runs for the tests of scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from augury.inference.commit import build_manifest
from augury.inference.plan import Plan, ShardResult, ShardSpec
from augury.inference.planning import plan_run
from augury.inference.score import score_shard
from augury.jobs.spec import JobSpec
from augury.models.signature import InputColumn, Signature, Task
from augury.settings import Settings
from augury.storage.objects import ObjectStore, open_store


def nothing(*_: object) -> None:
    """A check or a progress callback that does nothing."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What planning reads of a registered model version."""

    signature: Signature
    name: str = "m"
    version: int = 1
    digest: str = "0" * 64
    flavor: str = "sums"
    uri: str = "file:///m"
    size_bytes: int = 1


class Sums:
    """A model without a library: row sums, NaN counting as -1; each row on its own."""

    backend = "sums 1"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.batches: list[int] = []

    def predict(self, matrix: Any) -> Any:
        assert matrix.flags.c_contiguous
        assert matrix.dtype == self.signature.dtype
        self.batches.append(len(matrix))
        total = np.zeros(len(matrix))
        for index in range(matrix.shape[1]):
            total += np.nan_to_num(matrix[:, index].astype(np.float64), nan=-1.0)
        match self.signature.task:
            case Task.REGRESSION:
                return total
            case Task.BINARY:
                return 1 / (1 + np.exp(-total))
            case Task.MULTICLASS:
                scores = np.stack([total * k for k in range(len(self.signature.classes))], 1)
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                return scores / scores.sum(axis=1, keepdims=True)


def regression(*names: str, dtype: Any = "float64") -> Signature:
    inputs = tuple(InputColumn(name=name, type="double") for name in names)
    return Signature(inputs=inputs, task=Task.REGRESSION, dtype=dtype)


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def damage(path: Path, row_group: int, column: int = 1) -> Path:
    """Makes a row group unreadable; the footer stays as it is."""
    chunk = pq.read_metadata(path).row_group(row_group).column(column)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    return path


def numbers(num_rows: int, *, start: int = 0) -> pa.Table:
    """Columns id, a, b."""
    ids = np.arange(start, start + num_rows)
    return pa.table({"id": ids, "a": ids * 0.5, "b": (ids % 7).astype(np.float32)})


@dataclass(kw_only=True)
class Scored:
    plan: Plan
    shards: list[ShardSpec]
    results: list[ShardResult]
    output: ObjectStore

    @property
    def folder(self) -> Path:
        return Path(self.output.url.removeprefix("file://"))

    def part(self, seq: int = 0) -> bytes:
        return (self.folder / f"part-{seq:05}.parquet").read_bytes()

    def table(self) -> pa.Table:
        return pa.concat_tables(
            pq.read_table(self.folder / f"part-{s.seq:05}.parquet") for s in self.shards
        )

    def manifest(self) -> Any:
        return build_manifest(self.plan, run_id="run_1", job="j", results=self.results)


def score(
    settings: Settings,
    inputs: Sequence[str | Path],
    output: Path,
    signature: Signature,
    *,
    model: Any = None,
    check: Callable[[], None] = nothing,
    on_progress: Callable[[int], None] = nothing,
    **fields: Any,
) -> Scored:
    """Plans and scores all shards, one after the other."""
    spec = JobSpec.model_validate(
        {
            "model": "m",
            "input": [{"uri": str(each)} for each in inputs],
            "output": str(output),
            **fields,
        }
    )
    plan, shards = plan_run(spec, Version(signature=signature), settings, check=nothing)  # type: ignore[arg-type]
    store = open_store(f"{output}/run_1/", settings)
    results = [
        score_shard(
            plan,
            shard,
            model or Sums(signature),
            store,
            settings,
            num_threads=1,
            on_progress=on_progress,
            check=check,
        )
        for shard in shards
    ]
    return Scored(plan=plan, shards=shards, results=results, output=store)
