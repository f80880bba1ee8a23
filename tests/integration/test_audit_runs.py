"""Each invariant of runs and their work: broken alone, audit names it and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audit_world import Corruptions, ScoredWorld, Snapshot, sqlite_settings

from augury import clock
from augury.jobs import workers
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import event_keys, events, outcomes, runs, work

type Corruption = Callable[[ScoredWorld], None]
_CORRUPTIONS = Corruptions[ScoredWorld]()
_LONG_AGO = timedelta(seconds=100)


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[ScoredWorld, Snapshot]]:
    folder = tmp_path_factory.mktemp("audit")
    settings = sqlite_settings(folder, _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    world = ScoredWorld(database, settings, folder)
    world.fill()
    yield world, Snapshot(database)
    world.bus.close()
    database.close()


@pytest.fixture
def world(_shared: tuple[ScoredWorld, Snapshot]) -> Iterator[ScoredWorld]:
    """A filled world; what a test changes in its ledger is put back."""
    world, snapshot = _shared
    yield world
    snapshot.restore()


@pytest.fixture
def postgres_world(
    postgres_database: Database, settings: Settings, bus_url: str, tmp_path: Path
) -> Iterator[ScoredWorld]:
    changes = {"database_url": postgres_database.url, "redis_url": bus_url}
    settings = settings.model_copy(update=changes)
    world = ScoredWorld(postgres_database, settings, tmp_path)
    world.fill()
    yield world
    world.bus.close()


def _change(world: ScoredWorld, run: sa.Row[Any], **values: Any) -> None:
    world.change(sa.update(runs).where(runs.c.id == run.id).values(**values))


def _work(world: ScoredWorld, run: sa.Row[Any], kind: str = "shard") -> list[sa.Row[Any]]:
    return world.rows(work, work.c.run_id == run.id, work.c.kind == kind)


def _change_work(world: ScoredWorld, item: sa.Row[Any], **values: Any) -> None:
    world.change(sa.update(work).where(work.c.id == item.id).values(**values))


def _begun(world: ScoredWorld) -> sa.Row[Any]:
    """A run whose plan item is in the worker's hands."""
    run = world.start(f"{world.folder}/in/")
    item = world.claim()
    assert item is not None and item.run_id == run.id
    return world.rows(runs, runs.c.id == run.id)[0]


@_CORRUPTIONS.breaks("run_outcome")
def a_second_run_for_one_outcome(world: ScoredWorld) -> None:
    (run,) = world.rows(runs, runs.c.state == "FAILED")
    (item,) = _work(world, run, "plan")
    key = world.rows(event_keys, event_keys.c.event_id == f"{run.id}:ACCEPTED")[0]
    copied = {"id": "run_copy", "run_key": "copied"}
    world.change(
        sa.insert(runs).values(**{**run._mapping, **copied}),
        sa.insert(work).values(**{**item._mapping, "id": "work_copy", "run_id": "run_copy"}),
        *(
            sa.insert(event_keys).values(**{**key._mapping, "event_id": f"run_copy:{state}"})
            for state in ("ACCEPTED", "FAILED")
        ),
    )


@_CORRUPTIONS.breaks("run_outcome")
def a_run_of_an_event_that_no_outcome_led_to(world: ScoredWorld) -> None:
    run = next(run for run in world.runs() if run.position is None)
    _change(world, run, position=world.rows(events)[0].position)


@_CORRUPTIONS.breaks("run_state")
def an_end_without_a_time(world: ScoredWorld) -> None:
    _change(world, world.runs("CANCELED")[0], time_finished=None)


@_CORRUPTIONS.breaks("run_state")
def a_success_that_never_began(world: ScoredWorld) -> None:
    _change(world, world.runs()[0], time_started=None)


@_CORRUPTIONS.breaks("run_state")
def a_failure_without_a_reason(world: ScoredWorld) -> None:
    _change(world, world.runs("FAILED")[0], reason=None)


@_CORRUPTIONS.breaks("run_state")
def a_state_that_no_run_has(world: ScoredWorld) -> None:
    _change(world, world.runs("CANCELED")[0], state="LOST", time_finished=None)


