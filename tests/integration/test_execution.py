"""Runs carried out by real workers (threads of this process): modes, failures, cancel, progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import xgboost
from execution_world import ExecutionWorld, train

from augury import clock
from augury.jobs import logs
from augury.jobs.resume import resume
from augury.jobs.runs import Run
from augury.jobs.states import RunState
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("model") / "quick.ubj")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("model") / "slow.ubj", num_trees=300, depth=7)


@pytest.fixture
def world(database: Database, live_settings: Settings, model: Path) -> Iterator[ExecutionWorld]:
    made = ExecutionWorld(database, live_settings, model)
    yield made
    made.close()


@pytest.fixture
def slow_world(
    database: Database, live_settings: Settings, slow_model: Path
) -> Iterator[ExecutionWorld]:
    made = ExecutionWorld(database, live_settings, slow_model)
    yield made
    made.close()


def told(world: ExecutionWorld, run: Run) -> list[str]:
    rows = world.rows(tables.outbox, tables.outbox.c.event_id.startswith(f"{run.id}:"))
    return [row.event_id.removeprefix(f"{run.id}:") for row in rows]


def shard_workers(world: ExecutionWorld, run: Run) -> list[str]:
    return [row.worker_id for row in world.work(run) if row.kind == "shard"]


# --- the whole way --------------------------------------------------------------------------------


def test_predictions_are_those_of_the_library(world: ExecutionWorld, model: Path) -> None:
    world.local_workers()
    run = world.succeeded(world.start(world.drop("a.parquet", 1000)))
    found = world.predictions(run)
    assert found.column_names == ["id", "prediction"]
    ids = np.arange(1000)
    assert found["id"].to_numpy().tolist() == ids.tolist()
    features = np.stack([np.sin(ids * 0.37), ids % 11], axis=1).astype(np.float32)
    booster = xgboost.Booster(model_file=model)
    expected = booster.inplace_predict(features)
    assert np.array_equal(found["prediction"].to_numpy(), expected)


def test_run_tells_its_whole_story(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.succeeded(world.start(world.drop("a.parquet", 1000)))
    assert run.lifecycle_details == "Run succeeded: 1000 rows predicted."
    assert (run.rows_in, run.rows_predicted, run.rows_rejected, run.rows_done) == (
        1000, 1000, 0, 1000,
    )  # fmt: skip
    assert run.time_started is not None
    assert run.time_finished is not None
    assert run.time_accepted <= run.time_started <= run.time_finished
    assert told(world, run) == [
        "ACCEPTED", "IN_PROGRESS", "PROGRESSED:25", "PROGRESSED:50", "PROGRESSED:75", "SUCCEEDED",
    ]  # fmt: skip
    assert world.output(run).keys() == {"_manifest.json", "part-00000.parquet"}
    assert run.manifest is not None
    assert world.output(run)["_manifest.json"] == run.manifest.replace(run.id, "RUN").encode()
    with world.database.read() as connection:
        lines = [line.message for line in logs.read(connection, run.id)]
    assert lines.pop(2).startswith("Backend: ")  # whichever this installation has
    assert lines == [
        "Run accepted.",
        "Planning.",
        "Scoring 1000 rows in 1 shard. Mode mini_batch.",
        "Run succeeded: 1000 rows predicted.",
    ]


def test_events_reach_the_bus_without_a_relay(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.succeeded(world.start(world.drop("a.parquet", 10)))
    finished = tables.outbox.c.event_id == f"{run.id}:SUCCEEDED"

    def is_sent() -> bool:
        return all(row.sent_at is not None for row in world.rows(tables.outbox, finished))

    world.until(is_sent, "the worker sends the run's events", timeout_s=10)


def test_empty_file_succeeds_with_an_empty_part(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.succeeded(world.start(world.drop("empty.parquet", 0)))
    assert run.lifecycle_details == "Run succeeded: 0 rows predicted."
    assert world.predictions(run).num_rows == 0
    assert "PROGRESSED:25" not in told(world, run)


# --- the three modes ------------------------------------------------------------------------------


def test_mini_batch_is_one_wake_up_of_one_worker(world: ExecutionWorld) -> None:
    """Planned, scored and committed by whoever took the wake-up; no shard was up for grabs."""
    world.local_workers(3)
    path = world.drop("a.parquet", 4000, row_group=1000)
    woken = _count_wake_ups(world)
    run = world.start(path, mode="mini_batch")
    assert world.succeeded(run).mode == "mini_batch"
    assert len(set(shard_workers(world, run)) | {world.work(run)[0].worker_id}) == 1
    assert woken == ["mini_batch"]
    assert {row.queue for row in world.work(run)} == {"mini_batch"}


def test_batch_stays_on_one_worker_though_others_are_idle(world: ExecutionWorld) -> None:
    world.local_workers(3)
    world.job("fine", target_shard_rows=1000)
    path = world.drop("a.parquet", 8000, row_group=1000)
    run = world.succeeded(world.start(path, job="fine", mode="batch"))
    assert (run.mode, run.shards_total) == ("batch", 8)
    assert len(set(shard_workers(world, run))) == 1
    assert run.host is None


def test_distributed_shards_are_shared_out(slow_world: ExecutionWorld) -> None:
    slow_world.local_workers(2)
    slow_world.job("fine", target_shard_rows=20_000)
    path = slow_world.drop("a.parquet", 200_000, row_group=20_000)
    run = slow_world.succeeded(slow_world.start(path, job="fine", mode="distributed"))
    assert run.shards_total == 10
    assert len(set(shard_workers(slow_world, run))) == 2
    assert slow_world.predictions(run)["id"].to_numpy().tolist() == list(range(200_000))


def test_every_mode_and_number_of_workers_gives_the_same_bytes(world: ExecutionWorld) -> None:
    world.local_workers(3)
    world.job("fine", target_shard_rows=1000)
    path = world.drop("a.parquet", 5000, row_group=1000)
    runs = [
        world.start(path, job="fine", mode=mode) for mode in ("mini_batch", "batch", "distributed")
    ]
    parts = []
    for run in runs:
        world.succeeded(run)
        output = world.output(run)
        output.pop("_manifest.json")  # it names the run's mode in its pins
        parts.append(output)
    assert len(parts[0]) == 5
    assert parts[0] == parts[1] == parts[2]


def test_auto_is_decided_by_size(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.start(world.drop("a.parquet", 1000))
    assert run.mode is None
    assert world.succeeded(run).mode == "mini_batch"


def test_mini_batches_go_between_the_shards_of_a_batch(slow_world: ExecutionWorld) -> None:
    slow_world.local_workers(1)
    slow_world.job("fine", target_shard_rows=30_000)
    big = slow_world.start(
        slow_world.drop("big.parquet", 300_000, row_group=30_000), job="fine", mode="batch"
    )
    slow_world.until(lambda: slow_world.run(big).shards_done > 0, "batch has begun")
    small = slow_world.succeeded(slow_world.start(slow_world.drop("small.parquet", 10)))
    assert not slow_world.run(big).is_finished
    slow_world.succeeded(big)
    assert small.mode == "mini_batch"


def test_window_bounds_what_is_ready(world: ExecutionWorld) -> None:
    world.job("narrow", target_shard_rows=100, max_concurrency=2)
    path = world.drop("a.parquet", 1000, row_group=100)
    run = world.start(path, job="narrow", mode="distributed", wake=False)
    world.local_workers(3)
    world.executor.wake("distributed", 3)
    widest = 0

    def look() -> bool:
        nonlocal widest
        widest = max(widest, len(world.work(run, "READY", "LEASED")))
        return world.run(run).is_finished

    world.until(look, "run has ended")
    assert world.run(run).state is RunState.SUCCEEDED
    assert widest <= 2


# --- what goes wrong ------------------------------------------------------------------------------


def test_unknown_model_fails_naming_what_there_is(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.finished(world.start(world.drop("a.parquet", 10), model="n@champion"))
    assert (run.state, run.reason) == (RunState.FAILED, "not_found")
    assert "'n'" in run.lifecycle_details
    assert "m" in run.lifecycle_details.rpartition(":")[2]
    assert len(world.work(run)) == 1


def test_missing_input_fails_at_once(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.finished(world.start(world.folder / "in" / "nothing.parquet"))
    assert (run.state, run.reason) == (RunState.FAILED, "not_found")
    assert "nothing.parquet" in run.lifecycle_details


def test_replaced_input_fails_naming_both_contents(world: ExecutionWorld) -> None:
    path = world.drop("a.parquet", 10)
    world.local_workers()
    pinned = [{"uri": f"file://{path}", "tag": "1-2-3-4"}]
    run = world.finished(world.start(path, input=pinned))
    assert (run.state, run.reason) == (RunState.FAILED, "identity")
    assert "1-2-3-4" in run.lifecycle_details


def test_corrupt_input_fails_at_once(world: ExecutionWorld) -> None:
    path = world.drop("a.parquet", 10)
    path.write_bytes(b"PAR1 nothing PAR1")
    world.local_workers()
    run = world.finished(world.start(path))
    assert (run.state, run.reason) == (RunState.FAILED, "corrupt")
    assert told(world, run)[-1] == "FAILED"


def test_columns_that_do_not_fit_are_all_named(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.finished(world.start(world.drop("a.parquet", 10), columns=["id", "x", "y"]))
    assert (run.state, run.reason) == (RunState.FAILED, "contract")
    assert "x" in run.lifecycle_details
    assert "y" in run.lifecycle_details


def test_unreachable_store_is_tried_again_and_again(world: ExecutionWorld) -> None:
    nobody = world.settings.model_copy(
        update={"s3_endpoint": "http://127.0.0.1:1", "s3_access_key_id": "k"}
    )
    world.settings = nobody
    world.job("far", max_attempts=2, output="s3://bucket/out/")
    world.local_workers()
    run = world.start(world.drop("a.parquet", 10), job="far", input=[{"uri": "s3://b/a.parquet"}])
    sweeper = world.sweeper()
    found = world.finished(run, meanwhile=sweeper.sweep, timeout_s=90)
    assert (found.state, found.reason) == (RunState.FAILED, "unavailable")
    assert "(attempt 2, the last)" in found.lifecycle_details
    (item,) = world.work(run)
    assert item.attempts == 2


def test_foreign_content_in_the_output_is_a_conflict(world: ExecutionWorld) -> None:
    run = world.start(world.drop("a.parquet", 10), wake=False)
    folder = Path(run.output_uri.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"mine")
    world.local_workers()
    world.executor.wake("mini_batch")
    found = world.finished(run)
    assert (found.state, found.reason) == (RunState.FAILED, "conflict")
    assert (folder / "part-00000.parquet").read_bytes() == b"mine"


# --- cancel, maximum run time, progress -----------------------------------------------------------


def test_cancel_stops_a_shard_within_two_seconds(slow_world: ExecutionWorld) -> None:
    slow_world.local_workers()
    run = slow_world.start(slow_world.drop("a.parquet", 2_000_000), mode="distributed")
    slow_world.until(lambda: slow_world.run(run).rows_done > 0, "progress is reported")
    asked_s = clock.monotonic_s()
    assert slow_world.cancel(run).state is RunState.CANCELING
    found = slow_world.finished(run)
    assert clock.monotonic_s() - asked_s < 2.0
    assert (found.state, found.manifest) == (RunState.CANCELED, None)
    assert slow_world.output(run) == {}
    assert told(slow_world, run)[-2:] == ["CANCELING", "CANCELED"]


def test_progress_grows_while_a_shard_is_scored(slow_world: ExecutionWorld) -> None:
    slow_world.local_workers()
    run = slow_world.start(slow_world.drop("a.parquet", 1_500_000), mode="distributed")
    seen: set[int] = set()

    def look() -> bool:
        seen.add(slow_world.run(run).rows_done)
        return slow_world.run(run).is_finished

    slow_world.until(look, "run has ended", timeout_s=90)
    between = sorted(seen - {0, 1_500_000})
    assert between, "no progress was seen"
    assert slow_world.run(run).rows_done == 1_500_000
    progressed = [what for what in told(slow_world, run) if what.startswith("PROGRESSED")]
    assert progressed == ["PROGRESSED:25", "PROGRESSED:50", "PROGRESSED:75"]


def test_run_over_its_maximum_run_time_is_failed(slow_world: ExecutionWorld) -> None:
    slow_world.local_workers()
    run = slow_world.start(
        slow_world.drop("a.parquet", 3_000_000), mode="distributed", maximum_runtime_s=1.0
    )
    sweeper = slow_world.sweeper()
    found = slow_world.finished(run, meanwhile=sweeper.sweep)
    assert (found.state, found.reason) == (RunState.FAILED, "maximum_runtime")
    assert found.lifecycle_details == "Run failed: maximum runtime of 1 s exceeded."
    slow_world.until(lambda: not slow_world.work(run, "LEASED"), "the worker lets go")
    slow_world.until(lambda: slow_world.output(run) == {}, "nothing is left", timeout_s=5)


def test_committed_run_is_not_failed_for_its_run_time(world: ExecutionWorld) -> None:
    world.local_workers()
    run = world.succeeded(world.start(world.drop("a.parquet", 10), maximum_runtime_s=0.001))
    sweeper = world.sweeper()
    sweeper.sweep()
    sweeper.sweep()
    assert world.run(run).state is RunState.SUCCEEDED


def test_stopping_worker_gives_back_what_it_cannot_finish(slow_world: ExecutionWorld) -> None:
    slow_world.settings = slow_world.settings.model_copy(update={"drain_s": 0.0})
    leaving = slow_world.local_workers()
    run = slow_world.start(slow_world.drop("a.parquet", 2_000_000), mode="distributed")
    slow_world.until(lambda: slow_world.work(run, "LEASED")[-1:], "shard is in hand")
    slow_world.until(lambda: slow_world.run(run).shards_total, "run is planned")
    slow_world.until(lambda: slow_world.work(run, "LEASED"), "shard is in hand")
    leaving.close()
    assert slow_world.work(run, "LEASED") == []
    (shard,) = slow_world.work(run, "READY")
    assert (shard.attempts, shard.token) == (0, 1)
    assert slow_world.run(run).rows_done == 0
    workers = slow_world.rows(tables.workers, tables.workers.c.stopped_at.is_(None))
    assert workers == []


def _count_wake_ups(world: ExecutionWorld) -> list[str]:
    """Every queue woken from now on."""
    woken: list[str] = []
    wake = world.executor.wake

    def counted(queue: str, count: int = 1) -> None:
        woken.extend([str(queue)] * count)
        wake(queue, count)

    world.executor.wake = counted  # type: ignore[method-assign]
    return woken


def test_claim_whose_answer_was_lost_is_found_again(world: ExecutionWorld) -> None:
    """The commit of a claim went through and the worker never learned of it."""
    local = world.local_workers()
    (worker,) = local.workers
    run = world.start(world.drop("a.parquet", 10), wake=False)
    leased: dict[str, Any] = {"state": "LEASED", "worker_id": worker.id, "token": 1, "attempts": 1}
    stolen = sa.update(tables.work).where(tables.work.c.run_id == run.id).values(**leased)
    world.database.transact(lambda c: c.execute(stolen))
    world.executor.wake("mini_batch")
    world.succeeded(run)


def test_resumed_run_keeps_its_parts_and_gives_the_same_output(world: ExecutionWorld) -> None:
    world.local_workers()
    path = world.drop("a.parquet", 4000, row_group=1000)
    options = {"mode": "distributed", "job": "shards"}
    world.job("shards", target_shard_rows=1000)
    undisturbed = world.succeeded(world.start(path, **options))
    run = world.start(path, wake=False, **options)
    folder = Path(run.output_uri.removeprefix("file://"))
    folder.mkdir(parents=True)
    obstacle = folder / "part-00002.parquet"
    obstacle.write_bytes(b"somebody else's")
    world.executor.wake("distributed")
    failed = world.finished(run)
    assert (failed.state, failed.reason) == (RunState.FAILED, "conflict")
    obstacle.unlink()
    kept = {part: part.stat().st_mtime_ns for part in folder.glob("part-*")}
    assert kept
    _, ready = world.database.transact(lambda c: resume(world.database, c, run.id))
    world.executor.wake("distributed", sum(ready.values()))
    found = world.succeeded(run)
    assert world.output(run) == world.output(undisturbed)
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert (found.num_resumes, found.rows_done, found.rows_predicted) == (1, 4000, 4000)
