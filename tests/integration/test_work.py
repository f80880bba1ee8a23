"""Work: claimed under a token, counted once, given back, expired; the three modes' claims."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from runs_world import RunsWorld

from augury import clock
from augury.errors import LostLeaseError
from augury.jobs import logs, overdue, work, workers
from augury.jobs.runs import Run
from augury.jobs.spec import Mode
from augury.jobs.states import Priority, RunState
from augury.jobs.work import WorkItem
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database) -> RunsWorld:
    return RunsWorld(database)


# --- claimed --------------------------------------------------------------------------------------


def test_first_claim_starts_the_run(world: RunsWorld) -> None:
    run = world.start()
    item = world.claimed(world.worker())
    assert (item.kind, item.token, item.attempts, item.run_id) == ("plan", 1, 1, run.id)
    started = world.run(run.id)
    assert (started.state, started.lifecycle_details) == (RunState.IN_PROGRESS, "Planning.")
    assert started.time_started is not None
    assert world.told(run.id) == ["ACCEPTED", "IN_PROGRESS"]


def test_nothing_is_claimed_twice_by_many_at_once(world: RunsWorld) -> None:
    run = world.planned(12)
    claimed: list[WorkItem] = []
    together = threading.Barrier(6)

    def work_on() -> None:
        worker_id = world.worker()
        together.wait()
        while (item := world.claim(worker_id)) is not None:
            claimed.append(item)
            world.finish(item)

    threads = [threading.Thread(target=work_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(item.seq for item in claimed) == Counter(range(12))
    after = world.run(run.id)
    assert (after.shards_done, after.rows_done) == (12, 120)


def test_oldest_comes_first_and_only_from_the_queues_asked_for(world: RunsWorld) -> None:
    first, second = world.start(mode="batch"), world.start(mode="distributed")
    third = world.start(mode="batch")
    worker_id = world.worker()
    assert world.claimed(worker_id, "distributed").run_id == second.id
    assert world.claimed(worker_id, "batch").run_id == first.id
    assert world.claimed(worker_id, "batch").run_id == third.id
    assert world.claim(worker_id) is None


def test_work_that_waits_for_its_time_is_not_claimed(world: RunsWorld) -> None:
    world.start()
    item = world.claimed(world.worker())
    world.fail(item)
    assert world.claim(world.worker()) is None
    world.ready_now()
    again = world.claimed(world.worker())
    assert (again.id, again.token, again.attempts) == (item.id, 2, 2)


# --- planned --------------------------------------------------------------------------------------


def test_plan_is_stored_with_its_shards_once(world: RunsWorld) -> None:
    run = world.start(mode="distributed")
    item = world.claimed(world.worker())
    assert world.plan(item, 3).opened == 3
    with pytest.raises(LostLeaseError):
        world.plan(item, 5)
    after = world.run(run.id)
    assert (after.shards_total, after.rows_in, after.mode) == (3, 30, "distributed")
    assert after.lifecycle_details == "Scoring 30 rows in 3 shards."
    assert [row.state for row in world.work(run.id)] == ["DONE", "READY", "READY", "READY"]


def test_window_lets_in_as_many_shards_as_allowed(world: RunsWorld) -> None:
    run = world.planned(5, max_concurrency=2)
    assert world.states(run.id) == ["READY", "READY", "WAITING", "WAITING", "WAITING"]
    first, second = world.claimed(world.worker()), world.claimed(world.worker())
    assert world.claim(world.worker()) is None
    assert world.finish(first).opened == {"distributed": 1}
    assert world.states(run.id) == ["DONE", "LEASED", "READY", "WAITING", "WAITING"]
    world.fail(second)
    assert world.states(run.id) == ["DONE", "READY", "READY", "WAITING", "WAITING"]


def test_plan_of_a_run_that_was_canceled_stores_nothing(world: RunsWorld) -> None:
    run = world.start()
    item = world.claimed(world.worker())
    world.cancel(run.id)
    with pytest.raises(LostLeaseError, match="CANCELING"):
        world.plan(item)
    assert len(world.work(run.id)) == 1


# --- the modes ------------------------------------------------------------------------------------


def test_mini_batch_stays_with_its_planner(world: RunsWorld) -> None:
    run = world.start(mode="mini_batch")
    planner = world.worker()
    stored = world.plan(world.claimed(planner), 2, mode=Mode.MINI_BATCH)
    assert stored.opened == 0
    assert stored.shard is not None
    assert (stored.shard.seq, stored.shard.token, stored.shard.worker_id) == (0, 1, planner)
    assert world.run(run.id).host == planner
    assert world.claim(world.worker()) is None
    world.finish(stored.shard)
    second = world.claimed(planner)
    assert second.seq == 1
    assert world.finish(second).is_last
    assert world.run(run.id).host is None


def test_batch_belongs_to_whoever_takes_the_first_shard(world: RunsWorld) -> None:
    run = world.planned(3, mode=Mode.BATCH)
    mine, other = world.worker(), world.worker()
    first = world.claimed(mine)
    assert world.run(run.id).host == mine
    assert world.claim(other) is None
    world.finish(first)
    assert world.claim(other) is None
    assert world.claimed(mine).seq == 1


def test_batch_whose_holder_dies_is_taken_over(world: RunsWorld) -> None:
    run = world.planned(3, mode=Mode.BATCH)
    mine, other = world.worker(), world.worker()
    world.finish(world.claimed(mine))
    lost = world.claimed(mine)
    world.expire(mine)
    assert {world.claimed(other).seq, world.claimed(other).seq} == {1, 2}
    assert world.run(run.id).host == other
    with pytest.raises(LostLeaseError):
        world.finish(lost)


def test_batch_that_its_holder_lets_go_is_free(world: RunsWorld) -> None:
    run = world.planned(2, mode=Mode.BATCH)
    mine, other = world.worker(), world.worker()
    world.finish(world.claimed(mine))
    world.database.transact(lambda c: work.let_go(world.database, c, other, run.id))
    assert world.claim(other) is None
    world.database.transact(lambda c: work.let_go(world.database, c, mine, run.id))
    assert world.claimed(other).seq == 1


def test_distributed_shards_go_anywhere(world: RunsWorld) -> None:
    run = world.planned(4)
    claimed = [world.claimed(world.worker()) for _ in range(4)]
    assert len({item.worker_id for item in claimed}) == 4
    assert world.run(run.id).host is None


# --- the fence ------------------------------------------------------------------------------------


def test_late_worker_changes_nothing(world: RunsWorld) -> None:
    run = world.planned(1)
    late = world.claimed(world.worker())
    world.expire(late.worker_id)
    now = world.claimed(world.worker())
    assert now.token == late.token + 1
    before = world.work(run.id), world.run(run.id)
    for report in (world.finish, world.fail, lambda item: world.progress(item, 5)):
        with pytest.raises(LostLeaseError):
            report(late)
    assert not world.release(late)
    assert (world.work(run.id), world.run(run.id)) == before
    assert world.finish(now).is_last
    with pytest.raises(LostLeaseError):
        world.finish(late)
    assert world.work(run.id)[1].result == {"by": now.worker_id}


def test_expired_item_is_lost_before_anybody_else_takes_it(world: RunsWorld) -> None:
    world.planned(1)
    late = world.claimed(world.worker())
    world.expire(late.worker_id)
    with pytest.raises(LostLeaseError):
        world.finish(late)


def test_finished_shard_finished_again_changes_nothing(world: RunsWorld) -> None:
    run = world.planned(2)
    item = world.claimed(world.worker())
    world.finish(item)
    with pytest.raises(LostLeaseError):
        world.finish(item)
    after = world.run(run.id)
    assert (after.shards_done, after.rows_done) == (1, 10)


def test_holder_is_told_whether_to_go_on(world: RunsWorld) -> None:
    run = world.planned(2)
    item, other = world.claimed(world.worker()), world.claimed(world.worker())
    with world.database.read() as connection:
        work.check_held(connection, item)
    world.expire(other.worker_id)
    world.cancel(run.id)
    with world.database.read() as connection:
        with pytest.raises(LostLeaseError, match="the run is CANCELING"):
            work.check_held(connection, item)
        with pytest.raises(LostLeaseError, match="the lease expired"):
            work.check_held(connection, other)


# --- expired and given back -----------------------------------------------------------------------


def test_worker_that_beats_in_between_keeps_its_work(world: RunsWorld) -> None:
    world.planned(1)
    item = world.claimed(world.worker())
    (seen,) = world.rows(tables.workers, tables.workers.c.id == item.worker_id)
    world.database.transact(lambda c: workers.beat(c, item.worker_id))
    from augury.jobs import reports

    ready = world.database.transact(
        lambda c: reports.expire(world.database, c, item.worker_id, seen.heartbeat)
    )
    assert not ready
    assert world.finish(item).is_last


def test_lost_worker_is_marked_and_one_that_beats_again_lives(world: RunsWorld) -> None:
    worker_id = world.worker()
    world.expire(worker_id)
    with world.database.read() as connection:
        assert workers.list_workers(connection) == []
        (record,) = workers.list_workers(connection, stopped=True)
        assert (record.id, record.queues) == (worker_id, ("q",))
    world.database.transact(lambda c: workers.beat(c, worker_id))
    with world.database.read() as connection:
        assert [record.id for record in workers.list_workers(connection)] == [worker_id]


def test_shard_that_kills_its_workers_is_set_aside(world: RunsWorld) -> None:
    run = world.planned(2)
    for attempt in range(1, 5):
        item = world.claimed(world.worker())
        assert (item.seq, item.attempts) == (0, attempt)
        ready = world.expire(item.worker_id)
        assert sum(ready.values()) == (1 if attempt < 4 else 0)
        with world.database.read() as connection:
            level = logs.read(connection, run.id)[-1].level
        assert level == ("warning" if attempt < 4 else "error")
        if attempt < 4:
            _first_again(world, item)
    after = world.run(run.id)
    assert (after.state, after.shards_isolated) == (RunState.IN_PROGRESS, 1)
    assert world.states(run.id) == ["FAILED", "READY"]


def _first_again(world: RunsWorld, item: WorkItem) -> None:
    early = sa.update(tables.work).where(tables.work.c.id == item.id)
    world.database.transact(
        lambda c: c.execute(early.values(ready_at=clock.parse("2026-01-01T00:00:00Z")))
    )


def test_given_back_attempt_does_not_count(world: RunsWorld) -> None:
    world.planned(1)
    for token in range(1, 8):
        item = world.claimed(world.worker())
        assert (item.token, item.attempts) == (token, 1)
        assert world.release(item)


# --- failed ---------------------------------------------------------------------------------------


def test_failed_attempt_is_tried_again_later_and_later(world: RunsWorld) -> None:
    run = world.planned(1)
    pauses = []
    for _ in range(3):
        before = clock.utc_now()
        assert world.fail(world.claimed(world.worker())) is RunState.IN_PROGRESS
        row = world.work(run.id)[1]
        assert (row.state, row.error) == ("READY", "unavailable: no store")
        pauses.append((row.ready_at - before).total_seconds())
        world.ready_now()
    assert pauses[0] < pauses[1] < pauses[2] < 5
    assert world.fail(world.claimed(world.worker())) is RunState.FAILED
    after = world.run(run.id)
    assert (after.reason, world.states(run.id)) == ("unavailable", ["FAILED"])
    assert after.lifecycle_details == "Run failed: shard 0 (attempt 4, the last): no store"


def test_permanent_failure_ends_the_run_at_once(world: RunsWorld) -> None:
    run = world.planned(3)
    held = world.claimed(world.worker())
    assert world.fail(world.claimed(world.worker()), permanent=True) is RunState.FAILED
    assert world.states(run.id) == ["LEASED", "FAILED", "CANCELED"]
    assert world.release(held)
    assert world.states(run.id) == ["CANCELED", "FAILED", "CANCELED"]


# --- progress -------------------------------------------------------------------------------------


def test_each_quarter_is_told_once(world: RunsWorld) -> None:
    run = world.planned(4)
    for _ in range(4):
        world.finish(world.claimed(world.worker()))
    told = [what for what in world.told(run.id) if what.startswith("PROGRESSED")]
    assert told == ["PROGRESSED:25", "PROGRESSED:50", "PROGRESSED:75"]
    data = world.event(run.id, "PROGRESSED:50")["data"]
    assert (data["percent"], data["rows_done"], data["rows_in"]) == (50, 20, 40)


def test_progress_within_a_shard_counts_and_is_taken_back_with_it(world: RunsWorld) -> None:
    run = world.planned(2)
    item = world.claimed(world.worker())
    world.progress(item, 4)
    world.progress(item, 6)
    assert world.run(run.id).rows_done == 6
    world.expire(item.worker_id)
    assert world.run(run.id).rows_done == 0
    again = world.claimed(world.worker())
    world.progress(again, 7)
    world.finish(again)
    assert world.run(run.id).rows_done == 10
    world.finish(world.claimed(world.worker()))
    assert world.run(run.id).rows_done == 20
    told = [what for what in world.told(run.id) if what.startswith("PROGRESSED")]
    assert told == ["PROGRESSED:25", "PROGRESSED:50", "PROGRESSED:75"]


def test_run_without_rows_makes_no_progress_and_ends(world: RunsWorld) -> None:
    run = world.start(mode="distributed")
    world.plan(world.claimed(world.worker()), 1, rows=0)
    assert world.finish(world.claimed(world.worker()), rows=0).is_last
    assert [what for what in world.told(run.id) if "PROGRESSED" in what] == []
    assert world.commit(run.id)


# --- committed ------------------------------------------------------------------------------------


def test_commit_needs_every_shard_and_happens_once(world: RunsWorld) -> None:
    run = world.planned(2)
    assert not world.commit(run.id)
    world.finish(world.claimed(world.worker()))
    assert not world.commit(run.id)
    world.finish(world.claimed(world.worker()))
    assert world.commit(run.id)
    committed_at = world.run(run.id).time_committed
    assert not world.commit(run.id)
    assert world.run(run.id).time_committed == committed_at


# --- what the sweeper looks for -------------------------------------------------------------------


def test_ready_work_is_counted_by_queue_without_what_is_held(world: RunsWorld) -> None:
    world.planned(3)
    world.planned(2, mode=Mode.BATCH)
    world.start()
    with world.database.read() as connection:
        assert overdue.ready_work(connection, limit=100) == {
            "mini_batch": 1,
            "batch": 2,
            "distributed": 3,
        }
        assert overdue.ready_work(connection, limit=2)["distributed"] == 2
    world.claimed(world.worker(), "batch")
    with world.database.read() as connection:
        assert "batch" not in overdue.ready_work(connection, limit=100)


def test_runs_that_need_no_worker_are_found(world: RunsWorld) -> None:
    done, busy = world.planned(1), world.planned(2)
    world.finish(world.claimed(world.worker()))
    with world.database.read() as connection:
        assert overdue.stuck_runs(connection) == [done.id]
    held = world.claimed(world.worker())
    world.cancel(busy.id)
    with world.database.read() as connection:
        assert overdue.stuck_runs(connection) == [done.id]
    world.release(held)
    assert world.run(busy.id).state is RunState.CANCELED


def test_narrow_window_is_found(world: RunsWorld) -> None:
    run = world.planned(4, max_concurrency=3)
    with world.database.read() as connection:
        assert overdue.narrow_windows(connection) == {}
    gone = sa.update(tables.work).where(tables.work.c.state == "READY", tables.work.c.seq == 0)
    world.database.transact(lambda c: c.execute(gone.values(state="DONE")))
    with world.database.read() as connection:
        assert overdue.narrow_windows(connection) == {run.id: 3}


def test_ready_work_is_found_by_its_index(sqlite_database: Database) -> None:
    world = RunsWorld(sqlite_database)
    world.start()
    executed: list[tuple[str, tuple[Any, ...]]] = []
    engine = sqlite_database._engine
    sa.event.listen(engine, "before_cursor_execute", lambda *found: executed.append(found[2:4]))
    with sqlite_database.read() as connection:
        work.is_ready(connection, "w", ["batch"])
        ((looked, parameters),) = [each for each in executed if "FROM work" in each[0]]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {looked}", parameters).all()
    assert any("ix_work_ready" in row[-1] for row in plan), plan


# --- live work before replays ---------------------------------------------------------------------


def _as_replay(world: RunsWorld, run: Run) -> None:
    for table, key in ((tables.runs, tables.runs.c.id), (tables.work, tables.work.c.run_id)):
        later = sa.update(table).where(key == run.id).values(priority=Priority.REPLAY)
        world.database.transact(lambda c, s=later: c.execute(s))


def test_live_work_goes_before_a_replay_that_waits_longer(world: RunsWorld) -> None:
    replay = world.start(mode=Mode.DISTRIBUTED)
    _as_replay(world, replay)
    live = world.start(mode=Mode.DISTRIBUTED)
    assert world.claimed(world.worker()).run_id == live.id
    assert world.claimed(world.worker()).run_id == replay.id


def test_a_replay_lets_live_work_go_first_between_two_shards(world: RunsWorld) -> None:
    replay = world.start(mode=Mode.DISTRIBUTED)
    _as_replay(world, replay)
    world.plan(world.claimed(world.worker()), 3)
    first = world.claimed(world.worker())
    assert (first.run_id, first.priority) == (replay.id, Priority.REPLAY)
    world.start(mode=Mode.BATCH)
    with world.database.read() as connection:
        assert not work.must_yield(connection, first)  # that is another queue
    live = world.start(mode=Mode.DISTRIBUTED)
    assert world.database.transact(lambda c: work.claim_next(c, first, host=None)) is None
    assert world.claimed(world.worker(), "distributed").run_id == live.id
    following = world.database.transact(lambda c: work.claim_next(c, first, host=None))
    assert following is not None
    assert following.run_id == replay.id
