"""Dispatcher processes under kill -9: everything is delivered, each time under the same id."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter, deque

import pytest
from effects_world import QUICK, Answer, EffectsWorld, Outside
from routing_world import event

from augury import clock
from augury.actions.dispatcher import Dispatcher
from augury.execution.sweeper import Sweeper
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

EFFECTS = 200


def fork_dispatcher(settings: Settings) -> int:
    """A dispatcher in a process of its own, with connections of its own; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        dispatcher = Dispatcher(Database(settings.effective_database_url), settings)
        dispatcher.start()
        dispatcher.run(threading.Event())
    finally:
        os._exit(1)


@pytest.mark.slow
def test_killed_dispatchers_lose_nothing(effects_world: EffectsWorld, outside: Outside) -> None:
    world = effects_world
    chance = random.Random(7)
    changes = {
        "webhook_networks": "127.0.0.0/8",
        "heartbeat_s": 0.05,
        "lease_timeout_s": 0.4,
        "sweep_s": 0.1,
        "dispatch_s": 0.02,
    }
    settings = world.settings.model_copy(update=changes)
    outside.answers["/x"] = deque_of_faults(chance)
    action = {"notify": {"webhook": {"url": outside.url + "/x"}, "retry": QUICK}}
    world.owe(action, events=[event(id=f"e{number}") for number in range(EFFECTS)])
    sweeper = Sweeper(world.database, world.executor, settings)
    dispatchers = [fork_dispatcher(settings) for _ in range(2)]
    kills = 0
    try:
        while world.open():
            sweeper.sweep()
            clock.sleep_s(chance.uniform(0.02, 0.1))
            if kills < 8:
                victim = chance.randrange(2)
                os.kill(dispatchers[victim], signal.SIGKILL)
                os.waitpid(dispatchers[victim], 0)
                dispatchers[victim] = fork_dispatcher(settings)
                kills += 1
    finally:
        for pid in dispatchers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    delivered = {
        row.id for row in world.rows(tables.outcomes, tables.outcomes.c.state == "DELIVERED")
    }
    received = Counter(request.headers["webhook-id"] for request in outside.to("/x"))
    assert kills == 8
    assert len(delivered) == EFFECTS
    assert set(received) == delivered
    assert world.rows(tables.dead_letters) == []


def deque_of_faults(chance: random.Random) -> deque[Answer]:
    """Some answers that make an attempt fail."""
    faults = [Answer(500), Answer(reset=True), Answer()]
    return deque(chance.choice(faults) for _ in range(40))
