"""Routers that die anywhere, and routers that work on the same entries at the same time."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from routing_world import Crash, World, crash_at_statement, dropped, event

from augury.bus import relay
from augury.bus.redis_bus import RedisBus
from augury.routing import router as router_module
from augury.routing.router import Router
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

LANDED = {"type": ["augury.object.created"]}


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[World]:
    world = World(database, live_settings)
    world.job()
    world.rule("landing", LANDED)
    world.rule("holes", LANDED, [{"start_run": {"job": "score", "output": "${data.no}"}}])
    world.rule("things", {"type": ["acme.thing"]})
    world.drain()
    yield world
    world.bus.close()


def batch(mark: str) -> list[dict[str, Any]]:
    """Every kind of thing that routing decides."""
    return [
        dropped(f"{mark}/a", id=f"{mark}1"),
        dropped(f"{mark}/a", id=f"{mark}2"),
        event(id=f"{mark}3", n=1),
        event(id=f"{mark}3", n=2),
        event("acme.other", id=f"{mark}4"),
        {"no": "event"},
    ]


def decided(mark: str) -> list[tuple[str, str, str | None]]:
    missing = "nothing at data.no"
    return [
        (f"{mark}1", "DEAD", missing),
        (f"{mark}1", "STARTED", None),
        (f"{mark}2", "DEAD", missing),
        (f"{mark}2", "SUPPRESSED", "same object"),
        (f"{mark}3", "STARTED", None),
        (f"{mark}3", "SUPPRESSED", "duplicate, payload differs"),
    ]


def found(world: World, mark: str) -> list[tuple[str, str, str | None]]:
    shown = [
        (event_id, state, "nothing at data.no" if reason and "data.no" in reason else reason)
        for event_id, _, state, reason in world.outcomes()
        if event_id.startswith(mark)
    ]
    return sorted(shown, key=str)


def test_a_crash_before_any_sql_statement_neither_loses_nor_doubles(world: World) -> None:
    buried = len(world.buried())
    for number in range(200):
        mark = f"m{number}-"
        world.publish(*batch(mark))
        crashed = False
        with crash_at_statement(world.database, number) as executed:
            try:
                world.router().step()
            except Crash:
                crashed = True
        world.drain()
        buried += 1
        assert found(world, mark) == sorted(decided(mark), key=str), executed[-1:]
        assert len(world.buried()) == buried
        if not crashed:
            break
    else:
        raise AssertionError("a step has more than 200 statements")
    assert number > 10
    world.check_laws()


STEPS = [
    (RedisBus, "read"),
    (RedisBus, "claim_stale"),
    (router_module, "read_deliveries"),
    (Database, "transact"),
    (Router, "_follow_up"),
    (router_module, "wake"),
    (RedisBus, "ack"),
    (relay, "flush"),
    (RedisBus, "publish"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=str)
def test_a_crash_around_any_step_neither_loses_nor_doubles(
    world: World, owner: Any, name: str, when: str
) -> None:
    world.publish(*batch("m"))
    real = getattr(owner, name)

    def crashing(*arguments: Any, **keywords: Any) -> None:
        if when == "after":
            real(*arguments, **keywords)
        raise Crash(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, crashing)
        with pytest.raises(Crash):
            world.router().step()
    world.drain()
    assert found(world, "m") == sorted(decided("m"), key=str)
    assert len(world.buried()) == 1
    # the relay sends what a dead router had claimed; then nothing is left to say
    relay.flush(world.database, world.bus, resend_s=0.0)
    world.drain()
    assert world.rows(tables.outbox) == []
    world.check_laws()


def test_routed_entries_that_come_again_are_only_acknowledged(world: World) -> None:
    world.publish(*batch("m"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisBus, "ack", lambda *_: None)
        world.drain_steps(3)
    before = (world.rows(tables.events), world.rows(tables.outcomes), world.rows(tables.runs))
    woken = Counter(world.executor.woken)
    world.drain()
    after = (world.rows(tables.events), world.rows(tables.outcomes), world.rows(tables.runs))
    assert after == before
    assert world.executor.woken == woken
    world.check_laws()


def test_an_entry_id_given_twice_by_a_bus_that_went_back_is_not_swallowed(world: World) -> None:
    import redis

    (entry_id,) = world.publish(event(id="one"))
    world.drain()
    stream = f"{world.settings.namespace}:events"
    with redis.Redis.from_url(world.settings.effective_redis_url) as server:
        other = {"i": world.bus.incarnation(), "e": b'{"source":"s","id":"two","type":"t"}'}
        server.delete(stream)
        server.xadd(stream, other, id=entry_id)  # the incarnation is still there
        world.drain()
    (letter,) = world.buried()
    assert "two" in letter.payload
    assert "routed before" in letter.reason


def test_buried_and_routed_exclude_each_other(world: World) -> None:
    """One router buries an entry while another, which took it before, routes it."""
    from augury.routing.dead_letters import Burial, bury

    world.publish(event(id="a"), event(id="b"))
    routes = world.router()
    held = routes._take(0.0)
    bury(world.database, [Burial(delivery=held[0], reason="failed elsewhere")])
    routes._settle(held)
    assert [
        row.event_id for row in world.rows(tables.events, tables.events.c.source == "/test")
    ] == ["b"]
    assert bury(world.database, [Burial(delivery=held[1], reason="late")]) == 0
    assert len(world.buried()) == 1
    world.check_laws()


def test_routers_that_fight_over_every_entry_agree(world: World) -> None:
    """Each claims what the others took a moment ago, so most entries are routed several times."""
    seeded = random.Random(7)
    documents = [dropped(f"k{n % 90}", id=f"d{n % 230}") for n in range(300)]
    documents += [event(id=f"t{n % 200}", n=n % 3) for n in range(300)]
    seeded.shuffle(documents)
    for start in range(0, len(documents), 60):
        world.publish(*documents[start : start + 60])
    errors: list[BaseException] = []

    def work(number: int) -> None:
        routes = world.router(router_claim_idle_s=0.0001, router_batch=20 + 7 * number)
        try:
            for _ in range(400):
                routes.step(0.0)
                status = world.bus.status()
                if not (status.pending or status.lag):
                    return
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    world.drain()
    assert errors == []
    states = Counter(row[2] for row in world.outcomes() if row[0].startswith(("d", "t")))
    first_ids = {f"d{n % 230}": f"k{n % 90}" for n in range(300)}
    assert len(world.rows(tables.events, tables.events.c.source == "/test")) == 600
    assert states["STARTED"] == 200 + len(
        {run.spec["input"][0]["uri"] for run in world.rows(tables.runs) if run.spec["input"]}
    )
    assert len(first_ids) == 230
    assert world.buried() == []
    world.check_laws()


def test_an_entry_that_kills_every_router_is_buried_and_its_neighbours_are_not(
    world: World,
) -> None:
    world.publish(event(id="good0"), event(id="deadly"), *(event(id=f"more{n}") for n in range(5)))
    decide = router_module.ActiveRules.decide

    def deadly(self: Any, arrivals: Any) -> Any:
        if any(arrival.event_id == "deadly" for arrival in arrivals):
            raise Crash
        return decide(self, arrivals)

    deaths = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router_module.ActiveRules, "decide", deadly)
        while deaths < 100:
            try:
                world.drain()
            except Crash:
                deaths += 1
            else:
                break
    (letter,) = world.buried()
    assert "deadly" in letter.payload
    assert "handed out 25 times" in letter.reason
    assert deaths == 24
    assert sum(row[2] == "STARTED" for row in world.outcomes()) == 6
    world.check_laws()
