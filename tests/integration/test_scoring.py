"""Planning and scoring over real files: what comes out, and that its bytes never vary."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scoring_world import Sums, Version, nothing, numbers, regression, score, write

from augury.data import batches
from augury.errors import ContractError, InvalidError, NotFoundError
from augury.inference import pipeline
from augury.inference.plan import Plan
from augury.inference.planning import plan_run
from augury.jobs.spec import JobSpec, Mode
from augury.models.signature import InputColumn, Signature, Task
from augury.settings import Settings


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Files of 0, 1000, 2000 and 3000 rows in row groups of 300; one with empty row groups."""
    for number in range(4):
        table = numbers(1000 * number, start=10_000 * number)
        write(tmp_path / f"in/f{number}.parquet", table, row_group_size=300)
    from pyarrow import parquet as pq

    table = numbers(5, start=90_000)
    with pq.ParquetWriter(tmp_path / "in/f4.parquet", table.schema) as writer:
        for piece in (table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(piece)
    return tmp_path / "in"


def test_rows_come_out_in_order_with_carried_columns_first(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    scored = score(settings, [inputs], tmp_path / "out", regression("b", "a"), columns=["id", "b"])
    table = scored.table()
    assert table.schema.names == ["id", "b", "prediction"]
    expected = pa.concat_tables(
        [numbers(1000 * n, start=10_000 * n) for n in range(4)] + [numbers(5, start=90_000)]
    )
    assert table["id"].to_pylist() == expected["id"].to_pylist()
    sums = expected["a"].to_numpy() + expected["b"].to_numpy()
    assert table["prediction"].to_numpy().tolist() == sums.tolist()
    manifest = scored.manifest()
    assert [file.rows_in for file in manifest.files] == [0, 1000, 2000, 3000, 5]
    assert manifest.rows.rows_predicted == 6005


def test_bytes_depend_neither_on_batches_nor_on_mode(
    tmp_path: Path, inputs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, mode: Mode) -> tuple[str, list[int]]:
        model = Sums(regression("a", "b"))
        scored = score(
            settings,
            [inputs],
            tmp_path / name,
            regression("a", "b"),
            model=model,
            columns=["id"],
            mode=mode,
            target_shard_rows=2_500,
        )
        assert len(scored.shards) > 1
        return scored.manifest().content_digest, model.batches

    rng = random.Random(7)
    expected, calls = run("undisturbed", Mode.BATCH)
    for number, mode in enumerate([Mode.MINI_BATCH, Mode.BATCH, Mode.DISTRIBUTED]):
        monkeypatch.setattr(batches, "BATCH_ROWS", rng.randint(10, 700))
        monkeypatch.setattr(pipeline, "_FIRST_ROWS", rng.randint(1, 300))
        monkeypatch.setattr(pipeline, "_ALONE_ROWS", (number % 2) * 10_000)
        found, other_calls = run(f"random{number}", mode)
        assert found == expected
        assert other_calls != calls


def test_no_thread_outlives_a_shard(tmp_path: Path, inputs: Path, settings: Settings) -> None:
    before = set(threading.enumerate())
    score(settings, [inputs], tmp_path / "out", regression("a", "b"))
    assert set(threading.enumerate()) <= before


def test_progress_adds_up(tmp_path: Path, inputs: Path, settings: Settings) -> None:
    done: list[int] = []
    score(settings, [inputs], tmp_path / "out", regression("a", "b"), on_progress=done.append)
    assert sum(done) == 6005
    assert len(done) > 1


def test_scoring_a_shard_again_changes_nothing(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    first = score(settings, [inputs], tmp_path / "out", regression("a", "b"))
    stat = (first.folder / "part-00000.parquet").stat()
    again = score(settings, [inputs], tmp_path / "out", regression("a", "b"))
    assert again.manifest().to_bytes() == first.manifest().to_bytes()
    assert (first.folder / "part-00000.parquet").stat().st_mtime_ns == stat.st_mtime_ns
    assert [path.name for path in first.folder.iterdir()] == ["part-00000.parquet"]


# --- no rows --------------------------------------------------------------------------------------


def test_an_empty_folder_gives_an_empty_part(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    scored = score(settings, [tmp_path / "in"], tmp_path / "out", regression("a"), columns=["id"])
    assert scored.plan.mode is Mode.MINI_BATCH
    assert scored.table().num_rows == 0
    assert scored.table().schema.names == ["id", "prediction"]
    assert scored.manifest().rows.rows_in == 0


def test_files_without_rows_give_an_empty_part_with_their_types(
    tmp_path: Path, settings: Settings
) -> None:
    write(tmp_path / "in/a.parquet", numbers(0))
    write(tmp_path / "in/b.parquet", numbers(0))
    scored = score(settings, [tmp_path / "in"], tmp_path / "out", regression("a"), columns=["id"])
    assert scored.table().schema.field("id").type == pa.int64()
    assert [file.rows_in for file in scored.manifest().files] == [0, 0]


# --- kinds of models and columns ------------------------------------------------------------------


def test_a_multiclass_model_with_carried_text_and_categories(
    tmp_path: Path, settings: Settings
) -> None:
    table = pa.table(
        {
            "k": pa.array(["x", "y", None, "new"] * 50).dictionary_encode(),
            "s": pa.array(["y", "x", "odd", None] * 50),
            "n": pa.array([1.0, None] * 100),
        }
    )
    write(tmp_path / "in.parquet", table, row_group_size=33)
    inputs = tuple(
        InputColumn(name=name, type="string", categories=("x", "y")) for name in ("k", "s")
    )
    signature = Signature(
        inputs=(*inputs, InputColumn(name="n", type="float")),
        task=Task.MULTICLASS,
        classes=("lo", "mid", "hi"),
    )
    names = {"prediction": "class", "probabilities": "scores"}
    scored = score(
        settings,
        [tmp_path / "in.parquet"],
        tmp_path / "out",
        signature,
        columns=["n", "k"],
        prediction_columns=names,
    )
    found = scored.table()
    assert found.schema.names == ["n", "k", "class", "scores"]
    assert found["k"].to_pylist() == table["k"].to_pylist()
    matrix = np.array([[0, 1, 1], [1, 0, np.nan], [np.nan, np.nan, 1], [np.nan] * 3], np.float32)
    expected = Sums(signature).predict(matrix)
    assert found["scores"].to_pylist() == expected.tolist() * 50
    assert found["class"][0].as_py() == ("lo", "mid", "hi")[expected[0].argmax()]
    assert scored.manifest().unknown_categories == {"k": {"new": 50}, "s": {"odd": 50}}


def test_files_may_differ_in_how_they_hold_the_same_values(
    tmp_path: Path, settings: Settings
) -> None:
    write(tmp_path / "in/a.parquet", pa.table({"c": pa.array([1, 2], pa.int32()), "a": [1.0, 2.0]}))
    write(tmp_path / "in/b.parquet", pa.table({"a": [3, 4], "c": pa.array([3, 4], pa.int64())}))
    scored = score(settings, [tmp_path / "in"], tmp_path / "out", regression("a"), columns=["c"])
    assert scored.table().to_pydict() == {"c": [1, 2, 3, 4], "prediction": [1.0, 2.0, 3.0, 4.0]}
    assert scored.table().schema.field("c").type == pa.int64()


def test_only_what_is_needed_is_read(tmp_path: Path, settings: Settings) -> None:
    wide = numbers(1000).append_column("unused", [[f"text {n}" * 100 for n in range(1000)]])
    write(tmp_path / "in.parquet", wide)
    scored = score(settings, [tmp_path / "in.parquet"], tmp_path / "out", regression("a"))
    assert scored.plan.size_bytes < scored.plan.files[0].size_bytes / 5


# --- planning -------------------------------------------------------------------------------------


def plan(settings: Settings, signature: Signature, **fields: Any) -> Plan:
    spec = JobSpec.model_validate({"model": "m", **fields})
    return plan_run(spec, Version(signature=signature), settings, check=nothing)[0]  # type: ignore[arg-type]


def test_planning_reads_no_row(tmp_path: Path, settings: Settings) -> None:
    path = write(tmp_path / "in.parquet", numbers(10_000))
    data = bytearray(path.read_bytes())
    data[4:20_000] = bytes(19_996)  # pages gone, footer left
    path.write_bytes(data)
    found = plan(settings, regression("a"), input=[{"uri": str(path)}], output=f"{tmp_path}/out")
    assert found.rows_in == 10_000


def test_the_same_objects_give_the_same_plan(
    tmp_path: Path, inputs: Path, settings: Settings
) -> None:
    fields: dict[str, Any] = {"input": [{"uri": f"{inputs}/"}], "output": f"{tmp_path}/out"}
    found = plan(settings, regression("a"), **fields)
    assert found.to_json() == plan(settings, regression("a"), **fields).to_json()
    assert 'row_group"' not in found.to_json()


def test_every_fault_of_every_file_is_told_before_a_row_is_read(
    tmp_path: Path, settings: Settings
) -> None:
    write(tmp_path / "in/a.parquet", pa.table({"a": ["text"], "b": [1]}))
    write(tmp_path / "in/b.parquet", pa.table({"a": [1.0]}))
    with pytest.raises(ContractError) as caught:
        plan(
            settings,
            regression("a", "b"),
            input=[{"uri": f"{tmp_path}/in/"}],
            output=f"{tmp_path}/out",
            columns=["id"],
        )
    paths = [fault.path.rpartition("/")[2] for fault in caught.value.faults]
    assert paths == ["a.parquet: a", "a.parquet: id", "b.parquet: b", "b.parquet: id"]


def test_nothing_named_is_refused(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(InvalidError, match="nothing to score"):
        plan(settings, regression("a"), output=str(tmp_path))


def test_a_missing_input_is_told(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        plan(
            settings,
            regression("a"),
            input=[{"uri": f"{tmp_path}/gone/"}],
            output=f"{tmp_path}/out",
        )


@pytest.mark.parametrize("place", ["in", "in/", "in/deep/er"])
def test_an_output_within_the_input_is_refused(
    tmp_path: Path, settings: Settings, place: str
) -> None:
    write(tmp_path / "in/a.parquet", numbers(1))
    with pytest.raises(InvalidError, match="lies within the input"):
        plan(
            settings,
            regression("a"),
            input=[{"uri": f"{tmp_path}/in/"}],
            output=f"{tmp_path}/{place}",
        )


def test_a_check_ends_planning(tmp_path: Path, inputs: Path, settings: Settings) -> None:
    def check() -> None:
        raise KeyError("cancelled")

    spec = JobSpec.model_validate(
        {"model": "m", "input": [{"uri": f"{inputs}/"}], "output": f"{tmp_path}/out"}
    )
    with pytest.raises(KeyError):
        plan_run(spec, Version(signature=regression("a")), settings, check=check)  # type: ignore[arg-type]
