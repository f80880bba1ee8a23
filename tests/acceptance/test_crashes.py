"""kill -9 of every process at several points: nothing lost, nothing doubled, the same bytes.

Each test compares with an undisturbed run of the same input: the content hash of the output must
be equal, `augury audit` must hold, and no shard but those in flight may have been done again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import Augury
from scored import Scored, write_file

from augury import clock
from augury.storage import tables

pytestmark = pytest.mark.slow
type Start = Callable[..., Augury]

NUM_ROWS = 72_000
SHARD_ROWS = 6_000
NUM_SHARDS = NUM_ROWS // SHARD_ROWS


def _slow_world(augury: Augury, **job: Any) -> Scored:
    """A model so slow that one shard takes about a third of a second."""
    world = Scored(augury, slow=True)
    world.apply(mode="distributed", target_shard_rows=SHARD_ROWS, **job)
    return world


def _land(world: Scored, name: str = "big.parquet") -> None:
    write_file(world.landing / name, NUM_ROWS, seed=3, row_group_rows=SHARD_ROWS)


def _done(world: Scored) -> int:
    return sum(shard.state == "DONE" for run in world.runs() for shard in world.shards(run.id))


def _leased_by(world: Scored, pid: int) -> list[int]:
    mine = {worker.id for worker in world.rows(tables.workers) if worker.pid == pid}
    shards = [shard for run in world.runs() for shard in world.shards(run.id)]
    return [s.seq for s in shards if s.state == "LEASED" and s.worker_id in mine]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content hash of the output when nobody is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    augury = Augury(folder, workers=2)
    augury.up()
    try:
        world = _slow_world(augury)
        _land(world)
        (run,) = world.until_finished(1)
        assert run.state == "SUCCEEDED", run.lifecycle_details
        digest: str = world.manifest(run)["content_digest"]
    finally:
        augury.end()
    return digest


def _check(world: Scored, undisturbed: str, *, again: set[int]) -> None:
    """The run succeeded, with the same content; only `again` may have been tried twice."""
    (run,) = world.until_finished(1, timeout_s=90)
    assert run.state == "SUCCEEDED", run.lifecycle_details
    assert world.manifest(run)["content_digest"] == undisturbed
    tried = {shard.seq for shard in world.shards(run.id) if shard.attempts > 1}
    assert tried <= again, f"done again: {tried - again}"
    world.until_routed()
    assert world.audit()["violations"] == []


@pytest.mark.parametrize("after", [0, 2, NUM_SHARDS // 2])
def test_worker_killed_mid_shard(start_augury: Start, undisturbed: str, after: int) -> None:
    augury = start_augury(workers=2)
    world = _slow_world(augury)
    pid = augury.pid("worker-1")
    _land(world)
    augury.until(lambda: _done(world) >= after and _leased_by(world, pid), "it holds a shard")
    in_flight = set(_leased_by(world, pid))
    augury.kill("worker-1")
    killed_s = clock.monotonic_s()
    (run,) = world.runs()
    in_flight |= {s.seq for s in world.shards(run.id) if s.state == "LEASED"}

    def taken_over() -> bool:
        return all(s.state != "LEASED" or s.attempts > 1 for s in world.shards(run.id)
                   if s.seq in in_flight)  # fmt: skip

    augury.until(taken_over, "its shard was taken over", timeout_s=15)
    assert clock.monotonic_s() - killed_s < 15
    _check(world, undisturbed, again=in_flight)


def test_every_worker_killed_at_once(
    start_augury: Start, undisturbed: str, backend: dict[str, str]
) -> None:
    augury = start_augury(workers=2, **backend)
    world = _slow_world(augury)
    _land(world)
    augury.until(lambda: _done(world) >= 1, "one shard is done")
    (run,) = world.runs()
    for child in ("worker-1", "worker-2"):
        augury.kill(child)
    in_flight = {s.seq for s in world.shards(run.id) if s.state == "LEASED"}
    _check(world, undisturbed, again=in_flight)


@pytest.mark.parametrize("child", ["router", "relay", "sweeper", "sources", "api"])
def test_other_process_killed_while_files_land(
    start_augury: Start, child: str, backend: dict[str, str]
) -> None:
    """Killed twice while thirty files land: every one is scored once."""
    augury = start_augury(workers=1, **backend)
    world = Scored(augury)
    world.apply()
    for number in range(30):
        write_file(world.landing / f"{number:02}.parquet", 1_000, seed=number)
        if number in {5, 20}:
            old = augury.kill(child)
            augury.until_restarted(child, old)
    runs = world.until_finished(30, timeout_s=90)
    assert [run.state for run in runs] == ["SUCCEEDED"] * 30
    assert sum(world.manifest(run)["rows"]["predicted"] for run in runs) == 30_000
    world.until_routed()
    assert world.audit()["violations"] == []


def test_scheduler_killed_at_a_tick(start_augury: Start) -> None:
    """Each second ticks once, whoever dies when."""
    augury = start_augury(workers=1)
    world = Scored(augury)
    world.apply()
    world.apply_document(
        {"schedules": [{"name": "fast", "cron": "* * * * * */1", "timezone": "UTC"}]}, "fast.yaml"
    )
    for count in (2, 5, 8):
        augury.until(lambda n=count: len(world.rows(tables.ticks)) >= n, f"{count} ticks")
        old = augury.kill("sources")
        augury.until_restarted("sources", old)
    augury.until(lambda: len(world.rows(tables.ticks)) >= 10, "ten ticks")
    assert augury.run("delete", "schedule", "fast").returncode == 0
    world.until_routed()
    fired = [tick for tick in world.rows(tables.ticks) if tick.state == "FIRED"]
    events = world.rows(tables.events, tables.events.c.type == "augury.schedule.ticked")
    assert sorted(event.event_id.partition(":")[2] for event in events) == sorted(
        clock.iso(tick.nominal_at) for tick in fired
    )
    assert all(event.duplicate_of is None for event in events)
    assert world.audit()["violations"] == []


@pytest.mark.parametrize("after", [0, 2, NUM_SHARDS - 2])
def test_valkey_killed_and_restarted_on_the_same_file(
    start_augury: Start, undisturbed: str, after: int
) -> None:
    augury = start_augury(workers=2)
    world = _slow_world(augury)
    for number in range(3):
        augury.json("publish", "acme.thing.happened", "--id", f"e{number}")
    _land(world)
    augury.until(lambda: world.runs() and _done(world) >= after, f"{after} shards are done")
    old = augury.kill("valkey")
    augury.until_restarted("valkey", old)
    _check(world, undisturbed, again=set())
    known = {event.event_id for event in world.rows(tables.events)}
    assert {"e0", "e1", "e2"} <= known


def test_api_killed_during_publish(start_augury: Start) -> None:
    """What was answered with 202 is in the ledger; what was not may be sent again."""
    augury = start_augury(workers=0)
    accepted: set[str] = set()
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.is_set():
            event = {"specversion": "1.0", "source": "/t", "id": f"e{number}", "type": "a.b.c"}
            try:
                status, _ = augury.http("POST", "/v1/events", event)
            except OSError:
                continue  # the same id again: a duplicate is recognised
            assert status == 202
            accepted.add(event["id"])
            number += 1

    publishing = threading.Thread(target=publish)
    publishing.start()
    world = Scored(augury)
    try:
        for count in (50, 150, 250):
            augury.until(lambda n=count: len(accepted) >= n, f"{count} accepted")
            augury.until_restarted("api", augury.kill("api"))
        augury.until(lambda: len(accepted) >= 300, "300 accepted")
    finally:
        stop.set()
        publishing.join()

    def in_ledger() -> set[str]:
        mine = world.rows(tables.events, tables.events.c.source == "/t")
        return {event.event_id for event in mine}

    augury.until(lambda: accepted <= in_ledger(), "every accepted event is in the ledger")
    assert world.audit()["violations"] == []


def test_wiped_redis_loses_no_accepted_run(start_augury: Start, undisturbed: str) -> None:
    """FLUSHALL on the installation's own server: the run finishes; audit says what is unknown."""
    import redis

    augury = start_augury(workers=2)
    world = _slow_world(augury)
    _land(world)
    augury.until(lambda: _done(world) >= 2, "two shards are done")
    with redis.Redis.from_url(augury.settings.effective_redis_url) as client:
        client.flushall()
    (run,) = world.until_finished(1, timeout_s=90)
    assert run.state == "SUCCEEDED", run.lifecycle_details
    assert world.manifest(run)["content_digest"] == undisturbed
    world.until_routed()
    done = augury.run("audit", "--json")
    assert done.returncode == 4, done.stdout
    assert "bus lost at" in done.stdout
    incidents = world.rows(tables.bus_incidents)
    assert [incident.kind for incident in incidents] == ["LOST"]
    assert augury.run("audit", "acknowledge", incidents[0].id).returncode == 0
    assert world.audit()["violations"] == []
