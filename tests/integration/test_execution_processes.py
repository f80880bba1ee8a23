"""Workers as processes: killed, frozen, stopped, without their broker. Nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from execution_world import ExecutionWorld, WorkerProcess, train

from augury import clock
from augury.jobs.runs import Run
from augury.jobs.states import RunState
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

# the timeout leaves a busy machine time to start a heartbeat
QUICKLY = {"heartbeat_s": 0.2, "lease_timeout_s": 3.0, "sweep_s": 0.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("model") / "slow.ubj", num_trees=200, depth=7)


@pytest.fixture
def world(database: Database, live_settings: Settings, model: Path) -> Iterator[ExecutionWorld]:
    yield from _world(database, live_settings.model_copy(update=QUICKLY), model)


@pytest.fixture
def own_world(
    sqlite_database: Database, settings: Settings, own_valkey: ValkeyServer, model: Path
) -> Iterator[ExecutionWorld]:
    """On a broker of its own, which the test may hurt."""
    changes = {**QUICKLY, "database_url": sqlite_database.url, "redis_url": own_valkey.url}
    yield from _world(sqlite_database, settings.model_copy(update=changes), model)


def _world(database: Database, settings: Settings, model: Path) -> Iterator[ExecutionWorld]:
    made = ExecutionWorld(database, settings, model)
    made.job("fine", target_shard_rows=50_000)
    yield made
    made.close()


def _start(world: ExecutionWorld, mode: str, *, num_shards: int = 6) -> Run:
    path = world.folder / "in" / "a.parquet"
    if not path.exists():
        world.drop("a.parquet", num_shards * 50_000, row_group=50_000)
    return world.start(path, job="fine", mode=mode)


def _in_hand(world: ExecutionWorld, run: Run) -> list[Any]:
    """Shards that are being scored, once at least one is finished."""
    if not world.run(run).shards_done:
        return []
    return [row for row in world.work(run, "LEASED") if row.kind == "shard"]


def _worker_of(world: ExecutionWorld, item: Any) -> WorkerProcess:
    (row,) = world.rows(tables.workers, tables.workers.c.id == item.worker_id)
    return next(p for p in world.processes if p.process.pid == row.pid)


def _parts(world: ExecutionWorld, run: Run) -> dict[str, bytes]:
    """The killed worker's temporary file is the sweeper's business, some time later."""
    return {name: data for name, data in world.output(run).items() if name.startswith("part-")}


def _published(world: ExecutionWorld, run: Run) -> dict[str, bytes]:
    """All but temporary files."""
    return {name: data for name, data in world.output(run).items() if not name.startswith(".")}


@pytest.mark.parametrize("mode", ["mini_batch", "batch", "distributed"])
def test_killed_worker_costs_only_what_it_had_in_hand(world: ExecutionWorld, mode: str) -> None:
    world.sweeps()
    world.worker()
    run = _start(world, mode)
    world.until(lambda: _in_hand(world, run), "a shard is in hand")
    world.processes[0].send(signal.SIGSTOP)  # so that what is looked at here is what is killed
    done = {row.seq for row in world.work(run, "DONE") if row.kind == "shard"}
    in_hand = [row.seq for row in world.work(run, "LEASED")]
    world.processes[0].kill()
    world.worker()
    world.succeeded(run, timeout_s=90)
    again = {row.seq for row in world.work(run) if row.kind == "shard" and row.token > 1}
    assert again == set(in_hand)
    assert not again & done
    undisturbed = world.succeeded(_start(world, mode), timeout_s=90)
    assert _parts(world, run) == _parts(world, undisturbed)


def test_shard_of_a_killed_worker_starts_again_within_15_seconds(
    sqlite_database: Database, settings: Settings, bus_url: str, model: Path
) -> None:
    """With the settings that everybody has."""
    plain = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    world = ExecutionWorld(sqlite_database, plain, model)
    try:
        world.job("fine", target_shard_rows=50_000)
        world.sweeps()
        both = [world.worker(), world.worker()]
        run = _start(world, "batch")
        world.until(lambda: _in_hand(world, run), "a shard is in hand")
        for worker in both:
            worker.send(signal.SIGSTOP)  # so that what is looked at here is what is killed
        (item,) = _in_hand(world, run)
        holder = _worker_of(world, item)
        holder.kill()
        killed_s = clock.monotonic_s()
        both[both[0] is holder].send(signal.SIGCONT)

        def is_taken_over() -> bool:
            (row,) = [row for row in world.work(run) if row.id == item.id]
            return bool(row.token > item.token)

        world.until(is_taken_over, "the shard is taken over", timeout_s=15)
        assert clock.monotonic_s() - killed_s < 15
        world.succeeded(run, timeout_s=90)
    finally:
        world.close()


def test_zombie_that_wakes_up_late_changes_nothing(world: ExecutionWorld) -> None:
    world.sweeps()
    zombie = world.worker()
    run = _start(world, "distributed", num_shards=3)
    world.until(lambda: _in_hand(world, run), "a shard is in hand")
    zombie.send(signal.SIGSTOP)
    world.until(lambda: not world.work(run, "LEASED"), "its lease expires")
    heir = world.worker()
    world.succeeded(run, timeout_s=90)
    before = (_published(world, run), world.work(run), world.run(run))
    zombie.send(signal.SIGCONT)
    another = _start(world, "mini_batch")
    heir.kill()  # so that only the zombie can do this: it lives, and it has put down what it had
    world.succeeded(another, timeout_s=90)
    assert (_published(world, run), world.work(run), world.run(run)) == before
    assert "put down" in zombie.said()


def test_stopped_worker_ends_in_order_and_says_so(world: ExecutionWorld) -> None:
    worker = world.worker()
    world.succeeded(world.start(world.drop("small.parquet", 100)))
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert len(children) == 1, "the pulse"
    began_s = clock.monotonic_s()
    assert worker.stop() == 0
    assert clock.monotonic_s() - began_s < 8
    assert not any(child.is_running() for child in children)
    (row,) = world.rows(tables.workers)
    assert row.stopped_at is not None


def test_worker_that_is_stopped_in_a_shard_finishes_it(own_world: ExecutionWorld) -> None:
    worker = own_world.worker()
    run = _start(own_world, "distributed")
    own_world.until(lambda: _in_hand(own_world, run), "a shard is in hand")
    assert worker.stop() == 0
    assert own_world.work(run, "LEASED", "FAILED") == []
    assert {row.attempts for row in own_world.work(run, "READY")} == {0}
    own_world.worker()
    own_world.succeeded(run, timeout_s=90)
    assert {row.token for row in own_world.work(run)} == {1}


def test_pulse_ends_with_its_worker_and_is_restarted_alone(own_world: ExecutionWorld) -> None:
    worker = own_world.worker()
    (pulse,) = psutil.Process(worker.process.pid).children()
    pulse.kill()
    own_world.succeeded(own_world.start(own_world.drop("small.parquet", 100)))
    (second,) = psutil.Process(worker.process.pid).children()
    assert second.pid != pulse.pid
    worker.kill()
    second.wait(5)


def test_flushed_broker_loses_no_run(own_world: ExecutionWorld, own_valkey: ValkeyServer) -> None:
    own_world.worker()
    path = own_world.drop("small.parquet", 100)
    own_world.succeeded(own_world.start(path))
    with redis.Redis.from_url(own_valkey.url) as client:
        runs = [own_world.start(path) for _ in range(3)]
        client.flushall()
        runs += [own_world.start(path, wake=False) for _ in range(2)]
        own_world.sweeps()
        for run in runs:
            own_world.succeeded(run)
        client.flushall()
    own_world.succeeded(own_world.start(path))


def test_restarted_broker_is_waited_for(
    own_world: ExecutionWorld, own_valkey: ValkeyServer
) -> None:
    own_world.worker()
    path = own_world.drop("small.parquet", 100)
    own_world.succeeded(own_world.start(path))
    own_valkey.kill()
    run = own_world.start(path, wake=False)
    own_world.sweeps()
    own_valkey.start()
    own_world.succeeded(run)
    assert own_world.processes[0].process.poll() is None


def test_celery_command_starts_the_same_worker(world: ExecutionWorld) -> None:
    worker = world.worker(by_celery=True)
    path = world.drop("small.parquet", 100)
    for mode in ("mini_batch", "batch", "distributed"):
        assert world.succeeded(world.start(path, mode=mode)).state is RunState.SUCCEEDED
    assert worker.stop() == 0


def test_worker_takes_only_from_its_queues(own_world: ExecutionWorld) -> None:
    own_world.worker(queues=("batch",))
    path = own_world.drop("small.parquet", 100)
    other = own_world.start(path, mode="distributed")
    own_world.succeeded(own_world.start(path, mode="batch"))
    assert own_world.run(other).state is RunState.ACCEPTED
