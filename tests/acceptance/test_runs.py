"""Runs in the hands of a user: cancel, limits, progress, the three modes, `augury score`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Augury
from scored import Scored, train_model, write_file

from augury import clock
from augury.storage import tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    """An installation whose model takes 10 s for `in/big.parquet`, 3 s for `in/middle.parquet`."""
    augury = Augury(tmp_path_factory.mktemp("runs"), workers=2)
    augury.up()
    world = Scored(augury, slow=True)
    world.apply(mode="distributed", target_shard_rows=10_000)
    write_file(world.folder / "in" / "big.parquet", 200_000, seed=5, row_group_rows=5_000)
    write_file(world.folder / "in" / "middle.parquet", 60_000, seed=7, row_group_rows=5_000)
    yield world
    try:
        world.until_routed()
        assert world.audit()["violations"] == []
    finally:
        assert augury.end() == []


def _row(world: Scored, run_id: str) -> Any:
    (row,) = world.rows(tables.runs, tables.runs.c.id == run_id)
    return row


def _start(world: Scored, *arguments: str, rows: str = "big.parquet") -> str:
    uri = (world.folder / "in" / rows).as_uri()
    run_id: str = world.augury.json("runs", "start", "score", "--input", uri, *arguments)["id"]
    return run_id


def _over(world: Scored, run_id: str, *, timeout_s: float = 120.0) -> Any:
    over = {"SUCCEEDED", "FAILED", "CANCELED"}
    world.augury.until(lambda: _row(world, run_id).state in over, "over", timeout_s=timeout_s)
    return _row(world, run_id)


@pytest.mark.parametrize("mode", ["mini_batch", "batch", "distributed"])
def test_cancel_stops_the_work_within_two_seconds(slow: Scored, mode: str) -> None:
    run_id = _start(slow, "--mode", mode)
    slow.augury.until(lambda: _row(slow, run_id).rows_done > 0, "rows are being scored")
    assert slow.augury.run("runs", "cancel", run_id).returncode == 0
    asked_s = clock.monotonic_s()
    leased = tables.work.c.state == "LEASED"
    slow.augury.until(
        lambda: not slow.rows(tables.work, tables.work.c.run_id == run_id, leased), "let go"
    )
    assert clock.monotonic_s() - asked_s < 2.0
    run = _over(slow, run_id)
    assert run.state == "CANCELED"
    assert not (slow.output / run_id / "_manifest.json").exists()
    again = slow.augury.run("runs", "cancel", run_id)
    assert again.returncode != 0
    assert "CANCELED" in again.stderr


def test_cancel_of_an_accepted_run(slow: Scored) -> None:
    """Nobody works on it yet: it is over at once."""
    busy = [_start(slow, "--mode", "batch") for _ in range(2)]
    for run_id in busy:
        slow.augury.until(lambda r=run_id: _row(slow, r).rows_done, "both workers are busy")
    waiting = _start(slow, "--mode", "batch")
    for run_id in (waiting, *busy):
        assert slow.augury.run("runs", "cancel", run_id).returncode == 0
        assert _over(slow, run_id).state == "CANCELED"
    assert _row(slow, waiting).time_started is None


def test_maximum_runtime(slow: Scored) -> None:
    run_id = _start(slow, "--maximum-runtime-s", "1")
    run = _over(slow, run_id)
    assert (run.state, run.reason) == ("FAILED", "maximum_runtime")
    assert "maximum runtime of 1 s" in run.lifecycle_details
    leased = tables.work.c.state == "LEASED"
    slow.augury.until(
        lambda: not slow.rows(tables.work, tables.work.c.run_id == run_id, leased),
        "let go",
        timeout_s=5,
    )


def test_three_modes_give_the_same_bytes_in_different_ways(slow: Scored) -> None:
    write_file(slow.folder / "in" / "small.parquet", 20_000, seed=6, row_group_rows=2_500)
    modes = ("mini_batch", "batch", "distributed")
    runs = {mode: _over(slow, _start(slow, "--mode", mode, rows="small.parquet")) for mode in modes}
    assert [run.state for run in runs.values()] == ["SUCCEEDED"] * 3
    assert len({slow.manifest(run)["content_digest"] for run in runs.values()}) == 1
    hands = {mode: {shard.worker_id for shard in slow.shards(run.id)} for mode, run in runs.items()}
    assert len(hands["mini_batch"]) == 1
    assert len(hands["batch"]) == 1
    plans = slow.rows(tables.work, tables.work.c.kind == "plan")
    planner = {item.run_id: item.worker_id for item in plans}
    assert hands["mini_batch"] == {planner[runs["mini_batch"].id]}


def test_distributed_run_uses_every_worker(slow: Scored) -> None:
    run = _over(slow, _start(slow, rows="middle.parquet"))
    assert run.state == "SUCCEEDED"
    assert len({shard.worker_id for shard in slow.shards(run.id)}) == 2


def test_a_rule_acts_on_progress(slow: Scored) -> None:
    """Half-way through a run, another one starts: progress is an event like any other."""
    write_file(slow.folder / "in" / "tiny.parquet", 100)
    tiny = (slow.folder / "in" / "tiny.parquet").as_uri()
    slow.apply_document(
        {
            "jobs": [
                {"name": "half", "model": "label@champion", "output": "./half/",
                 "input": [{"uri": tiny}]}
            ],
            "rules": [
                {
                    "name": "half_way",
                    "pattern": {
                        "type": ["augury.run.progressed"],
                        "data": {"percent": [50], "job": ["score"]},
                    },
                    "actions": [{"start_run": {"job": "half"}}],
                }
            ],
        },
        "half.yaml",
    )  # fmt: skip
    before = len(slow.rows(tables.runs, tables.runs.c.job_name == "half"))
    big = _start(slow, rows="middle.parquet")
    half: Callable[[], list[Any]] = lambda: list(  # noqa: E731
        slow.rows(tables.runs, tables.runs.c.job_name == "half")
    )
    slow.augury.until(lambda: len(half()) > before, "the rule acted", timeout_s=60)
    assert _row(slow, big).state in {"IN_PROGRESS", "SUCCEEDED"}
    _over(slow, big)
    assert slow.augury.run("delete", "rule", "half_way").returncode == 0
    assert _over(slow, half()[-1].id).state == "SUCCEEDED"


def test_watch_follows_to_the_end(slow: Scored) -> None:
    run_id = _start(slow, rows="middle.parquet")
    done = slow.augury.run("runs", "watch", run_id, timeout_s=120)
    assert done.returncode == 0, done.stderr
    assert "SUCCEEDED" in done.stdout + done.stderr
    logs = slow.augury.run("runs", "logs", run_id)
    assert "Scoring 60000 rows" in logs.stdout


def test_score_needs_no_service(slow: Scored) -> None:
    train_model(slow.folder / "quick")
    command = ["score", "--model", "quick/model.ubj", "--input", "in/small.parquet"]
    write_file(slow.folder / "in" / "small.parquet", 20_000, seed=6, row_group_rows=2_500)
    done = slow.augury.run(*command, "--output", "scored/", "--json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert (said["rows_in"], said["rows_predicted"], said["rows_rejected"]) == (20_000, 20_000, 0)
    assert said["rows_per_second"] > 0
    assert said["peak_rss_bytes"] > 10_000_000
    assert said["backend"].startswith(("augury forest", "xgboost"))
