"""Each invariant of effects and dead letters: broken alone, audit names it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audit_world import AuditWorld, Corruptions, Snapshot, sqlite_settings
from routing_world import event

from augury import clock
from augury.actions import effects as store
from augury.actions.failures import DeliveryError
from augury.jobs import workers
from augury.processes.valkey import ValkeyServer
from augury.routing import dead_letters as letters
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import dead_letters, effects, outcomes

_CORRUPTIONS = Corruptions[AuditWorld]()
TARGET = "https://hooks.example.com"


def fill(world: AuditWorld) -> None:
    """An effect in every state: delivered, tried again, dead, discarded, in hand, waiting."""
    database = world.database
    hook = {"notify": {"webhook": {"url": f"{TARGET}/x"}}}
    world.rule("r", {"type": ["acme.thing"]}, [hook, {"start_run": {"job": "missing"}}])
    world.publish(*(event(id=f"e{number}") for number in range(6)))
    world.drain()
    for worker_id in ("alive", "gone"):
        database.transact(
            lambda c, name=worker_id: workers.register(  # type: ignore[misc]
                c, name, host="h", pid=1, queues=["effects"], cpus=0
            )
        )
    held = database.transact(lambda c: store.claim(database, c, "alive", TARGET, 5))
    permanent = DeliveryError("410", is_permanent=True)
    ends = [None, DeliveryError("500"), permanent, permanent]
    database.transact(lambda c: store.report(c, list(zip(held, ends, strict=False))))
    letter = _letter(world, held[3].id)
    database.transact(lambda c: letters.discard(database, c, letter.id))
    database.transact(lambda c: workers.stop(c, "gone"))


def _letter(world: AuditWorld, outcome_id: str) -> sa.Row[Any]:
    return world.rows(dead_letters, dead_letters.c.outcome_id == outcome_id)[0]


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[AuditWorld, Snapshot]]:
    settings = sqlite_settings(tmp_path_factory.mktemp("audit"), _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    world = AuditWorld(database, settings)
    fill(world)
    yield world, Snapshot(database)
    world.bus.close()
    database.close()


@pytest.fixture
def world(_shared: tuple[AuditWorld, Snapshot]) -> Iterator[AuditWorld]:
    world, snapshot = _shared
    yield world
    snapshot.restore()


def _effect(world: AuditWorld, state: str, attempts: int = 1) -> sa.Row[Any]:
    return world.rows(effects, effects.c.state == state, effects.c.attempts == attempts)[0]


def _set(world: AuditWorld, table: sa.Table, row_id: str, **values: Any) -> None:
    world.change(sa.update(table).where(table.c.id == row_id).values(**values))


@_CORRUPTIONS.breaks("outcome_effect")
def a_queued_outcome_without_its_effect(world: AuditWorld) -> None:
    world.change(sa.delete(effects).where(effects.c.id == _effect(world, "WAITING", 0).id))


@_CORRUPTIONS.breaks("outcome_effect")
def a_delivered_outcome_without_its_effect(world: AuditWorld) -> None:
    world.change(sa.delete(effects).where(effects.c.id == _effect(world, "DELIVERED").id))


@_CORRUPTIONS.breaks("outcome_effect")
def an_effect_that_is_final_while_its_outcome_is_open(world: AuditWorld) -> None:
    _set(world, outcomes, _effect(world, "DELIVERED").id, state="QUEUED")


@_CORRUPTIONS.breaks("outcome_effect")
def an_outcome_that_is_final_while_its_effect_waits(world: AuditWorld) -> None:
    _set(world, outcomes, _effect(world, "WAITING", 0).id, state="DELIVERED")


@_CORRUPTIONS.breaks("effect_attempt")
def an_effect_that_was_delivered_by_nobody(world: AuditWorld) -> None:
    _set(world, effects, _effect(world, "DELIVERED").id, attempts=0, first_attempt_at=None)


@_CORRUPTIONS.breaks("effect_attempt")
def an_effect_that_is_tried_again_and_never_was(world: AuditWorld) -> None:
    _set(world, effects, _effect(world, "WAITING", 1).id, attempts=0)


@_CORRUPTIONS.breaks("outcome_letter")
def a_dead_outcome_without_its_letter(world: AuditWorld) -> None:
    row = world.rows(outcomes, outcomes.c.state == "DEAD", outcomes.c.action == "start_run")[0]
    world.change(sa.delete(dead_letters).where(dead_letters.c.outcome_id == row.id))


@_CORRUPTIONS.breaks("outcome_letter")
def a_letter_that_would_act_a_second_time(world: AuditWorld) -> None:
    letter = world.rows(dead_letters, dead_letters.c.state == "DISCARDED")[0]
    _set(world, dead_letters, letter.id, state="OPEN")


@_CORRUPTIONS.breaks("effect_outcome")
def an_effect_that_nobody_decided(world: AuditWorld) -> None:
    row = _effect(world, "WAITING", 0)
    world.change(sa.insert(effects).values(**{**row._mapping, "id": "out_nobody"}))


@_CORRUPTIONS.breaks("effect_lease")
def an_effect_in_the_hands_of_a_process_that_is_gone(world: AuditWorld) -> None:
    long_ago = clock.utc_now() - timedelta(hours=1)
    row = _effect(world, "LEASED")
    _set(world, effects, row.id, worker_id="gone", last_attempt_at=long_ago)


@_CORRUPTIONS.breaks("effect_lease")
def an_effect_in_the_hands_of_nobody(world: AuditWorld) -> None:
    long_ago = clock.utc_now() - timedelta(hours=1)
    row = _effect(world, "LEASED")
    _set(world, effects, row.id, worker_id="nobody", last_attempt_at=long_ago)


def test_effects_in_every_state_are_right(world: AuditWorld) -> None:
    states = sorted(row.state for row in world.rows(effects))
    assert states == ["DEAD", "DEAD", "DELIVERED", "LEASED", "WAITING", "WAITING"]
    assert world.broken() == set()


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_audit_names_what_is_broken(world: AuditWorld, check: str, corrupt: Any) -> None:
    corrupt(world)
    assert world.broken() == {check}


def test_every_check_does_the_same_on_postgres(
    postgres_database: Database, settings: Settings, bus_url: str
) -> None:
    wired = settings.model_copy(
        update={"database_url": postgres_database.url, "redis_url": bus_url}
    )
    world = AuditWorld(postgres_database, wired)
    fill(world)
    assert world.broken() == set()
    snapshot = Snapshot(postgres_database)
    for check, corrupt in _CORRUPTIONS:
        corrupt(world)
        assert world.broken() == {check}, corrupt.__name__
        snapshot.restore()
    world.bus.close()
