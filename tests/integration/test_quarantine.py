"""Files and row groups that cannot be read: the run fails, or goes on without them and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scoring_world import damage, numbers, regression, score, write

from augury.data.manifest import Manifest
from augury.errors import CorruptError, IdentityError
from augury.inference import pipeline
from augury.settings import Settings

QUARANTINE: dict[str, Any] = {"on_corrupt_file": "quarantine", "columns": ["id"]}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Three files of 1000 rows in row groups of 100; the middle one lacks two of them."""
    for number in range(3):
        write(tmp_path / f"in/{number}.parquet", numbers(1000), row_group_size=100)
    damage(tmp_path / "in/1.parquet", 3)
    damage(tmp_path / "in/1.parquet", 7, column=2)
    return tmp_path / "in"


@pytest.mark.parametrize("alone_rows", [0, 10**6], ids=["in_threads", "alone"])
def test_a_row_group_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path,
    inputs: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    alone_rows: int,
) -> None:
    monkeypatch.setattr(pipeline, "_ALONE_ROWS", alone_rows)
    done: list[int] = []
    scored = score(
        settings,
        [inputs],
        tmp_path / "out",
        regression("a", "b"),
        target_shard_rows=2500,
        on_progress=done.append,
        **QUARANTINE,
    )
    ids = [*range(1000), *(i for i in range(1000) if i // 100 not in (3, 7)), *range(1000)]
    assert scored.table()["id"].to_pylist() == ids
    manifest = scored.manifest()
    assert not manifest.complete
    assert [(q.row_group, q.num_rows) for q in manifest.quarantined] == [(3, 100), (7, 100)]
    assert all("1.parquet is not a sound Parquet file" in q.reason for q in manifest.quarantined)
    assert [file.rows_in for file in manifest.files] == [1000, 800, 1000]
    assert sum(done) == manifest.rows.rows_predicted == 2800
    assert Manifest.from_bytes(manifest.to_bytes()).quarantined == manifest.quarantined


def test_row_numbers_count_what_was_left_out(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    options = {"on_bad_row": "reject", "expect": {"a": {"range": [None, 449]}}}
    path = inputs / "1.parquet"
    scored = score(
        settings, [path], tmp_path / "out", regression("a", "b"), **QUARANTINE, **options
    )
    first = scored.results[0].first_rejects[0]
    assert (first.row, first.column) == (899, "a")


def test_without_the_policy_the_run_fails_and_names_the_file(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    with pytest.raises(CorruptError, match=r"1\.parquet is not a sound"):
        score(settings, [inputs], tmp_path / "out", regression("a", "b"))


def test_a_file_without_a_footer_is_left_out_of_the_plan(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    (inputs / "1.parquet").write_bytes(b"PAR1, and nothing else")
    with pytest.raises(CorruptError, match=r"1\.parquet"):
        score(settings, [inputs], tmp_path / "out", regression("a"))
    scored = score(settings, [inputs], tmp_path / "out", regression("a"), **QUARANTINE)
    assert [file.uri[-9:] for file in scored.plan.files] == ["0.parquet", "2.parquet"]
    (lost,) = scored.manifest().quarantined
    assert (lost.row_group, lost.num_rows) == (None, None)
    assert scored.manifest().rows.rows_in == 2000
    assert type(scored.plan).from_json(scored.plan.to_json()) == scored.plan


def test_a_run_whose_every_file_is_damaged_fails(tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "in.parquet", numbers(1)).write_bytes(b"nothing")
    with pytest.raises(CorruptError, match="every input is damaged"):
        score(settings, [tmp_path / "in.parquet"], tmp_path / "out", regression("a"), **QUARANTINE)


def test_a_file_that_is_replaced_is_not_damaged(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    class Replacing:
        backend = "sums 1"

        def predict(self, matrix: Any) -> Any:
            write(inputs / "1.parquet", numbers(5))
            return matrix[:, 0]

    options: dict[str, Any] = {"model": Replacing(), **QUARANTINE}
    with pytest.raises(IdentityError):
        score(settings, [inputs], tmp_path / "out", regression("a"), **options)