@_CORRUPTIONS.breaks("run_commit")
def a_success_without_a_manifest(world: ScoredWorld) -> None:
    nothing = {"manifest": None, "manifest_digest": None, "time_committed": None}
    _change(world, world.runs()[0], **nothing)


@_CORRUPTIONS.breaks("run_commit")
def half_a_commit(world: ScoredWorld) -> None:
    _change(world, world.runs()[0], manifest_digest=None)


@_CORRUPTIONS.breaks("run_commit")
def a_commit_that_nobody_finishes(world: ScoredWorld) -> None:
    run = world.runs()[0]
    _change(
        world,
        run,
        state="IN_PROGRESS",
        time_finished=None,
        time_committed=run.time_committed - _LONG_AGO,
    )


@_CORRUPTIONS.breaks("run_work")
def a_shard_counted_as_set_aside_that_is_not(world: ScoredWorld) -> None:
    _change(world, _begun(world), shards_isolated=1)


@_CORRUPTIONS.breaks("run_event")
def a_second_failure_of_a_resumed_run_that_nobody_heard_of(world: ScoredWorld) -> None:
    _change(world, world.runs("FAILED")[0], num_resumes=1, num_returns=1)


@_CORRUPTIONS.breaks("run_event")
def a_run_that_waits_for_somebody_who_was_never_told(world: ScoredWorld) -> None:
    _change(world, _begun(world), state="NEEDS_ATTENTION")


@_CORRUPTIONS.breaks("run_work")
def a_shard_lost(world: ScoredWorld) -> None:
    run = world.runs()[0]
    last = _work(world, run)[-1]
    world.change(sa.delete(work).where(work.c.id == last.id))
    _change(world, run, shards_done=run.shards_done - 1)
    _change(world, run, shards_total=run.shards_total)


@_CORRUPTIONS.breaks("run_work")
def a_shard_done_without_its_result(world: ScoredWorld) -> None:
    _change_work(world, _work(world, world.runs()[0])[0], result=sa.null())


@_CORRUPTIONS.breaks("run_work")
def a_shard_with_another_number(world: ScoredWorld) -> None:
    _change_work(world, _work(world, world.runs()[0])[0], seq=77)


@_CORRUPTIONS.breaks("run_work")
def a_success_with_a_shard_not_done(world: ScoredWorld) -> None:
    run = world.runs()[0]
    _change_work(world, _work(world, run)[0], state="FAILED")
    _change(world, run, shards_done=run.shards_done - 1)


@_CORRUPTIONS.breaks("run_work")
def no_plan_item(world: ScoredWorld) -> None:
    (item,) = _work(world, world.runs("CANCELED")[0], "plan")
    world.change(sa.delete(work).where(work.c.id == item.id))


@_CORRUPTIONS.breaks("run_stuck")
def a_run_that_nothing_moves(world: ScoredWorld) -> None:
    run = _begun(world)
    (item,) = _work(world, run, "plan")
    earlier = clock.utc_now() - _LONG_AGO
    _change(world, run, time_accepted=earlier, time_started=earlier)
    _change_work(world, item, state="DONE", done_at=earlier, worker_id=None)


@_CORRUPTIONS.breaks("run_open_work")
def an_ended_run_with_work_to_do(world: ScoredWorld) -> None:
    (item,) = _work(world, world.runs("FAILED")[0], "plan")
    _change_work(world, item, state="READY", ready_at=clock.utc_now())


@_CORRUPTIONS.breaks("run_rows")
def rows_unaccounted_for(world: ScoredWorld) -> None:
    run = world.runs()[0]
    _change(world, run, rows_rejected=run.rows_rejected + 1)


@_CORRUPTIONS.breaks("run_event")
def news_that_nobody_was_told(world: ScoredWorld) -> None:
    _change(world, world.runs("FAILED")[0], state="DELETED")


@_CORRUPTIONS.breaks("work_lease")
def a_lease_of_a_worker_that_does_not_exist(world: ScoredWorld) -> None:
    (item,) = _work(world, _begun(world), "plan")
    leased_at = clock.utc_now() - _LONG_AGO
    _change_work(world, item, worker_id="nobody", leased_at=leased_at)


