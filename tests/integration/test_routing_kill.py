"""Router processes under kill -9, and a bus that is killed below them."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from routing_world import WakeUps, World, dropped, event

from augury import clock
from augury.bus.redis_bus import RedisBus
from augury.errors import UnavailableError
from augury.processes.valkey import ValkeyServer
from augury.routing.router import Router
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

SEEDS = [1, 2, 3]
BATCHES = 40
BATCH = 50


@pytest.fixture
def world(database: Database, settings: Settings, own_valkey: ValkeyServer) -> Iterator[World]:
    changes = {
        "redis_url": own_valkey.url,
        "database_url": database.url,
        "router_claim_idle_s": 0.2,
        "router_batch": 64,
    }
    world = World(database, settings.model_copy(update=changes))
    world.job()
    world.rule("landing", {"type": ["augury.object.created"]})
    world.rule("things", {"type": ["acme.thing"]})
    yield world
    world.bus.close()


def fork_router(settings: Settings) -> int:
    """A router in a process of its own, with connections of its own; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        database = Database(settings.effective_database_url)
        bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)
        Router(database, bus, WakeUps(), settings).run(threading.Event())
    finally:
        os._exit(1)


def publish(world: World, documents: list[dict[str, object]]) -> None:
    """Until it is accepted; what the bus took without saying so becomes a duplicate."""
    while True:
        try:
            world.publish(*documents)
        except UnavailableError:
            clock.sleep_s(0.01)
        else:
            return


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_routers_and_a_killed_bus_neither_lose_nor_double(
    world: World, own_valkey: ValkeyServer, seed: int
) -> None:
    chance = random.Random(seed)
    routers = [fork_router(world.settings) for _ in range(2)]
    kills = 0
    try:
        for number in range(BATCHES):
            first = number * BATCH
            # every tenth event comes twice, every object in two events
            ids = [n - 10 if n % 10 == 0 else n for n in range(first, first + BATCH)]
            publish(world, [event(id=f"t{n}") for n in ids[::2]])
            publish(world, [dropped(f"k{n // 2}", id=f"d{n}") for n in range(first, first + BATCH)])
            clock.sleep_s(chance.uniform(0.0, 0.03))
            if chance.random() < 0.5:
                victim = chance.randrange(2)
                os.kill(routers[victim], signal.SIGKILL)
                os.waitpid(routers[victim], 0)
                routers[victim] = fork_router(world.settings)
                kills += 1
            if number in {BATCHES // 3, BATCHES // 2}:
                own_valkey.kill()
                own_valkey.start()
    finally:
        for pid in routers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    world.drain()
    assert kills > 5
    world.check_laws()
    states = Counter((row[0][0], row[2]) for row in world.outcomes() if row[0][0] in "td")
    expected = {n - 10 if n % 10 == 0 else n for n in range(0, BATCHES * BATCH, 2)}
    assert states["t", "STARTED"] == len(expected)
    assert states["d", "STARTED"] == BATCHES * BATCH // 2
    assert world.buried() == []
    assert world.rows(tables.bus_incidents) == []
