"""Law 2 where the manifest is built: per file, and in sum."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from augury.data.manifest import FileRows, Part
from augury.errors import ConservationError
from augury.inference.commit import build_manifest
from augury.inference.plan import (
    Pins,
    Plan,
    PlannedFile,
    PlannedModel,
    ShardResult,
    WriterSettings,
)
from augury.jobs.spec import Mode
from augury.models.signature import InputColumn, Signature, Task

SIGNATURE = Signature(inputs=(InputColumn(name="a", type="float"),), task=Task.REGRESSION)
PLAN = Plan(
    mode=Mode.DISTRIBUTED,
    model=PlannedModel(
        name="m", version=2, digest="d", flavor="f", uri="u", size_bytes=1, signature=SIGNATURE
    ),
    files=(
        PlannedFile(uri="a", tag="1", size_bytes=1, num_rows=5),
        PlannedFile(uri="b", tag="2", size_bytes=1, num_rows=0),
        PlannedFile(uri="c", tag="3", size_bytes=1, num_rows=4),
    ),
    columns=(),
    prediction_columns=("prediction",),
    output_schema="",
    num_shards=3,
    rows_in=9,
    size_bytes=3,
    pins=Pins(backend="", machine="", libraries={}, writer=WriterSettings()),
)


def result(seq: int, *files: tuple[str, str, int], **changed: Any) -> ShardResult:
    rows = sum(count for _, _, count in files)
    values: dict[str, Any] = {
        "rows_in": rows,
        "rows_predicted": rows,
        "rows_rejected": 0,
        "rows_filtered": 0,
        "files": tuple(
            FileRows(uri=uri, tag=tag, rows_in=count, rows_predicted=count)
            for uri, tag, count in files
        ),
        "part": Part(
            key=f"part-{seq:05}.parquet", size_bytes=1, sha256=f"{seq}", num_rows=rows, shard=seq
        ),
        "seconds": random.random(),
    }
    return ShardResult(seq=seq, **{**values, **changed})


RESULTS = [
    result(0, ("a", "1", 3), unknown_categories={"c": {"x": 1}}),
    result(1, ("a", "1", 2), ("c", "3", 1), unknown_categories={"c": {"x": 2, "y": 1}}),
    result(2, ("c", "3", 3)),
]


def built(results: list[ShardResult], plan: Plan = PLAN) -> Any:
    return build_manifest(plan, run_id="run_1", job="j", results=results)


def test_the_manifest_counts_every_file_and_does_not_depend_on_order_or_time() -> None:
    manifest = built(RESULTS)
    assert [(file.uri, file.rows_in) for file in manifest.files] == [("a", 5), ("b", 0), ("c", 4)]
    assert (manifest.rows.rows_in, manifest.rows.rows_predicted) == (9, 9)
    assert [part.shard for part in manifest.parts] == [0, 1, 2]
    assert manifest.unknown_categories == {"c": {"x": 3, "y": 1}}
    later = [replace(each, seconds=99.0) for each in RESULTS]
    assert built(list(reversed(later))).to_bytes() == manifest.to_bytes()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (RESULTS[:2], "without"),
        ([*RESULTS, RESULTS[0]], "each once"),
        ([*RESULTS[:2], result(2, ("c", "3", 2))], "c: expected 4 rows"),
        ([*RESULTS[:2], result(2, ("c", "3", 4))], "c: expected 4 rows"),
        ([*RESULTS[:2], result(2, ("c", "other", 3))], "c: expected 4 rows"),
        ([*RESULTS[:2], result(2, ("c", "3", 3), ("d", "4", 1))], "not planned"),
        ([*RESULTS[:2], result(2, ("c", "3", 3), rows_predicted=2)], "expected 9 rows in all"),
        (
            [
                *RESULTS[:2],
                result(
                    2,
                    ("c", "3", 3),
                    part=Part(key="p", size_bytes=1, sha256="", num_rows=2, shard=2),
                ),
            ],
            "the parts hold 8",
        ),
        (
            [
                *RESULTS[:2],
                result(
                    2,
                    ("c", "3", 3),
                    files=(FileRows(uri="c", tag="3", rows_in=3, rows_predicted=2),),
                ),
            ],
            "c: expected 4 rows = predicted",
        ),
    ],
)
def test_rows_that_do_not_add_up_cannot_be_committed(
    results: list[ShardResult], message: str
) -> None:
    with pytest.raises(ConservationError, match=message):
        built(results)


def test_rejected_and_filtered_rows_count() -> None:
    share = FileRows(
        uri="c", tag="3", rows_in=3, rows_predicted=1, rows_rejected=1, rows_filtered=1
    )
    part = Part(key="p", size_bytes=1, sha256="", num_rows=1, shard=2)
    counts = {"rows_predicted": 1, "rows_rejected": 1, "rows_filtered": 1}
    reject_part = Part(key="r", size_bytes=1, sha256="9", num_rows=1, shard=2)
    last = result(2, ("c", "3", 3), files=(share,), part=part, reject_part=reject_part, **counts)
    manifest = built([*RESULTS[:2], last])
    assert manifest.rows.rows_rejected == manifest.rows.rows_filtered == 1
    assert manifest.reject_parts == (reject_part,)
    without = replace(manifest, reject_parts=())
    assert without.content_digest != manifest.content_digest
    with pytest.raises(ConservationError, match="7 predicted and 0 rejected"):
        built([*RESULTS[:2], replace(last, reject_part=None)])
