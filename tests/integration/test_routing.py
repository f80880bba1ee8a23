"""Routing on real services: what ends up in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from routing_world import World, dropped, event

from augury import clock
from augury.bus.outbox import emit
from augury.errors import NotFoundError, UnavailableError
from augury.events.envelope import new_event
from augury.jobs.states import OutcomeState
from augury.routing import dead_letters, ledger, router
from augury.routing.history import History
from augury.routing.ledger import EventFilter
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

LANDED = {"type": ["augury.object.created"]}


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[World]:
    world = World(database, live_settings)
    yield world
    world.bus.close()


def test_an_event_that_nobody_wants_is_in_the_ledger(world: World) -> None:
    (entry_id,) = world.publish(event(id="a", n=1))
    assert world.router().step() == 1
    (row,) = world.rows(tables.events)
    assert (row.event_id, row.type, row.matched, row.duplicate_of) == ("a", "acme.thing", [], None)
    assert (row.entry_id, row.incarnation) == (entry_id, world.bus.incarnation())
    assert abs(row.accepted_at - clock.utc_now()) < timedelta(minutes=1)
    assert world.outcomes() == []
    world.check_laws()


def test_nothing_to_do_is_zero(world: World) -> None:
    assert world.router().step() == 0


def test_a_matching_event_starts_a_run(world: World) -> None:
    world.job(columns=["id"])
    rule_id = world.rule("landing", LANDED)
    world.publish(dropped("a.parquet", id="a"), event(id="b"))
    routes = world.router()
    routes.step()
    assert world.outcomes() == [("a", "start_run", "STARTED", None)]
    (run,) = world.rows(tables.runs)
    assert run.spec["input"] == [{"uri": "file:///in/a.parquet", "tag": "t1"}]
    (outcome,) = world.rows(tables.outcomes)
    assert (outcome.rule_id, outcome.rule_version, outcome.epoch) == (rule_id, 1, "0")
    assert (outcome.run_id, run.position) == (run.id, outcome.position)
    assert outcome.occurrence == "object:file:///in/a.parquet#t1"
    assert world.executor.woken == {"mini_batch": 1}
    world.drain(routes)
    assert "augury.run.accepted" in {row.type for row in world.rows(tables.events)}
    world.check_laws()


def test_our_own_events_leave_the_outbox_when_the_ledger_holds_them(world: World) -> None:
    world.job()
    world.rule("landing", LANDED)
    world.publish(dropped("a"))
    routes = world.router()
    routes.step()
    sent = {row.event_id for row in world.rows(tables.outbox) if row.sent_at is not None}
    assert any(event_id.endswith(":ACCEPTED") for event_id in sent)
    routes.step()
    left = {row.event_id for row in world.rows(tables.outbox) if row.sent_at is not None}
    assert left == set()
    world.check_laws()


def test_each_action_has_its_own_outcome_and_run(world: World) -> None:
    world.job()
    actions = [{"start_run": {"job": "score"}}, {"name": "again", "start_run": {"job": "score"}}]
    world.rule("landing", LANDED, actions)
    world.rule("other", LANDED)
    world.publish(dropped("a", id="a"))
    world.drain()
    assert [row[:3] for row in world.outcomes()] == [
        ("a", "again", "STARTED"),
        ("a", "start_run", "STARTED"),
        ("a", "start_run", "STARTED"),
    ]
    world.check_laws()


@pytest.mark.parametrize("together", [True, False])
def test_duplicates_are_recorded_and_suppressed(world: World, together: bool) -> None:
    world.job()
    world.rule("things", {"type": ["acme.thing"]})
    same = event(id="a", n=1)
    shuffled = dict(reversed(same.items()))
    batches = [[same, shuffled, {**same, "data": {"n": 2}}]]
    for batch in batches if together else [[item] for item in batches[0]]:
        world.publish(*batch)
        world.drain()
    assert world.outcomes() == [
        ("a", "start_run", "STARTED", None),
        ("a", "start_run", "SUPPRESSED", "duplicate"),
        ("a", "start_run", "SUPPRESSED", "duplicate, payload differs"),
    ]
    first, *others = world.rows(tables.events, tables.events.c.event_id == "a")
    assert [row.duplicate_of for row in others] == [first.position] * 2
    world.check_laws()


def test_the_same_object_again_is_suppressed(world: World) -> None:
    world.job()
    world.rule("landing", LANDED)
    world.publish(dropped("a", id="1"), dropped("a", id="2"), dropped("a", tag="t2", id="3"))
    world.drain()
    world.publish(dropped("a", id="4"))
    world.drain()
    assert world.outcomes() == [
        ("1", "start_run", "STARTED", None),
        ("2", "start_run", "SUPPRESSED", "same object"),
        ("3", "start_run", "STARTED", None),
        ("4", "start_run", "SUPPRESSED", "same object"),
    ]
    world.check_laws()


def test_an_event_that_outlived_its_key_does_not_run_again(world: World) -> None:
    world.job()
    world.rule("things", {"type": ["acme.thing"]})
    world.publish(event(id="a"))
    world.drain()
    world.database.transact(lambda c: c.execute(tables.event_keys.delete()))
    world.publish(event(id="a"))
    world.drain()
    assert [row[3] for row in world.outcomes()] == [None, "same occurrence"]


def test_what_cannot_be_started_is_dead_and_claims_nothing(world: World) -> None:
    world.rule("landing", LANDED)
    world.rule(
        "holes", LANDED, [{"name": "holes", "start_run": {"job": "x", "output": "${data.no}"}}]
    )
    world.publish(dropped("a", id="1"))
    world.drain()
    outcomes = world.outcomes()
    assert [row[:3] for row in outcomes] == [("1", "holes", "DEAD"), ("1", "start_run", "DEAD")]
    assert "nothing at data.no" in str(outcomes[0][3])
    assert outcomes[1][3] == "no job named 'score'"
    world.job()
    world.publish(dropped("a", id="2"))
    world.drain()
    assert ("2", "start_run", "STARTED", None) in world.outcomes()
    world.check_laws()


def test_a_stored_rule_whose_actions_no_longer_parse_is_dead_not_poison(world: World) -> None:
    world.rule("old", LANDED, [{"start_run": {"job": "score", "gone": 1}}])
    world.publish(dropped("a", id="1"))
    world.drain()
    ((_, action, state, reason),) = world.outcomes()
    assert (action, state) == ("invalid", "DEAD")
    assert "start_run.gone" in str(reason)


def test_disabled_and_deleted_rules_do_not_match(world: World) -> None:
    world.job()
    world.rule("off", LANDED, enabled=False)
    world.rule("gone", LANDED)
    routes = world.router()
    routes.step()  # has the rules in memory now
    world.drop_rule("gone")
    world.publish(dropped("a", id="1"))
    world.drain(routes)
    assert world.outcomes() == []


def test_a_rule_applied_before_a_publish_is_seen_by_a_running_router(world: World) -> None:
    world.job()
    routes = world.router()
    world.publish(event())
    routes.step()
    world.rule("things", {"type": ["acme.thing"]})
    world.publish(event(id="a"))
    world.drain(routes)
    assert ("a", "start_run", "STARTED", None) in world.outcomes()


def test_rules_that_move_while_a_batch_is_decided_are_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.job()
    world.rule("things", {"type": ["nothing"]})
    decide = router.ActiveRules.decide
    moves = iter(["acme.other", "acme.thing"])

    def moving(self, arrivals):  # type: ignore[no-untyped-def]
        decisions = decide(self, arrivals)
        if (event_type := next(moves, None)) is not None:
            world.rule("things", {"type": [event_type]})
        return decisions

    monkeypatch.setattr(router.ActiveRules, "decide", moving)
    world.publish(event(id="a"))
    world.router().step()
    assert world.outcomes() == [("a", "start_run", "STARTED", None)]
    (row,) = world.rows(tables.events)
    assert row.ruleset_version == max(r.version for r in world.rows(tables.rulesets))


NOT_EVENTS = [
    b"{not json",
    b"\xff\xfe\x00",
    b"[]",
    b'{"specversion":"1.0","id":"x","type":"t"}',
    b'{"specversion":"1.0","source":"s","id":"","type":"t"}',
    b'{"specversion":"1.0","source":"s\\u0000","id":"x","type":"t"}',
    b'{"specversion":"1.0","source":"' + b"s" * 3000 + b'","id":"x","type":"t"}',
    b'{"data":' + b"[" * 100_000,
]


def test_what_is_no_event_is_buried_at_once_beside_good_ones(world: World) -> None:
    world.publish(event(id="a"))
    world.bus.publish(NOT_EVENTS)
    world.publish(event(id="b"))
    assert world.drain() == len(NOT_EVENTS) + 2
    assert [row.event_id for row in world.rows(tables.events)] == ["a", "b"]
    with world.database.read() as connection:
        buried = dead_letters.list_dead_letters(connection)
        assert ledger.count_events(connection)["dead_letters"] == len(NOT_EVENTS)
    assert {letter.state for letter in buried} == {dead_letters.DeadLetterState.OPEN}
    assert {letter.attempts for letter in buried} == {0}
    payloads = {letter.payload for letter in buried}
    assert {"{not json", "[]", "\\xff\\xfe\\x00"} <= payloads
    world.check_laws()


def test_odd_but_valid_events_are_routed(world: World) -> None:
    odd = [
        event(id="nul", text="\x00"),
        {**event(id="subject"), "subject": "a\x00b"},
        {**event(id="number"), "subject": 7},
        {**event(id="é" * 512), "type": "t" * 1024},
        dropped("x" * 5000, id="long"),
        dropped("a\x00b", id="nul key"),
        event(id="big", n=10**40),
    ]
    world.job()
    world.rule("all", {"specversion": ["1.0"], "source": ["/test"]})
    world.publish(*odd)
    world.drain()
    assert {row.event_id for row in world.rows(tables.events)} >= {str(e["id"]) for e in odd}
    assert world.rows(tables.dead_letters) == []
    world.check_laws()


def test_a_poisonous_event_is_divided_out_and_buried_after_five_attempts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []
    decide = router.ActiveRules.decide

    def poisoned(self, arrivals):  # type: ignore[no-untyped-def]
        if any(arrival.event_id == "poison" for arrival in arrivals):
            alone.extend(arrivals if len(arrivals) == 1 else [])
            raise RuntimeError("cannot \x00 swallow")
        return decide(self, arrivals)

    monkeypatch.setattr(router.ActiveRules, "decide", poisoned)
    world.job()
    world.rule("things", {"type": ["acme.thing"]})
    world.publish(*(event(id=f"good{n}") for n in range(10)), event(id="poison"))
    world.publish(*(event(id=f"more{n}") for n in range(10)))
    world.router().step()
    assert len(alone) == 5
    (letter,) = world.rows(tables.dead_letters)
    assert "RuntimeError: cannot" in letter.reason
    assert letter.attempts == 5
    assert sum(row[2] == "STARTED" for row in world.outcomes()) == 20
    world.check_laws()


def test_an_event_that_recovers_alone_is_routed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = router.ActiveRules.decide
    failures = iter(range(4))

    def flaky(self, arrivals):  # type: ignore[no-untyped-def]
        if next(failures, None) is not None:
            raise RuntimeError("not yet")
        return decide(self, arrivals)

    monkeypatch.setattr(router.ActiveRules, "decide", flaky)
    world.publish(event(id="a"))
    world.router().step()
    assert [row.event_id for row in world.rows(tables.events)] == ["a"]
    assert world.rows(tables.dead_letters) == []


def test_an_outage_neither_divides_nor_buries_and_keeps_the_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = world.router()
    world.publish(*(event() for _ in range(5)))
    transact = Database.transact
    outage = iter(range(4))

    def down(self, work):  # type: ignore[no-untyped-def]
        if next(outage, None) is not None:
            raise UnavailableError("database is away")
        return transact(self, work)

    monkeypatch.setattr(Database, "transact", down)
    with pytest.raises(UnavailableError):
        routes.step()
    stop = threading.Event()
    thread = threading.Thread(target=routes.run, args=(stop,))
    thread.start()
    try:
        for _ in range(1000):
            if len(world.rows(tables.events)) == 5:
                break
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join(20)
    assert len(world.rows(tables.events)) == 5
    assert world.rows(tables.dead_letters) == []


def test_rules_that_cannot_be_loaded_stop_routing_and_lose_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(event(id="a"))

    def broken(connection, version):  # type: ignore[no-untyped-def]
        raise RuntimeError("pattern of yesterday")

    with monkeypatch.context() as patch:
        patch.setattr(router, "load_ruleset", broken)
        with pytest.raises(UnavailableError, match="pattern of yesterday"):
            world.router().step()
    assert world.rows(tables.dead_letters) == []
    world.drain()
    assert [row.event_id for row in world.rows(tables.events)] == ["a"]


def test_workers_that_cannot_be_woken_do_not_hold_routing(world: World) -> None:
    class Broken:
        def wake(self, queue: str, count: int = 1) -> None:
            raise OSError("broker away")

        def depth(self, queue: str) -> int:
            return 0

    world.job()
    world.rule("landing", LANDED)
    world.executor = Broken()  # type: ignore[assignment]
    world.publish(dropped("a"))
    world.drain()
    assert len(world.rows(tables.runs)) == 1
    world.check_laws()


def test_run_routes_what_arrives_and_retires(world: World) -> None:
    world.job()
    world.rule("landing", LANDED)
    routes, stop = world.router(), threading.Event()
    thread = threading.Thread(target=routes.run, args=(stop,))
    thread.start()
    try:
        world.publish(dropped("a"))
        for _ in range(1000):
            if world.rows(tables.runs):
                break
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert len(world.rows(tables.runs)) == 1


def test_the_ledger_can_be_read(world: World) -> None:
    world.job()
    rule_id = world.rule("things", {"type": ["acme.thing"]})
    world.publish(event(id="a", n=1), event("acme.other", id="b"), event(id="a", n=2))
    world.drain()
    history = History(world.database, world.settings)
    newest, *_ = history.latest(EventFilter(source="/test"))
    things = [past.event for past in history.latest(EventFilter(type="acme.thing"))]
    acme = EventFilter(type="acme.*")
    assert [past.event.event_id for past in history.latest(acme)] == ["a", "b", "a"]
    assert [e.position for e in things] == sorted((e.position for e in things), reverse=True)
    page = history.latest(acme, limit=1)
    rest = history.latest(acme, before=page[0].event.position)
    assert [past.event.event_id for past in rest] == ["b", "a"]
    assert newest.event.duplicate_of == things[-1].position
    shown = history.show("a")
    assert shown.event.document["data"] == {"n": 1}
    assert [o.state for o in shown.outcomes] == [OutcomeState.STARTED]
    assert history.show(str(newest.event.position)) == newest
    for absent in ("nope", 10**30, -1, ""):
        with pytest.raises(NotFoundError):
            history.show(absent)
    with world.database.read() as connection:
        run_id = shown.outcomes[0].run_id
        assert ledger.list_outcomes(connection, run_id=run_id) == [*shown.outcomes]
        assert len(ledger.list_outcomes(connection, state=OutcomeState.SUPPRESSED)) == 1
        assert ledger.count_outcomes(connection, rule_id=rule_id) == {
            OutcomeState.STARTED: 1,
            OutcomeState.SUPPRESSED: 1,
        }
        assert ledger.count_events(connection)["duplicates"] == 1


def test_a_buried_event_of_ours_leaves_the_outbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(self, arrivals):  # type: ignore[no-untyped-def]
        raise RuntimeError("no")

    own = new_event("augury.job.created", {}, source="augury", event_id="own")
    world.database.transact(lambda c: emit(world.database, c, [own]))
    world.bus.publish([own.to_json()])
    monkeypatch.setattr(router.ActiveRules, "decide", poisoned)
    world.router().step()
    assert len(world.rows(tables.dead_letters)) == 1
    assert world.rows(tables.outbox) == []
