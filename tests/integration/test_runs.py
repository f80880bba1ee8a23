"""Runs: accepted once, states that race, cancel against commit, listing, deletion."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from runs_world import RunsWorld

from augury.errors import ConflictError, InvalidError, LostLeaseError, NotFoundError
from augury.jobs import logs
from augury.jobs.runs import (
    cancel,
    delete_run,
    get_run,
    list_runs,
    start_run,
    transition,
)
from augury.jobs.spec import JobSpec, Mode
from augury.jobs.states import RunState
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database) -> RunsWorld:
    return RunsWorld(database)


# --- accepted -------------------------------------------------------------------------------------


def test_accepted_run_has_its_work_its_event_and_its_first_log_line(world: RunsWorld) -> None:
    run = world.start(display_name="july", input=[{"uri": "file:///in/a.parquet", "tag": "t"}])
    assert (run.state, run.name, run.mode) == (RunState.ACCEPTED, "july", None)
    assert run.output_uri == f"file:///out/{run.id}/"
    assert run.job_spec.input[0].tag == "t"
    (item,) = world.work(run.id)
    assert (item.kind, item.queue, item.state, item.token) == ("plan", "mini_batch", "READY", 0)
    assert world.told(run.id) == ["ACCEPTED"]
    data = world.event(run.id, "ACCEPTED")["data"]
    assert (data["run_id"], data["run_name"], data["job"]) == (run.id, "july", "score")
    with world.database.read() as connection:
        (line,) = logs.read(connection, run.id)
        assert (line.level, line.message) == ("info", "Run accepted.")
        assert logs.read(connection, run.id, after_id=line.id) == []


def test_run_gets_a_name_of_its_own(world: RunsWorld) -> None:
    names = {world.start().name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("score-") for name in names)


def test_same_idempotency_key_is_the_same_run(world: RunsWorld) -> None:
    first = world.start(key="k", columns=["a"])
    again = world.start(key="k", columns=["a"])
    assert again.id == first.id
    assert world.start(key="other", columns=["a"]).id != first.id
    assert world.told(first.id) == ["ACCEPTED"]


def test_idempotency_key_of_another_request_is_a_conflict(world: RunsWorld) -> None:
    first = world.start(key="k", columns=["a"])
    with pytest.raises(ConflictError, match=first.id):
        world.start(key="k", columns=["b"])


def test_one_key_from_many_at_once_makes_one_run(world: RunsWorld) -> None:
    together = threading.Barrier(6)
    found: list[tuple[str, bool]] = []

    def ask() -> None:
        together.wait()
        run, created = world.database.transact(
            lambda c: start_run(world.database, c, job="score", idempotency_key="k")
        )
        found.append((run.id, created))

    _at_once([ask] * 6)
    assert len({run_id for run_id, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1


def test_unknown_job_is_named_with_those_there_are(world: RunsWorld) -> None:
    with pytest.raises(NotFoundError, match="no job named 'scor'; there are: score"):
        world.database.transact(lambda c: start_run(world.database, c, job="scor"))


def test_job_that_this_version_does_not_understand_is_explained(database: Database) -> None:
    world = RunsWorld(database, colour="red")
    with pytest.raises(InvalidError, match=r"colour.*red"):
        world.start()


def test_environment_is_merged_and_the_rest_overridden(database: Database) -> None:
    world = RunsWorld(database, environment={"A": "1", "B": "1"}, max_concurrency=3)
    spec = world.start(environment={"B": "2"}, max_concurrency=5).job_spec
    assert isinstance(spec, JobSpec)
    assert (spec.environment, spec.max_concurrency) == ({"A": "1", "B": "2"}, 5)


# --- states ---------------------------------------------------------------------------------------


def test_transition_that_is_not_in_the_table_changes_nothing(world: RunsWorld) -> None:
    run = world.start()
    for to in (RunState.SUCCEEDED, RunState.CANCELED, RunState.DELETED, RunState.ACCEPTED):
        assert not _moved(world, run.id, to)
    assert world.told(run.id) == ["ACCEPTED"]
    assert world.run(run.id) == run


def test_success_needs_a_commit(world: RunsWorld) -> None:
    run = world.planned(1)
    assert not _moved(world, run.id, RunState.SUCCEEDED)
    world.finish(world.claimed(world.worker()))
    assert world.commit(run.id)
    assert _moved(world, run.id, RunState.SUCCEEDED)
    data = world.event(run.id, "SUCCEEDED")["data"]
    assert data["output_uri"] == f"file:///out/{run.id}/"
    assert data["manifest_uri"] == f"file:///out/{run.id}/_manifest.json"
    assert (data["manifest_digest"], data["rows_predicted"]) == ("d", 30)


def test_failed_run_tells_why_and_ends_its_open_work(world: RunsWorld) -> None:
    run = world.planned(3)
    held = world.claimed(world.worker())
    assert _moved(world, run.id, RunState.FAILED, reason="limit")
    data = world.event(run.id, "FAILED")["data"]
    assert (data["reason"], data["details"]) == ("limit", "moved")
    assert world.states(run.id) == ["LEASED", "CANCELED", "CANCELED"]
    with pytest.raises(LostLeaseError, match="FAILED"):
        world.finish(held)
    assert world.release(held)
    assert world.states(run.id) == ["CANCELED"] * 3
    assert world.run(run.id).state is RunState.FAILED


def test_of_many_racing_transitions_one_wins(world: RunsWorld) -> None:
    run = world.planned(1)
    won: list[RunState] = []

    def move(to: RunState) -> Callable[[], None]:
        def attempt() -> None:
            if _moved(world, run.id, to):
                won.append(to)

        return attempt

    _at_once([move(RunState.FAILED), move(RunState.NEEDS_ATTENTION), move(RunState.FAILED)])
    assert won.count(RunState.FAILED) == 1
    assert world.run(run.id).state is RunState.FAILED


# --- cancel ---------------------------------------------------------------------------------------


def test_run_that_nobody_works_on_is_canceled_at_once(world: RunsWorld) -> None:
    run = world.cancel(world.start().id)
    assert (run.state, run.reason) == (RunState.CANCELED, "canceled")
    assert run.time_finished is not None
    assert world.told(run.id) == ["ACCEPTED", "CANCELING", "CANCELED"]
    assert world.claim(world.worker()) is None


def test_canceled_run_waits_for_its_workers(world: RunsWorld) -> None:
    run = world.planned(4)
    first, second = world.claimed(world.worker()), world.claimed(world.worker())
    assert world.cancel(run.id).state is RunState.CANCELING
    assert world.claim(world.worker()) is None
    world.release(first)
    assert world.run(run.id).state is RunState.CANCELING
    world.release(second)
    assert world.run(run.id).state is RunState.CANCELED
    assert world.states(run.id) == ["CANCELED"] * 4


def test_canceling_twice_is_answered_with_the_first(world: RunsWorld) -> None:
    run = world.planned(1)
    world.claimed(world.worker())
    assert world.cancel(run.id).state is RunState.CANCELING
    assert world.cancel(run.id).state is RunState.CANCELING
    assert world.told(run.id).count("CANCELING") == 1


def test_canceled_run_needs_no_worker_that_died(world: RunsWorld) -> None:
    run = world.planned(2)
    item = world.claimed(world.worker())
    world.cancel(run.id)
    world.expire(item.worker_id)
    assert world.run(run.id).state is RunState.CANCELED


def test_needs_attention_can_be_canceled(world: RunsWorld) -> None:
    run = world.start()
    assert _moved(world, run.id, RunState.NEEDS_ATTENTION)
    assert world.cancel(run.id).state is RunState.CANCELED


def test_cancel_after_the_commit_is_too_late(world: RunsWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    world.commit(run.id)
    with pytest.raises(ConflictError, match="too late"):
        world.cancel(run.id)
    assert not _moved(world, run.id, RunState.FAILED)
    assert _moved(world, run.id, RunState.SUCCEEDED)
    with pytest.raises(ConflictError, match="too late"):
        world.cancel(run.id)


@pytest.mark.parametrize("turn", range(12))
def test_cancel_racing_with_the_commit_leaves_one_of_them(world: RunsWorld, turn: int) -> None:
    run = world.planned(2)
    for _ in range(2):
        world.finish(world.claimed(world.worker()))
    results: dict[str, bool] = {}

    def commit() -> None:
        results["commit"] = world.commit(run.id)

    def cancels() -> None:
        try:
            world.cancel(run.id)
            results["cancel"] = True
        except ConflictError:
            results["cancel"] = False

    _at_once([commit, cancels, commit] if turn % 2 else [cancels, commit, cancels])
    after = world.run(run.id)
    is_committed = after.manifest is not None
    assert is_committed == (after.state is RunState.IN_PROGRESS)
    assert is_committed != (after.state is RunState.CANCELED)
    assert (after.time_committed is not None) == is_committed


@pytest.mark.parametrize("turn", range(6))
def test_cancel_racing_with_the_last_shard_strands_nothing(world: RunsWorld, turn: int) -> None:
    run = world.planned(2)
    items = [world.claimed(world.worker()) for _ in range(2)]

    def finish(index: int) -> Callable[[], None]:
        def attempt() -> None:
            try:
                world.finish(items[index])
            except LostLeaseError:
                world.release(items[index])

        return attempt

    def cancels() -> None:
        world.cancel(run.id)

    _at_once([finish(0), cancels, finish(1)][:: 1 - 2 * (turn % 2)])
    assert world.run(run.id).state is RunState.CANCELED
    assert set(world.states(run.id)) <= {"DONE", "CANCELED"}
    assert not world.commit(run.id)


# --- reading --------------------------------------------------------------------------------------


def test_run_is_found_by_id_and_by_name(world: RunsWorld) -> None:
    older = world.start(display_name="daily")
    newer = world.start(display_name="daily")
    assert world.run(older.id).id == older.id
    assert world.run("daily").id == newer.id
    with pytest.raises(NotFoundError, match="'weekly'"):
        world.run("weekly")


def test_listing_is_newest_first_in_pages(world: RunsWorld) -> None:
    started = [world.start().id for _ in range(5)][::-1]
    with world.database.read() as connection:
        first = [run.id for run in list_runs(connection, limit=2)]
        second = [run.id for run in list_runs(connection, limit=2, before=first[-1])]
        third = [run.id for run in list_runs(connection, limit=2, before=second[-1])]
    assert first + second + third == started


def test_listing_by_state_and_job(world: RunsWorld) -> None:
    canceled = world.cancel(world.start().id)
    waiting = world.start()
    with world.database.read() as connection:
        assert [run.id for run in list_runs(connection, state="CANCELED")] == [canceled.id]
        assert [run.id for run in list_runs(connection, state="ACCEPTED")] == [waiting.id]
        assert len(list_runs(connection, job="score")) == 2
        assert list_runs(connection, job="other") == []


def test_only_a_run_that_has_ended_can_be_deleted(world: RunsWorld) -> None:
    run = world.start()
    with pytest.raises(ConflictError, match="ACCEPTED"):
        world.database.transact(lambda c: delete_run(world.database, c, run.id))
    world.cancel(run.id)
    world.database.transact(lambda c: delete_run(world.database, c, run.id))
    with world.database.read() as connection:
        assert list_runs(connection) == []
        assert get_run(connection, run.id).state is RunState.DELETED
        assert [each.id for each in list_runs(connection, state="DELETED")] == [run.id]
    with pytest.raises(NotFoundError):
        world.database.transact(lambda c: delete_run(world.database, c, run.id))
    assert world.told(run.id)[-1] == "DELETED"


def test_every_state_is_in_the_log(world: RunsWorld) -> None:
    run = world.planned(1)
    world.finish(world.claimed(world.worker()))
    world.commit(run.id)
    _moved(world, run.id, RunState.SUCCEEDED)
    with world.database.read() as connection:
        lines = [line.message for line in logs.read(connection, run.id)]
    assert lines == [
        "Run accepted.",
        "Planning.",
        "Scoring 10 rows in 1 shard. Mode distributed.",
        "moved",
    ]


def test_unknown_run_is_not_found(world: RunsWorld) -> None:
    with pytest.raises(NotFoundError):
        world.database.transact(lambda c: cancel(world.database, c, "run_nobody"))


def _moved(world: RunsWorld, run_id: str, to: RunState, *, reason: str | None = None) -> bool:
    return world.database.transact(
        lambda c: transition(world.database, c, run_id, to, details="moved", reason=reason)
    )


def _at_once(attempts: list[Callable[[], None]]) -> None:
    """Runs them in threads that begin together; an error in one fails the test."""
    together = threading.Barrier(len(attempts))
    errors: list[BaseException] = []

    def run(attempt: Callable[[], None]) -> None:
        try:
            together.wait()
            attempt()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(attempt,)) for attempt in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_runs_rows_read_as_values(world: RunsWorld) -> None:
    """A column that `Run` does not know, or the reverse, shows here."""
    assert set(tables.runs.c.keys()) == set(vars(world.start()))
    assert isinstance(tables.runs, sa.Table)
    assert Mode.AUTO not in {row.mode for row in world.rows(tables.runs)}


def test_too_many_rejects_fail_the_run_with_the_shard_that_passes_the_bound(
    database: Database,
) -> None:
    world = RunsWorld(database, max_rejected={"share": 0.25, "count": 12})
    run = world.planned(5, max_concurrency=2)
    worker = world.worker()
    world.finish(world.claimed(worker), rejected=7)
    assert world.run(run.id).rows_rejected == 7
    other = world.claimed(world.worker())
    finished = world.finish(world.claimed(worker), rejected=6)
    assert not finished.is_last
    found = world.run(run.id)
    assert (found.state, found.reason) == (RunState.FAILED, "max_rejected")
    assert "at most 12 rejected rows (max_rejected), found 13 so far, among them: row 0; row 1" in (
        found.lifecycle_details
    )
    assert world.states(run.id).count("CANCELED") == 2
    assert world.event(run.id, "FAILED")["data"]["rows_rejected"] == 13
    world.release(other)
    assert world.states(run.id).count("CANCELED") == 3
