"""Bad rows: which are rejected and why, what they keep, and that no bit depends on batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from pydantic import ValidationError
from scoring_world import Scored, Sums, regression, score, write

from augury.data import batches
from augury.errors import BadRowError, ContractError, InvalidError, RejectLimitError
from augury.inference import pipeline
from augury.jobs.spec import JobSpec
from augury.models.signature import InputColumn, Signature, Task
from augury.resources.documents import parse_document
from augury.settings import Settings

NAN = float("nan")
CODES = InputColumn(name="k", type="string", categories=("x", "y"))


class Fragile(Sums):
    """Fails on a batch in which some value of column `a` is -1."""

    def predict(self, matrix: Any) -> Any:
        if (matrix[:, 0] == -1).any():
            raise ValueError(f"-1 in {object()!r}")
        return super().predict(matrix)


def rejected(scored: Scored) -> list[dict[str, Any]]:
    paths = sorted((scored.folder / "_rejected").glob("part-*"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def why(scored: Scored) -> list[tuple[int, str | None, str]]:
    return [(row["_row"], row["_column"], row["_reason"]) for row in rejected(scored)]


def one_file(tmp_path: Path, **columns: Any) -> Path:
    return write(tmp_path / "in/f.parquet", pa.table(columns))


@pytest.mark.parametrize(
    ("expect", "bad"),
    [
        ({"nullable": False}, [(1, "null"), (2, "null")]),
        ({"finite": True}, [(2, "not_finite"), (3, "not_finite")]),
        ({"range": [0, 10]}, [(3, "range"), (4, "range")]),
        ({"range": [None, 10]}, [(3, "range")]),
        ({"range": [-1, None]}, []),
        (
            {"nullable": False, "finite": True, "range": [0, 10]},
            [(1, "null"), (2, "null"), (3, "not_finite"), (4, "range")],
        ),
    ],
)
def test_each_expectation_rejects_what_breaks_it(
    tmp_path: Path, settings: Settings, expect: dict[str, Any], bad: list[tuple[int, str]]
) -> None:
    path = one_file(tmp_path, a=pa.array([0.0, None, NAN, np.inf, -0.5, 10.0]), id=list("abcdef"))
    scored = score(
        settings,
        [path],
        tmp_path / "out",
        regression("a"),
        columns=["id"],
        on_bad_row="reject",
        expect={"a": expect},
        max_rejected={"share": 1},
    )
    assert why(scored) == [(row, "a", reason) for row, reason in bad]
    left = [name for row, name in enumerate("abcdef") if row not in dict(bad)]
    assert scored.table()["id"].to_pylist() == left
    manifest = scored.manifest()
    assert (manifest.rows.rows_predicted, manifest.rows.rows_rejected) == (len(left), len(bad))
    assert [part.num_rows for part in manifest.reject_parts] == ([len(bad)] if bad else [])
    assert (scored.folder / "_rejected").exists() == bool(bad)


def test_a_long_integer_is_compared_exactly(tmp_path: Path, settings: Settings) -> None:
    path = one_file(tmp_path, a=pa.array([2**53, 2**53 + 1, None], pa.int64()))
    options: dict[str, Any] = {"expect": {"a": {"range": [None, 2**53]}}, "on_bad_row": "reject"}
    scored = score(settings, [path], tmp_path / "out", regression("a"), **options)
    assert why(scored) == [(1, "a", "range")]


@pytest.mark.parametrize("encoded", [False, True])
def test_unknown_categories_by_policy(tmp_path: Path, settings: Settings, encoded: bool) -> None:
    values = pa.array(["x", "new", None, "y"])
    path = one_file(tmp_path, k=values.dictionary_encode() if encoded else values)
    signature = Signature(inputs=(CODES,), task=Task.REGRESSION, dtype="float64")

    def run(policy: str) -> Scored:
        options = {"expect": {"k": {"unknown_category": policy}}}
        return score(settings, [path], tmp_path / f"out-{policy}", signature, **options)

    assert run("missing").manifest().unknown_categories == {"k": {"new": 1}}
    scored = run("reject")
    assert why(scored) == [(1, "k", "unknown_category")]
    assert rejected(scored)[0]["k"] == "new"
    assert scored.manifest().unknown_categories == {}
    assert scored.table().num_rows == 3
    with pytest.raises(BadRowError, match=r"row 1 of .*f\.parquet, column 'k': .* found 'new'"):
        run("fail")


def test_a_bad_row_fails_the_run_unless_it_may_be_rejected(
    tmp_path: Path, settings: Settings
) -> None:
    path = one_file(tmp_path, a=[1.0, 99.0, None])
    with pytest.raises(BadRowError, match=r"row 1 of .*from 0 to 5, found 99.0.*on_bad_row") as e:
        score(
            settings,
            [path],
            tmp_path / "out",
            regression("a"),
            expect={"a": {"range": [0, 5], "nullable": False}},
        )
    assert e.value.attributes["row"] == 1
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_rows_on_which_the_model_fails_are_found_by_bisection(
    tmp_path: Path, settings: Settings
) -> None:
    values = np.arange(5000.0)
    values[[7, 8, 4999]] = -1
    path = one_file(tmp_path, a=values, b=np.ones(5000), id=np.arange(5000))
    signature = regression("a", "b")
    model = Fragile(signature)
    options: dict[str, Any] = {"columns": ["id"], "model": model, "on_bad_row": "reject"}
    scored = score(settings, [path], tmp_path / "out", signature, **options)
    assert why(scored) == [(row, None, "model") for row in (7, 8, 4999)]
    first = rejected(scored)[0]
    assert first["_detail"].startswith("-1 in <object object at 0x…")
    assert (first["_file"], first["id"], first["a"]) == (f"file://{path}", 7, -1.0)
    assert 7 not in scored.table()["id"].to_pylist()
    assert len(model.batches) < 60
    with pytest.raises(InvalidError, match="failed on rows of"):
        score(settings, [path], tmp_path / "other", signature, model=Fragile(signature))


@pytest.mark.parametrize("rows", [[0, 1, 2], [0]])
def test_a_file_may_be_rejected_whole(tmp_path: Path, settings: Settings, rows: list[int]) -> None:
    path = one_file(tmp_path, a=pa.array([None] * len(rows), pa.float64()))
    scored = score(
        settings,
        [path],
        tmp_path / "out",
        regression("a"),
        on_bad_row="reject",
        expect={"a": {"nullable": False}},
        max_rejected={"share": 1},
    )
    assert [row for row, _, _ in why(scored)] == rows
    assert scored.table().num_rows == 0
    assert scored.manifest().rows.rows_predicted == 0


def test_bytes_of_parts_and_rejects_do_not_depend_on_batches(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    for number in range(3):
        a = rng.normal(size=4000)
        a[rng.random(4000) < 0.05] = -1
        b = np.where(rng.random(4000) < 0.05, NAN, 1.0)
        k = rng.choice(["x", "y", "new"], 4000, p=[0.5, 0.45, 0.05])
        table = pa.table({"a": a, "b": b, "k": k, "id": np.arange(4000)})
        write(tmp_path / f"in/{number}.parquet", table, row_group_size=700)
    inputs = (InputColumn(name="a", type="double"), InputColumn(name="b", type="double"), CODES)
    signature = Signature(inputs=inputs, task=Task.REGRESSION, dtype="float64")
    expect = {"b": {"nullable": False}, "k": {"unknown_category": "reject"}}

    def run(name: str) -> tuple[str, list[tuple[int, str | None, str]], list[int]]:
        model = Fragile(signature)
        scored = score(
            settings,
            [tmp_path / "in"],
            tmp_path / name,
            signature,
            model=model,
            columns=["id"],
            on_bad_row="reject",
            expect=expect,
            target_shard_rows=2_500,
        )
        assert len(scored.shards) == 6
        rows = scored.manifest().rows
        assert rows.rows_predicted + rows.rows_rejected == 12_000
        return scored.manifest().content_digest, why(scored), model.batches

    random.seed(11)
    digest, reasons, calls = run("undisturbed")
    assert {reason for _, _, reason in reasons} == {"null", "unknown_category", "model"}
    for number in range(3):
        monkeypatch.setattr(batches, "BATCH_ROWS", random.randint(10, 700))
        monkeypatch.setattr(pipeline, "_FIRST_ROWS", random.randint(1, 300))
        monkeypatch.setattr(pipeline, "_ALONE_ROWS", (number % 2) * 10_000)
        found, other_reasons, other_calls = run(f"random{number}")
        assert (found, other_reasons) == (digest, reasons)
        assert other_calls != calls


def test_too_many_rejects_end_a_shard_early_and_name_the_first(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_ROWS", 100)
    monkeypatch.setattr(pipeline, "_FIRST_ROWS", 100)
    path = one_file(tmp_path, a=np.where(np.arange(5000) % 2, NAN, 1.0))
    done: list[int] = []
    with pytest.raises(RejectLimitError, match=r"at most 50 .*row 1 of .*row 9 of") as caught:
        score(
            settings,
            [path],
            tmp_path / "out",
            regression("a"),
            on_bad_row="reject",
            expect={"a": {"nullable": False}},
            max_rejected={"share": 0.5, "count": 50},
            on_progress=done.append,
        )
    assert caught.value.code == "max_rejected"
    assert sum(done) < 1000
    assert not [each for each in (tmp_path / "out").rglob("*") if each.is_file()]


@pytest.mark.parametrize(
    ("columns", "expect", "fault"),
    [
        ({"a": [1.0]}, {"z": {"nullable": False}}, "expect.z: expected an input of the model"),
        ({"a": [1.0]}, {"a": {"unknown_category": "fail"}}, "is for inputs with categories"),
        ({"a": [1.0], "_file": ["x"]}, {}, "is the name of a column that rejected rows get"),
    ],
)
def test_a_policy_that_fits_nothing_is_refused_before_a_row_is_read(
    tmp_path: Path, settings: Settings, columns: Any, expect: Any, fault: str
) -> None:
    path = one_file(tmp_path, **columns)
    carried = [name for name in columns if name != "a"]
    options = {"expect": expect, "on_bad_row": "reject", "columns": carried}
    with pytest.raises(ContractError, match=fault):
        score(settings, [path], tmp_path / "out", regression("a"), **options)


def test_files_whose_types_hold_no_common_value_cannot_be_rejected_from(
    tmp_path: Path, settings: Settings
) -> None:
    write(tmp_path / "in/a.parquet", pa.table({"a": [2**60]}))
    write(tmp_path / "in/b.parquet", pa.table({"a": [0.5]}))
    score(settings, [tmp_path / "in"], tmp_path / "out", regression("a"))
    with pytest.raises(ContractError, match="a: expected one type in all files"):
        score(settings, [tmp_path / "in"], tmp_path / "o", regression("a"), on_bad_row="reject")


def test_the_example_of_the_page_is_a_job() -> None:
    page = (Path(__file__).parents[2] / "docs/rejects.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    (entry,) = parse_document(text)
    spec = JobSpec.model_validate(entry.fields)
    assert spec.on_bad_row == "reject"
    assert spec.expect["income"].range == (0, None)
    assert spec.max_rejected.count == 1000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expect": {"a": {"range": [2, 1]}}}, "as \\[low, high\\]"),
        ({"expect": {"a": {"range": [None, None]}}}, "expected a bound"),
        ({"expect": {"a": {"nulable": False}}}, "Extra inputs"),
        ({"max_rejected": {"share": 2}}, "less than or equal to 1"),
        ({"on_bad_row": "ignore"}, "'fail' or 'reject'"),
    ],
)
def test_a_policy_that_says_nonsense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JobSpec.model_validate({"model": "m", "output": "o", **wrong})
