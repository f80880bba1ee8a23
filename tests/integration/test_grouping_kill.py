"""For a fixed stream the groups are the same, however many routers work and die on it.

The stream is written with ids of the test's own, so that accepted times are fixed, too. What the
groups must be is computed by the pure fold over the events in order, each counted where it came
first; what they are is made by router processes under kill -9.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis
import sqlalchemy as sa
from grouping_world import LANDED, GroupingWorld
from routing_world import WakeUps, dropped, event

from augury import clock
from augury.bus.redis_bus import RedisBus
from augury.routing.router import Router
from augury.rules.group_spec import GroupSpec
from augury.rules.grouping import Member, advance, policy_of
from augury.rules.membership import membership
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

GROUPS: Mapping[str, dict[str, Any]] = {
    "batch": {"batch": {"max_events": 7, "max_wait_s": 20}, "group_by": ["folder(data.key)"]},
    "bytes": {"batch": {"max_bytes": 9, "max_wait_s": 40}},
    "quiet": {"quiet": {"after_s": 4, "max_events": 50}, "group_by": ["folder(data.key)"]},
    "complete": {"complete": {"expected": 5, "max_wait_s": 60, "if_incomplete": "start"}},
    "latest": {"latest": {"max_wait_s": 5}},
    "at_least": {"at_least": {"events": 4, "within_s": 6}, "group_by": ["folder(data.key)"]},
    "absent": {"absent": {"for_s": 9}, "group_by": ["folder(data.key)"]},
}
NUM_EVENTS = 150


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[GroupingWorld]:
    changes = {"router_claim_idle_s": 0.2, "router_batch": 16}
    world = GroupingWorld(database, live_settings.model_copy(update=changes))
    world.job()
    for name, group in GROUPS.items():
        world.rule(name, LANDED, group=group)
    yield world
    world.bus.close()


def stream(chance: random.Random) -> list[tuple[int, dict[str, Any]]]:
    """(accepted at in ms, event) in order; some events come twice, some objects in two events."""
    # later than now: the server never finds that such a time is over
    now_ms = int(clock.utc_now().timestamp() * 1000) + 3_600_000
    found: list[tuple[int, dict[str, Any]]] = []
    for number in range(NUM_EVENTS):
        now_ms += chance.choice([0, 1, 50, 300, 1500, 4000, 11_000])
        if found and chance.random() < 0.2:
            _, again = chance.choice(found[-20:])
            same_id = chance.random() < 0.5
            found.append((now_ms, again if same_id else {**again, "id": f"again{number}"}))
        else:
            sent = dropped(f"{chance.choice('abc')}/k{number}", id=f"e{number}")
            sent["data"]["size_bytes"] = chance.randrange(6)
            found.append((now_ms, sent))
    # the present that closes whatever waits for its time
    return [*found, (now_ms + 3_600_000, event(id="end"))]


def fork_router(settings: Settings) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        database = Database(settings.effective_database_url)
        bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)
        Router(database, bus, WakeUps(), settings).run(threading.Event())
    finally:
        os._exit(1)


def expected_groups(
    name: str, sent: Sequence[tuple[str, int, dict[str, Any]]]
) -> list[tuple[str, str, tuple[str, ...]]]:
    """(key, why, objects) of each group, by the pure fold."""
    spec = GroupSpec.model_validate(GROUPS[name])
    lanes: dict[str, list[Member]] = {}
    known: set[str] = set()
    for order, at_ms, document in sent:
        identity = document["data"].get("identity")
        if identity is None or identity in known:
            continue
        known.add(identity)
        joins = membership(spec, document)
        member = Member(
            name=identity,
            order=order,
            at=datetime.fromtimestamp(at_ms / 1000, UTC),
            size_bytes=joins.size_bytes,
            subject=str(joins.uri),
            expected=joins.expected,
        )
        lanes.setdefault(joins.key, []).append(member)
    end = datetime.fromtimestamp(sent[-1][1] / 1000, UTC)
    found = []
    for key, members in lanes.items():
        progress = advance(policy_of(spec), None, members, end)
        for group in progress.closed:
            names = [n for n, first in progress.joined.items() if first == group.first]
            found.append((key, str(group.why), tuple(names)))
    return sorted(found)


def found_groups(world: GroupingWorld, name: str) -> list[tuple[str, str, tuple[str, ...]]]:
    groups, members = tables.groups, tables.group_members
    select = (
        sa.select(groups.c.id, groups.c.why, tables.lanes.c.key, tables.outcomes.c.occurrence)
        .join(members, members.c.group_id == groups.c.id)
        .join(tables.lanes, tables.lanes.c.id == groups.c.lane_id)
        .join(tables.outcomes, tables.outcomes.c.id == members.c.outcome_id)
        .join(tables.rules, tables.rules.c.id == groups.c.rule_id)
        .where(tables.rules.c.name == name)
        .order_by(members.c.entry_order)
    )
    found: dict[str, tuple[str, str, list[str]]] = {}
    with world.database.read() as connection:
        for row in connection.execute(select):
            names = found.setdefault(row.id, (row.key, row.why, []))[2]
            names.append(row.occurrence.removeprefix("object:"))
    return sorted((key, why, tuple(names)) for key, why, names in found.values())


@pytest.mark.slow
def test_killed_routers_make_the_groups_that_the_stream_says(
    world: GroupingWorld, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(request.node.name)
    sent = stream(chance)
    server = redis.Redis.from_url(world.settings.effective_redis_url)
    key = f"{world.settings.namespace}:events"
    world.publish(event(id="first"))  # makes the incarnation
    life = world.bus.incarnation()
    routers = [fork_router(world.settings) for _ in range(3)]
    orders, kills = [], 0
    try:
        for number, (at_ms, document) in enumerate(sent):
            fields = {"i": str(life), "e": msgspec.json.encode(document)}
            entry_id = server.xadd(key, fields, id=f"{at_ms}-*").decode()
            milliseconds, _, sequence = entry_id.partition("-")
            orders.append((f"{int(milliseconds):015}-{int(sequence):020}", at_ms, document))
            if number % 10 == 0:
                clock.sleep_s(chance.uniform(0.0, 0.05))
                victim = chance.randrange(len(routers))
                os.kill(routers[victim], signal.SIGKILL)
                os.waitpid(routers[victim], 0)
                routers[victim] = fork_router(world.settings)
                kills += 1
    finally:
        for pid in routers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        server.close()
    world.settle()
    assert kills > 10
    for name in GROUPS:
        assert found_groups(world, name) == expected_groups(name, orders), name
    assert world.rows(tables.dead_letters) == []
    states = {row.state for row in world.rows(tables.groups)}
    assert states == {"STARTED"}
    world.check()


def test_a_later_duplicate_that_was_routed_first_takes_the_earlier_place(
    world: GroupingWorld,
) -> None:
    """Of two routers the one with the later delivery commits first."""
    first, second = dropped("a/one", id="one"), dropped("a/one", id="two")
    between = dropped("a/between", id="between")
    world.publish(first, dropped("a/twice", id="twice"), between, second)
    world.publish(dropped("a/twice", id="twice"))
    routers = [world.router(router_batch=2), world.router(router_batch=3)]
    held = [router._take(0.0) for router in routers]
    assert [len(deliveries) for deliveries in held] == [2, 3]
    routers[1]._settle(held[1])
    routers[1]._grouper.group()
    assert world.groups() == []  # the watermark stands before what is not routed
    routers[0]._settle(held[0])
    world.settle()
    batch = next(row for row in world.rows(tables.rules) if row.name == "batch")
    joined = tables.group_members.join(
        tables.groups, tables.groups.c.id == tables.group_members.c.group_id
    )
    select = (
        sa.select(tables.group_members.c.uri)
        .select_from(joined)
        .where(tables.groups.c.rule_id == batch.id)
        .order_by(tables.group_members.c.entry_order)
    )
    with world.database.read() as connection:
        uris = list(connection.scalars(select))
    assert uris == ["file:///in/a/one", "file:///in/a/twice", "file:///in/a/between"]
    world.check()