@_CORRUPTIONS.breaks("work_lease")
def a_lease_of_a_worker_that_stopped(world: ScoredWorld) -> None:
    (item,) = _work(world, _begun(world), "plan")
    _change_work(world, item, leased_at=clock.utc_now() - _LONG_AGO)
    world.database.transact(lambda c: workers.stop(c, world.worker_id))


@_CORRUPTIONS.breaks("work_lease")
def a_lease_of_a_worker_whose_heart_stands_still(world: ScoredWorld) -> None:
    (item,) = _work(world, _begun(world), "plan")
    _change_work(world, item, leased_at=clock.utc_now() - _LONG_AGO)


@_CORRUPTIONS.breaks("work_holder")
def two_leases_in_one_hand(world: ScoredWorld) -> None:
    _begun(world)
    _begun(world)


@_CORRUPTIONS.breaks("work_holder")
def two_hands_on_a_batch(world: ScoredWorld) -> None:
    _change(world, _begun(world), mode="batch")
    other = world.rows(runs, runs.c.mode == "batch")[0]
    (item,) = _work(world, other, "plan")
    row = {**item._mapping, "id": "work_2", "kind": "shard", "worker_id": "worker-2"}
    world.change(sa.insert(work).values(**row))
    _change(world, other, shards_total=1)


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_what_is_broken_is_named(world: ScoredWorld, check: str, corrupt: Corruption) -> None:
    corrupt(world)
    report = world.audit()
    assert {violation.check for violation in report.violations} == {check}
    assert not report.ok


def test_every_check_does_the_same_on_postgres(postgres_world: ScoredWorld) -> None:
    assert postgres_world.broken(deep=True) == set()
    snapshot = Snapshot(postgres_world.database)
    for check, corrupt in _CORRUPTIONS:
        corrupt(postgres_world)
        assert postgres_world.broken() == {check}, corrupt.__name__
        snapshot.restore()
    assert postgres_world.broken(deep=True) == set()


def test_a_healthy_world_has_no_violation(world: ScoredWorld) -> None:
    report = world.audit(deep=True)
    assert (report.ok, report.violations, report.unknown) == (True, (), ())
    idle = {"outbox_stale", "outbox_leftover", "object_event", "deletion_event"}
    idle |= {
        "tick_event",
        "tick_state",
        "work_holder",
        "work_lease",
        "model_artifact",
        "job_artifact",
    }
    idle |= {"archive_range", "archive_file", "archive_content", "archive_law", "archive_replay"}
    idle |= {"replay_outcome", "replay_epoch", "replay_state", "replay_event"}
    unused = {name for name, count in report.checked.items() if not count}
    assert {name for name in unused if not name.startswith(("group_", "effect_"))} == idle


def test_work_in_good_hands_is_no_violation(world: ScoredWorld) -> None:
    """An old lease is waited for until its worker has shown that it lives."""
    (item,) = _work(world, _begun(world), "plan")
    _change_work(world, item, leased_at=clock.utc_now() - _LONG_AGO)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.02):
            world.database.transact(lambda c: workers.beat(c, world.worker_id))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        report = world.audit()
    finally:
        stop.set()
        thread.join(20)
    assert report.ok
    assert report.checked["work_lease"] == 1
    assert ("work LEASED", 1) in {(flying.kind, flying.count) for flying in report.in_flight}


def test_what_has_just_begun_is_in_flight(world: ScoredWorld) -> None:
    run = _begun(world)
    (item,) = _work(world, run, "plan")
    _change_work(world, item, state="DONE", done_at=clock.utc_now())
    report = world.audit(deep=True)
    assert report.ok
    assert "runs IN_PROGRESS" in {flying.kind for flying in report.in_flight}


def test_events_older_than_their_memory_are_not_missed(world: ScoredWorld) -> None:
    world.change(sa.delete(event_keys))
    assert world.broken() == {"event_key", "run_event"}
    assert world.broken(duplicate_window_days=1) == set()


def test_outcomes_name_runs_that_exist(world: ScoredWorld) -> None:
    run = next(run for run in world.runs() if run.position is not None)
    world.change(
        sa.delete(work).where(work.c.run_id == run.id), sa.delete(runs).where(runs.c.id == run.id)
    )
    assert world.broken() == {"outcome_run"}
    assert world.rows(outcomes, outcomes.c.run_id == run.id)
