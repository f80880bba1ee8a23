"""Runs that ended badly go on with what is missing; one bad shard does not take others along."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from runs_world import RunsWorld

from augury import clock
from augury.errors import ConflictError
from augury.jobs.runs import delete_run
from augury.jobs.spec import Mode
from augury.jobs.states import RunState
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database) -> RunsWorld:
    return RunsWorld(database, max_attempts=2)


def failed(world: RunsWorld, *, rejected: int = 0) -> str:
    """A run of four shards: one finished, one failed for good, two never begun."""
    run = world.planned(4, max_concurrency=3)
    worker = world.worker()
    world.finish(world.claimed(worker), rejected=rejected)
    assert world.fail(world.claimed(worker), permanent=True) is RunState.FAILED
    assert world.states(run.id) == ["DONE", "FAILED", "CANCELED", "CANCELED"]
    return run.id


def test_a_failed_run_goes_on_with_what_is_missing(world: RunsWorld) -> None:
    run_id = failed(world, rejected=1)
    before = world.work(run_id)[1]
    run, ready = world.resume(run_id)
    assert (run.state, run.reason, run.time_finished) == (RunState.IN_PROGRESS, None, None)
    assert run.lifecycle_details == "Resumed: 3 of 4 shards are missing."
    assert (run.rows_done, run.shards_done, run.rows_rejected) == (10, 1, 1)
    assert ready == {"distributed": 3}
    assert world.states(run_id) == ["DONE", "READY", "READY", "READY"]
    assert world.work(run_id)[1] == before
    worker = world.worker()
    for _ in range(3):
        world.finish(world.claimed(worker))
    assert world.commit(run_id)
    told = [what for what in world.told(run_id) if not what.startswith("PROGRESSED")]
    assert told[2:] == ["FAILED", "RESUMED:1"]


def test_what_ends_again_is_told_again(world: RunsWorld) -> None:
    run_id = failed(world)
    world.resume(run_id)
    world.fail(world.claimed(world.worker()), permanent=True)
    world.resume(run_id)
    world.cancel(run_id)
    ends = [what for what in world.told(run_id) if not what.startswith("PROGRESSED")]
    assert ends[2:] == ["FAILED", "RESUMED:1", "FAILED:1", "RESUMED:2", "CANCELING:2", "CANCELED:2"]


def test_every_attempt_is_there_again(world: RunsWorld) -> None:
    run = world.planned(1)
    for _ in range(2):
        world.fail(world.claimed(world.worker()))
        world.ready_now()
    assert world.run(run.id).state is RunState.FAILED
    world.resume(run.id)
    assert world.fail(world.claimed(world.worker())) is RunState.IN_PROGRESS


def test_a_run_that_failed_while_it_was_planned_is_planned_again(world: RunsWorld) -> None:
    run = world.start(mode="batch")
    world.fail(world.claimed(world.worker()), permanent=True)
    found, ready = world.resume(run.id)
    assert (found.lifecycle_details, ready) == ("Resumed: planning.", {"batch": 1})
    world.plan(world.claimed(world.worker()), 2)
    assert world.states(run.id) == ["READY", "READY"]


def test_a_worker_that_has_not_noticed_goes_on(world: RunsWorld) -> None:
    run = world.planned(2)
    held = world.claimed(world.worker())
    world.fail(world.claimed(world.worker()), permanent=True)
    world.resume(run.id)
    world.finish(held)
    assert world.states(run.id) == ["DONE", "READY"]


def test_a_run_that_a_worker_still_holds_is_for_that_worker(world: RunsWorld) -> None:
    run = world.planned(2, mode=Mode.BATCH)
    holder = world.worker()
    held = world.claimed(holder)
    failure = sa.update(tables.runs).values(
        state="FAILED", reason="x", time_finished=clock.utc_now()
    )
    world.database.transact(lambda c: c.execute(failure))
    world.resume(run.id)
    assert world.claim(world.worker()) is None
    world.finish(held)
    assert world.claimed(holder).seq == 1


@pytest.mark.parametrize("state", ["ACCEPTED", "IN_PROGRESS", "SUCCEEDED", "DELETED"])
def test_what_has_not_ended_badly_cannot_be_resumed(world: RunsWorld, state: str) -> None:
    run_id = world.start().id if state == "ACCEPTED" else world.planned(1).id
    if state == "SUCCEEDED":
        change = sa.update(tables.runs).values(state=state)
        world.database.transact(lambda c: c.execute(change))
    if state == "DELETED":
        world.cancel(run_id)
        world.database.transact(lambda c: delete_run(world.database, c, run_id))
    with pytest.raises(ConflictError, match=f"nothing to resume: run {run_id} is {state}"):
        world.resume(run_id)


def test_a_run_whose_parts_are_gone_is_scored_from_the_beginning(world: RunsWorld) -> None:
    run_id = failed(world, rejected=1)

    def note(**values: object) -> None:
        change = sa.update(tables.runs).values(**values)
        world.database.transact(lambda c: c.execute(change))

    note(cleaning_at=clock.utc_now())
    with pytest.raises(ConflictError, match="being removed just now"):
        world.resume(run_id)
    note(cleaned_at=clock.utc_now())
    run, _ = world.resume(run_id)
    assert world.states(run_id) == ["READY", "READY", "READY", "WAITING"]
    assert (run.shards_done, run.rows_done, run.rows_rejected) == (0, 0, 0)
    assert (run.cleaning_at, run.cleaned_at) == (None, None)


# --- one shard ------------------------------------------------------------------------------------


def test_a_shard_that_kills_its_workers_is_set_aside_and_the_others_finish(
    world: RunsWorld,
) -> None:
    run = world.planned(3)
    for _ in range(2):
        item = world.claimed(world.worker())
        assert item.seq == 0
        world.progress(item, 5)
        world.expire(item.worker_id)
        world.first_again(item)
    found = world.run(run.id)
    assert (found.state, found.shards_isolated, found.rows_done) == (RunState.IN_PROGRESS, 1, 0)
    assert world.states(run.id) == ["FAILED", "READY", "READY"]
    worker = world.worker()
    world.finish(world.claimed(worker))
    assert world.run(run.id).state is RunState.IN_PROGRESS
    world.finish(world.claimed(worker))
    found = world.run(run.id)
    assert (found.state, found.reason) == (RunState.FAILED, "worker_lost")
    assert "1 of 3 shards were given up, the other 2 are finished: shard 0: worker_lost:" in (
        found.lifecycle_details
    )
    run, _ = world.resume(run.id)
    assert (run.shards_isolated, world.states(run.id)) == (0, ["READY", "DONE", "DONE"])
    world.finish(world.claimed(worker))
    assert world.commit(run.id)


def test_a_run_ends_with_the_last_shard_that_is_set_aside(world: RunsWorld) -> None:
    run = world.planned(2)
    world.finish(world.claimed(world.worker()))
    for _ in range(2):
        world.expire(world.claimed(world.worker()).worker_id)
        world.ready_now()
    assert world.run(run.id).state is RunState.FAILED


def test_planning_that_kills_its_workers_fails_the_run(world: RunsWorld) -> None:
    run = world.start()
    for _ in range(2):
        world.expire(world.claimed(world.worker()).worker_id)
        world.ready_now()
    assert (world.run(run.id).state, world.run(run.id).reason) == (RunState.FAILED, "worker_lost")
