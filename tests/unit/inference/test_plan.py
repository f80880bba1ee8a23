"""Cutting shards, choosing a mode, and the texts of plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.data.dataset import RowGroup
from augury.data.manifest import FileRows, Part
from augury.errors import AuguryError, CorruptError
from augury.inference.plan import (
    BATCH_BYTES,
    BATCH_ROWS,
    MINI_BATCH_BYTES,
    MINI_BATCH_FILES,
    MINI_BATCH_ROWS,
    FileGroups,
    Pins,
    Plan,
    PlannedFile,
    PlannedModel,
    ShardResult,
    ShardSpec,
    WriterSettings,
    choose_mode,
    cut_shards,
)
from augury.jobs.spec import Mode
from augury.models.signature import InputColumn, Signature, Task

SIGNATURE = Signature(
    inputs=(
        InputColumn(name="a", type="float"),
        InputColumn(name="c", type="string", categories=("x", "y")),
    ),
    task=Task.BINARY,
    classes=(0, 1),
)
PLAN = Plan(
    mode=Mode.BATCH,
    model=PlannedModel(
        name="m",
        version=1,
        digest="d",
        flavor="xgboost",
        uri="file:///m",
        size_bytes=3,
        signature=SIGNATURE,
    ),
    files=(PlannedFile(uri="file:///f", tag="t", size_bytes=9, num_rows=3),),
    columns=("a",),
    prediction_columns=("prediction", "probability"),
    output_schema="",
    num_shards=1,
    rows_in=3,
    size_bytes=1,
    pins=Pins(
        backend="xgboost 3", machine="x86_64", libraries={"numpy": "2"}, writer=WriterSettings()
    ),
)


def file(name: str, *sizes: tuple[int, int]) -> FileGroups:
    groups = tuple(RowGroup(num_rows=rows, size_bytes=size) for rows, size in sizes)
    return FileGroups(uri=name, tag=f"tag of {name}", row_groups=groups)


GROUPS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 5_000)).map(
        lambda pair: RowGroup(num_rows=pair[0], size_bytes=pair[1])
    ),
    max_size=12,
)
FILES = st.lists(GROUPS, max_size=12).map(
    lambda files: [
        FileGroups(uri=f"f{number}", tag="t", row_groups=tuple(groups))
        for number, groups in enumerate(files)
    ]
)


@settings(deadline=None)  # time says nothing on a busy machine
@given(files=FILES, size_bytes=st.integers(1, 20_000), num_rows=st.integers(1, 200))
def test_every_row_is_in_exactly_one_shard_in_order(
    files: list[FileGroups], size_bytes: int, num_rows: int
) -> None:
    shards = cut_shards(files, size_bytes, num_rows)
    found = [(r.uri, r.row_group, r.num_rows) for shard in shards for r in shard.ranges]
    assert found == [
        (file.uri, number, group.num_rows)
        for file in files
        for number, group in enumerate(file.row_groups)
        if group.num_rows
    ]
    assert [shard.seq for shard in shards] == list(range(max(1, len(shards))))
    assert all(shard.ranges for shard in shards) or len(shards) == 1


@settings(deadline=None)  # time says nothing on a busy machine
@given(files=FILES, size_bytes=st.integers(1, 20_000), num_rows=st.integers(1, 200))
def test_a_shard_exceeds_the_targets_only_as_a_single_row_group_and_wastes_no_room(
    files: list[FileGroups], size_bytes: int, num_rows: int
) -> None:
    sizes = {
        (file.uri, number): group for file in files for number, group in enumerate(file.row_groups)
    }
    shards = cut_shards(files, size_bytes, num_rows)
    bytes_of = [sum(sizes[r.uri, r.row_group].size_bytes for r in s.ranges) for s in shards]
    for shard, size in zip(shards, bytes_of, strict=True):
        assert len(shard.ranges) <= 1 or (size <= size_bytes and shard.num_rows <= num_rows)
    for number, shard in enumerate(shards[:-1]):
        first = shards[number + 1].ranges[0]
        assert (
            shard.num_rows + first.num_rows > num_rows
            or bytes_of[number] + sizes[first.uri, first.row_group].size_bytes > size_bytes
        )


def test_small_files_share_a_shard() -> None:
    files = [file(f"f{number}", (10, 100)) for number in range(25)]
    assert [len(shard.ranges) for shard in cut_shards(files, 1_000, 10**6)] == [10, 10, 5]


def test_nothing_to_score_is_one_shard_without_ranges() -> None:
    for files in ([], [file("a")], [file("a", (0, 0)), file("b", (0, 4))]):
        assert cut_shards(files, 1, 1) == [ShardSpec(seq=0, ranges=())]


def test_part_keys_sort_as_shards_do() -> None:
    keys = [ShardSpec(seq=seq, ranges=()).part_key for seq in (0, 9, 10, 99_999)]
    assert keys == sorted(keys)
    assert keys[0] == "part-00000.parquet"


@pytest.mark.parametrize(
    ("size_bytes", "num_rows", "num_files", "mode"),
    [
        (0, 0, 0, Mode.MINI_BATCH),
        (MINI_BATCH_BYTES, MINI_BATCH_ROWS, MINI_BATCH_FILES, Mode.MINI_BATCH),
        (MINI_BATCH_BYTES + 1, 1, 1, Mode.BATCH),
        (1, MINI_BATCH_ROWS + 1, 1, Mode.BATCH),
        (1, 1, MINI_BATCH_FILES + 1, Mode.BATCH),
        (BATCH_BYTES, BATCH_ROWS, 10_000, Mode.BATCH),
        (BATCH_BYTES + 1, 1, 1, Mode.DISTRIBUTED),
        (1, BATCH_ROWS + 1, 1, Mode.DISTRIBUTED),
    ],
)
def test_the_mode_follows_the_size(
    size_bytes: int, num_rows: int, num_files: int, mode: Mode
) -> None:
    assert choose_mode(size_bytes, num_rows, num_files) is mode


def test_a_plan_reads_back_as_it_was_and_its_text_is_canonical() -> None:
    text = PLAN.to_json()
    assert Plan.from_json(text) == PLAN
    assert Plan.from_json(text).to_json() == text
    assert PLAN.digest == Plan.from_json(text).digest
    assert replace(PLAN, rows_in=4).digest != PLAN.digest


@pytest.mark.parametrize("text", ["", "{}", "[]", PLAN.to_json().replace('"batch"', '"other"')])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(CorruptError, match="not a plan"):
        Plan.from_json(text)


def test_shards_and_results_read_back_as_they_were() -> None:
    (shard,) = cut_shards([file("f", (3, 1), (0, 0), (4, 1))], 100, 100)
    assert ShardSpec.from_json(shard.to_json()) == shard
    result = ShardResult(
        seq=0,
        rows_in=7,
        rows_predicted=7,
        rows_rejected=0,
        rows_filtered=0,
        files=(FileRows(uri="f", tag="t", rows_in=7, rows_predicted=7),),
        part=Part(key="part-00000.parquet", size_bytes=1, sha256="0", num_rows=7, shard=0),
        unknown_categories={"c": {"z": 2}},
        seconds=0.5,
    )
    assert ShardResult.from_json(result.to_json()) == result
    with pytest.raises(AuguryError, match="not a ShardSpec"):
        ShardSpec.from_json({"seq": 1})
