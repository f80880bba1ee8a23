"""What every executor promises: wake-ups reach workers; whatever happens to them is harmless."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from execution_world import ExecutionWorld, train

from augury.errors import UnavailableError
from augury.execution.celery_executor import CeleryExecutor
from augury.execution.local_executor import LocalExecutor
from augury.jobs.executor import Executor
from augury.jobs.states import RunState
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.migrations import migrate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("model") / "quick.ubj")


@pytest.fixture
def settings(settings: Settings, every_bus_url: str) -> Settings:
    return settings.model_copy(update={"redis_url": every_bus_url})


@pytest.fixture(params=["local", "celery"])
def idle(
    request: pytest.FixtureRequest, settings: Settings, sqlite_database: Database
) -> Iterator[Executor]:
    """An executor without workers."""
    made: Executor = (
        CeleryExecutor(settings)
        if request.param == "celery"
        else LocalExecutor(sqlite_database, settings, num_workers=0)
    )
    yield made
    made.close()


@pytest.fixture(scope="module", params=["local", "celery"])
def world(
    request: pytest.FixtureRequest,
    valkey: ValkeyServer,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ExecutionWorld]:
    """An installation with one worker of that kind, for all tests: starting one takes seconds."""
    wired = Settings(
        home=tmp_path_factory.mktemp("home"),
        namespace=f"executor-{request.param}-{os.getpid()}",
        redis_url=valkey.url,
    )
    database = Database(wired.effective_database_url)
    migrate(database)
    made = ExecutionWorld(database, wired, model)
    if request.param == "celery":
        made.worker()
    else:
        made.local_workers()
    yield made
    made.close()
    database.close()


def test_wake_ups_are_counted_by_queue(idle: Executor) -> None:
    assert idle.depth("batch") == 0
    idle.wake("batch")
    idle.wake("batch", 2)
    idle.wake("distributed")
    assert (idle.depth("batch"), idle.depth("distributed"), idle.depth("mini_batch")) == (3, 1, 0)


def test_close_is_idempotent(idle: Executor) -> None:
    idle.wake("batch")
    idle.close()
    idle.close()


def test_a_wake_up_gets_a_run_done(world: ExecutionWorld) -> None:
    run = world.start(world.drop("a.parquet", 100))
    assert world.succeeded(run).rows_predicted == 100
    world.until(lambda: world.executor.depth("mini_batch") == 0, "the wake-up is used up")


def test_one_wake_up_is_enough_for_all_that_is_ready(world: ExecutionWorld) -> None:
    path = world.drop("a.parquet", 100)
    runs = [world.start(path, wake=False) for _ in range(5)]
    world.executor.wake("mini_batch")
    for run in runs:
        world.succeeded(run)


def test_doubled_wake_ups_change_nothing(world: ExecutionWorld) -> None:
    run = world.start(world.drop("a.parquet", 100))
    world.executor.wake("mini_batch", 5)
    world.succeeded(run)
    world.until(lambda: world.executor.depth("mini_batch") == 0, "all wake-ups are used up")
    assert [item.token for item in world.work(run)] == [1, 1]


def test_lost_wake_up_costs_a_delay(world: ExecutionWorld) -> None:
    run = world.start(world.drop("a.parquet", 100), wake=False)
    sweeper = world.sweeper()
    assert world.run(run).state is RunState.ACCEPTED
    sweeper.sweep()
    world.succeeded(run)


def test_every_queue_is_served(world: ExecutionWorld) -> None:
    path = world.drop("a.parquet", 100)
    runs = [world.start(path, mode=mode) for mode in ("distributed", "batch", "mini_batch")]
    assert [world.succeeded(run).mode for run in runs] == ["distributed", "batch", "mini_batch"]


def test_silent_broker_is_unavailable(settings: Settings) -> None:
    executor = CeleryExecutor(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        executor.wake("batch")
    with pytest.raises(UnavailableError):
        executor.depth("batch")
    executor.close()
