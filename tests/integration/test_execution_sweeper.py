"""The sweeper: whoever is silent is lost, whatever waits is woken, what is left over goes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from runs_world import RunsWorld

from augury import clock
from augury.execution.celery_executor import CeleryExecutor
from augury.execution.local_executor import LocalExecutor
from augury.execution.sweeper import Sweeper
from augury.jobs import workers
from augury.jobs.runs import delete_run
from augury.jobs.spec import Mode
from augury.jobs.states import RunState
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


class SweptWorld(RunsWorld):
    """A ledger with a sweeper whose clock the test moves."""

    def __init__(self, database: Database, settings: Settings, out: Path) -> None:
        super().__init__(database, output=f"file://{out}")
        settings = settings.model_copy(update={"resume_days": 0})
        self.out = out
        self.executor = LocalExecutor(database, settings, num_workers=0)
        self.settings = settings
        self.sweeper = Sweeper(database, self.executor, settings)
        self.now_s = 1000.0

    def sweep(self, after_s: float = 1.0, sweeper: Sweeper | None = None) -> None:
        self.now_s += after_s
        (sweeper or self.sweeper).sweep()

    def beat(self, worker_id: str) -> None:
        self.database.transact(lambda c: workers.beat(c, worker_id))


@pytest.fixture
def world(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SweptWorld:
    made = SweptWorld(database, settings, tmp_path / "out")
    # the sweeper's own monotonic clock is what this is about
    monkeypatch.setattr(clock, "monotonic_s", lambda: made.now_s)
    return made


# --- leases ---------------------------------------------------------------------------------------


def test_silent_worker_loses_its_work_after_the_timeout(world: SweptWorld) -> None:
    run = world.planned(1)
    world.claimed(world.worker())
    for _ in range(8):
        world.sweep()
        assert world.states(run.id) == ["LEASED"]
    world.sweep()
    assert world.states(run.id) == ["READY"]
    assert world.executor.depth("distributed") >= 1


def test_beating_worker_keeps_its_work(world: SweptWorld) -> None:
    run = world.planned(1)
    item = world.claimed(world.worker())
    for _ in range(30):
        world.sweep()
        world.beat(item.worker_id)
    assert world.states(run.id) == ["LEASED"]


def test_sweeper_that_was_frozen_blames_nobody(world: SweptWorld) -> None:
    run = world.planned(1)
    world.claimed(world.worker())
    world.sweep()
    world.sweep(after_s=3600)
    world.sweep()
    assert world.states(run.id) == ["LEASED"]


def test_wall_clock_that_jumps_expires_nothing(world: SweptWorld) -> None:
    run = world.planned(1)
    world.claimed(world.worker())
    world.sweep()
    with clock.frozen(clock.utc_now() + timedelta(days=1)):
        world.sweep()
    assert world.states(run.id) == ["LEASED"]


def test_run_of_a_lost_holder_is_free(world: SweptWorld) -> None:
    run = world.planned(2, mode=Mode.BATCH)
    holder = world.worker()
    world.finish(world.claimed(holder))
    assert world.run(run.id).host == holder
    for _ in range(10):
        world.sweep()
    assert world.run(run.id).host is None
    assert world.executor.depth("batch") == 1


def test_two_sweepers_expire_once(world: SweptWorld) -> None:
    run = world.planned(1)
    item = world.claimed(world.worker())
    other = Sweeper(world.database, world.executor, world.settings)
    for _ in range(10):
        world.sweep(0.5)
        world.sweep(0.5, other)
    row = world.work(run.id)[1]
    assert (row.state, row.token, row.attempts) == ("READY", item.token, 1)


# --- wake-ups -------------------------------------------------------------------------------------


def test_as_many_wake_ups_as_there_is_ready_work(world: SweptWorld) -> None:
    world.planned(5, max_concurrency=3)
    world.start()
    world.sweep()
    depths = {queue: world.executor.depth(queue) for queue in ("mini_batch", "distributed")}
    assert depths == {"mini_batch": 1, "distributed": 3}
    world.sweep()
    assert world.executor.depth("distributed") == 3


def test_work_that_waits_for_its_time_wakes_nobody(world: SweptWorld) -> None:
    world.start()
    world.fail(world.claimed(world.worker()))
    world.sweep()
    assert world.executor.depth("mini_batch") == 0
    world.ready_now()
    world.sweep()
    assert world.executor.depth("mini_batch") == 1


def test_window_is_opened_if_nobody_else_did(world: SweptWorld) -> None:
    run = world.planned(4, max_concurrency=2)
    gone = sa.update(tables.work).where(tables.work.c.state == "READY")
    world.database.transact(lambda c: c.execute(gone.values(state="DONE")))
    world.sweep()
    assert world.states(run.id) == ["DONE", "DONE", "READY", "READY"]


# --- runs -----------------------------------------------------------------------------------------


def test_decided_commit_is_finished_with_exactly_those_bytes(world: SweptWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    assert world.commit(run.id)
    world.sweep()
    world.sweep()
    after = world.run(run.id)
    assert after.state is RunState.SUCCEEDED
    assert (world.out / run.id / "_manifest.json").read_text() == after.manifest == "{}"


def test_manifest_that_cannot_be_put_waits_and_says_so(world: SweptWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    world.commit(run.id)
    world.out.write_text("a file where a folder should be")
    for _ in range(3):
        world.sweep()
    waiting = world.run(run.id)
    assert waiting.state is RunState.IN_PROGRESS
    assert "manifest cannot be put yet" in waiting.lifecycle_details
    world.out.unlink()
    world.sweep()
    assert world.run(run.id).state is RunState.SUCCEEDED


def test_run_time_counts_from_the_first_worker(world: SweptWorld) -> None:
    run = world.start(maximum_runtime_s=10)
    for _ in range(20):
        world.sweep()
    assert world.run(run.id).state is RunState.ACCEPTED
    worker_id = world.worker()
    world.claimed(worker_id)
    for _ in range(9):
        world.beat(worker_id)
        world.sweep()
    assert world.run(run.id).state is RunState.IN_PROGRESS
    for _ in range(3):
        world.sweep()
    after = world.run(run.id)
    assert (after.state, after.reason) == (RunState.FAILED, "maximum_runtime")


# --- leftovers ------------------------------------------------------------------------------------


def _part(world: SweptWorld, run_id: str, name: str = "part-00000.parquet") -> Path:
    part = world.out / run_id / name
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"rows")
    return part


def test_parts_of_a_canceled_run_go(world: SweptWorld) -> None:
    run = world.planned(2)
    held = world.claimed(world.worker())
    part = _part(world, run.id)
    world.cancel(run.id)
    world.sweep()
    assert part.exists(), "a worker still holds a shard of it"
    world.release(held)
    world.sweep()
    assert not part.exists()


def test_parts_of_a_failed_run_are_kept_for_a_while_and_not_longer(world: SweptWorld) -> None:
    kept = Sweeper(world.database, world.executor, world.settings.model_copy(
        update={"resume_days": 3}
    ))  # fmt: skip
    run, deleted = world.planned(1), world.planned(1)
    parts = [_part(world, each.id) for each in (run, deleted)]
    for each in (run, deleted):
        world.cancel(each.id)
    world.database.transact(lambda c: delete_run(world.database, c, deleted.id))
    for days, exists in ((0.0, True), (2.9, True), (3.1, False)):
        with clock.frozen(clock.utc_now() + timedelta(days=days)):
            world.sweep(sweeper=kept)
            assert parts[0].exists() is exists
    assert not parts[1].exists(), "nobody can resume a deleted run"
    assert world.run(run.id).cleaned_at is not None
    assert world.states(run.id) == ["CANCELED"]


def test_shard_that_outlasts_its_deadline_is_tried_again_and_then_set_aside(
    world: SweptWorld,
) -> None:
    run = world.planned(2, maximum_shard_runtime_s=5)
    slow = world.claimed(world.worker())
    for _ in range(5):
        world.beat(slow.worker_id)
        world.sweep()
    assert world.states(run.id) == ["LEASED", "READY"]
    for attempt in range(4):
        for _ in range(7):
            world.beat(slow.worker_id)
            world.sweep()
        if attempt < 3:
            world.first_again(slow)
            slow = world.claimed(slow.worker_id)
            assert slow.seq == 0
    assert world.states(run.id) == ["FAILED", "READY"]
    world.finish(world.claimed(world.worker()))
    found = world.run(run.id)
    assert (found.state, found.reason) == (RunState.FAILED, "shard_deadline")
    assert "took longer than maximum_shard_runtime_s, 5 s" in found.lifecycle_details


def test_parts_of_a_committed_run_stay(world: SweptWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    world.commit(run.id)
    part = _part(world, run.id)
    for _ in range(3):
        world.sweep()
    assert world.run(run.id).state is RunState.SUCCEEDED
    assert part.exists()


def test_what_a_late_worker_wrote_goes_as_well(world: SweptWorld) -> None:
    run = world.planned(1)
    late = world.claimed(world.worker())
    world.cancel(run.id)
    world.expire(late.worker_id)
    with clock.frozen(clock.utc_now() + timedelta(minutes=5)):
        world.sweep()
        assert world.run(run.id).cleaned_at is not None
        part = _part(world, run.id)
        world.sweep()
        assert part.exists()
        assert not world.release(late)
        world.sweep()
    assert not part.exists()


def test_undisturbed_run_needs_no_cleaning(world: SweptWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    world.commit(run.id)
    world.sweep()
    world.sweep()
    assert world.run(run.id).cleaned_at is not None


def test_temporary_file_of_a_killed_worker_goes(world: SweptWorld) -> None:
    run = world.planned(1)
    world.expire(world.claimed(world.worker()).worker_id)
    world.finish(world.claimed(world.worker()))
    stage = _part(world, run.id, ".augury-stage_1.tmp")
    world.commit(run.id)
    world.sweep()
    world.sweep()
    assert world.run(run.id).cleaned_at is None
    assert stage.exists(), "somebody may still be writing it"
    with clock.frozen(clock.utc_now() + timedelta(minutes=5)):
        world.sweep()
    assert not stage.exists()
    assert world.run(run.id).cleaned_at is not None


def test_sweeper_outlives_its_services(world: SweptWorld) -> None:
    """A broker that is away keeps nothing else from being done."""
    broken = world.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    lonely = Sweeper(world.database, CeleryExecutor(broken), world.settings)
    run = world.planned(2)
    world.claimed(world.worker())
    sweeps = 0
    while world.states(run.id) != ["READY", "READY"]:
        assert sweeps < 5, "the lease does not expire"
        world.sweep(after_s=4.0, sweeper=lonely)
        sweeps += 1
