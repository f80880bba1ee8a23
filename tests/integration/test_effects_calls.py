"""Functions called by workers: registered, woken, tried again, given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import functions_for_calls as registered
import pytest
from effects_world import QUICK, EffectsWorld
from routing_world import event

from augury.actions import effects
from augury.execution.local_executor import LocalExecutor
from augury.execution.sweeper import Sweeper
from augury.jobs import workers as workers_of


def call(function: str, **fields: Any) -> dict[str, Any]:
    return {"call": {"function": function, "retry": QUICK, **fields}, "name": function}


@pytest.fixture
def workers(effects_world: EffectsWorld) -> Iterator[LocalExecutor]:
    """One worker that is woken through memory."""
    registered.CALLS.clear()
    registered.RELEASE.clear()
    settings = effects_world.settings.model_copy(
        update={"functions": "functions_for_calls", "drain_s": 0.5}
    )
    executor = LocalExecutor(effects_world.database, settings, queues=("call",)).start()
    effects_world.executor = executor
    yield executor
    registered.RELEASE.set()
    executor.close()


def settle(world: EffectsWorld) -> None:
    """Sweeps until nothing is open: a second attempt is woken by the sweeper."""
    sweeper = Sweeper(world.database, world.executor, world.settings)
    world.until(lambda: sweeper.sweep() or not world.open())


def test_a_function_is_called_with_event_and_arguments(
    effects_world: EffectsWorld, workers: LocalExecutor
) -> None:
    sent = event(id="a", n=5)
    effects_world.owe(call("remember", arguments={"n": "${data.n}"}), events=[sent])
    effects_world.until(lambda: not effects_world.open())  # the router woke the worker
    (made,) = registered.CALLS
    (effect,) = effects_world.effects()
    assert (made.id, made.attempt, made.action) == (effect.id, 1, "remember")
    assert (made.event, made.arguments) == (sent, {"n": 5})
    assert effects_world.states() == [("a", "DELIVERED", None)]


def test_what_it_raises_decides_about_another_attempt(
    effects_world: EffectsWorld, workers: LocalExecutor
) -> None:
    effects_world.owe(call("flaky-name"), call("refuse"), call("nobody"), events=[event(id="a")])
    settle(effects_world)
    found = {action: (state, reason) for _, action, state, reason in effects_world.outcomes()}
    assert found["flaky-name"] == ("DELIVERED", None)
    assert found["refuse"] == ("DEAD", "no such customer")
    assert "no function 'nobody' is registered here; there are: " in str(found["nobody"][1])
    assert [made.attempt for made in registered.CALLS] == [1, 2, 3]
    assert len({made.id for made in registered.CALLS}) == 1


def test_a_function_that_hangs_does_not_hold_the_worker(
    effects_world: EffectsWorld, workers: LocalExecutor
) -> None:
    once = {**QUICK, "max_attempts": 1}
    effects_world.owe(
        call("hang", timeout_s=0.2, retry=once), call("remember"), events=[event(id="a")]
    )
    settle(effects_world)
    found = {action: (state, reason) for _, action, state, reason in effects_world.outcomes()}
    assert "not ended within 0.2 s" in str(found["hang"][1])
    assert found["remember"] == ("DELIVERED", None)


def test_a_worker_that_stops_gives_a_call_back(
    effects_world: EffectsWorld, workers: LocalExecutor
) -> None:
    effects_world.owe(call("hang"), events=[event(id="a")])
    effects_world.until(lambda: registered.CALLS)
    workers.close()
    (effect,) = effects_world.effects()
    assert (effect.state, effect.attempts) == ("WAITING", 1)
    assert "the worker had to stop" in effect.last_error


def test_what_a_lost_worker_held_is_called_again(effects_world: EffectsWorld) -> None:
    effects_world.owe(call("remember"), events=[event(id="a")])
    assert effects_world.executor.woken == {"call": 1}
    database = effects_world.database
    database.transact(
        lambda c: workers_of.register(c, "w", host="h", pid=1, queues=["call"], cpus=1)
    )
    taken = database.transact(lambda c: effects.claim(database, c, "w", "call remember", 5))
    assert [effect.attempts for effect in taken] == [1]
    assert database.transact(lambda c: effects.expire(database, c, "w", 7)) == ()
    assert len(database.transact(lambda c: effects.expire(database, c, "w", 0))) == 1
    (effect,) = effects_world.effects()
    assert (effect.state, effect.worker_id) == ("WAITING", None)
    assert effects_world.states()[0][1] == "RETRYING"
