"""The audit as a whole: beside a working system, on what the bus lost, and as a document."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import redis
import sqlalchemy as sa
from audit_world import AuditWorld, ScoredWorld
from routing_world import event

from augury import clock
from augury.bus.outbox import emit
from augury.bus.relay import Relay, flush
from augury.errors import NotFoundError, UnavailableError
from augury.events.envelope import new_event
from augury.monitoring.audit import CHECKS, acknowledge, audit
from augury.monitoring.audit.check import LISTED_PER_CHECK
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.sources.announce import announce
from augury.sources.schedules import tick
from augury.sources.spec import ScheduleSpec, SourceSpec
from augury.sources.store import apply_schedule, apply_source, delete_schedule
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.objects import open_store


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[AuditWorld]:
    world = AuditWorld(database, live_settings)
    yield world
    world.bus.close()


@pytest.fixture
def losing_world(
    database: Database, settings: Settings, own_valkey: ValkeyServer
) -> Iterator[AuditWorld]:
    """A world on a bus that may be flushed."""
    changes = {"database_url": database.url, "redis_url": own_valkey.url}
    world = AuditWorld(database, settings.model_copy(update=changes))
    yield world
    world.bus.close()


@pytest.fixture
def server(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_valkey.url) as client:
        yield client


def test_an_empty_system_is_in_order(world: AuditWorld) -> None:
    report = world.audit(deep=True)
    assert report.ok
    assert (report.cut.position, report.cut.incarnation) == (0, None)
    assert set(report.checked) == {check.name for check in CHECKS}
    assert not any(report.checked.values())
    assert (report.in_flight, report.rules) == ((), ())


def test_every_event_is_matched_and_balanced(world: AuditWorld) -> None:
    world.fill()
    report = world.audit()
    assert report.ok
    rules = {rule.name: rule for rule in report.rules}
    landing = rules["landing"]
    assert landing.accepted - landing.not_matched == 4  # a, a again, b, c
    assert landing.expected_outcomes == sum(landing.outcomes.values()) == 7
    assert landing.outcomes == {"STARTED": 5, "SUPPRESSED": 2}
    assert rules["things"].outcomes == {"STARTED": 1, "SUPPRESSED": 2}
    assert rules["no job"].outcomes == {"DEAD": 1}
    assert report.dead_letters_open == 2  # information, not a violation
    assert report.cut.position == world.rows(tables.events)[-1].position
    assert report.cut.incarnation == world.bus.incarnation()


def test_the_report_is_json(world: AuditWorld) -> None:
    world.fill()
    world.change(sa.delete(tables.outcomes))
    document = json.loads(json.dumps(world.audit().to_json()))
    assert document["ok"] is False
    assert document["violations"][0].keys() == {"check", "subject", "expected", "found", "advice"}
    assert document["cut"]["taken_at"].endswith("Z")
    assert document["num_violations"]["outcome_missing"] == 11


def test_progress_is_told_by_stage(world: AuditWorld) -> None:
    world.fill()
    told: list[tuple[str, int, int | None]] = []
    audit(
        world.database,
        world.bus,
        world.settings,
        on_progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["stream", "events", "references", "groups", "runs", "outputs", "leases"]
    assert all(done <= total for _, done, total in told if total is not None)


def test_what_is_listed_is_bounded_and_what_is_counted_is_not(world: AuditWorld) -> None:
    count = LISTED_PER_CHECK + 50
    world.publish(*(event() for _ in range(count)))
    world.drain()
    world.change(sa.update(tables.events).values(content_digest="0"))
    report = world.audit()
    assert report.num_violations["event_body"] == count
    assert sum(v.check == "event_body" for v in report.violations) == LISTED_PER_CHECK


def test_a_bus_that_does_not_answer_is_no_verdict(
    losing_world: AuditWorld, own_valkey: ValkeyServer
) -> None:
    own_valkey.kill()
    with pytest.raises(UnavailableError):
        losing_world.audit()


def test_what_waits_for_a_router_is_in_flight(world: AuditWorld) -> None:
    world.publish(event(), event(), event())
    assert len(world.bus.read("slow", count=2, block_s=0)) == 2
    own = new_event("augury.job.created", {}, source="augury", event_id="own")
    world.database.transact(lambda c: emit(world.database, c, [own]))
    report = world.audit()
    assert report.ok
    flying = {found.kind: found.count for found in report.in_flight}
    assert flying == {"bus entries": 3, "outbox unsent": 1}
    assert all(found.oldest_age_s < 60 for found in report.in_flight)


# --- what the bus lost ----------------------------------------------------------------------------


def test_a_lost_bus_is_not_in_order_until_acknowledged(
    losing_world: AuditWorld, server: redis.Redis
) -> None:
    world = losing_world
    world.publish(event(), event())
    world.drain()
    world.publish(event(id="never routed"))
    server.flushall()
    world.publish(event())
    world.drain()
    report = world.audit()
    assert (report.ok, report.violations) == (False, ())
    (incident,) = report.incidents
    assert incident.kind == "LOST"
    second = world.rows(tables.events)[1]
    assert f"since ledger position {second.position} are unknown" in incident.message
    assert acknowledge(world.database, incident.id) == incident
    assert acknowledge(world.database, incident.id) == incident
    assert world.audit().ok


def test_trimmed_entries_are_an_incident_and_counted_once(
    losing_world: AuditWorld, server: redis.Redis
) -> None:
    world = losing_world
    first, *_ = world.publish(event(), event(), event())
    world.router()._take(0.0)
    server.xdel(f"{world.settings.namespace}:events", first)
    world.drain()
    report = world.audit()
    assert (report.ok, report.violations) == (False, ())
    (incident,) = report.incidents
    assert (incident.kind, incident.detail["entry_ids"]) == ("TRIMMED", [first])
    assert first in incident.message
    acknowledge(world.database, incident.id)
    assert world.audit().ok


def test_trimming_what_was_routed_is_in_order(
    losing_world: AuditWorld, server: redis.Redis
) -> None:
    world = losing_world
    world.fill()
    world.router().tidy()
    assert len(world.bus.entries("", 1000)) == 1
    report = world.audit()
    assert report.ok
    assert report.checked["stream_count"] > report.checked["stream_entry"] == 1


def test_a_bus_that_went_back_in_time_gives_its_ids_twice(
    losing_world: AuditWorld, server: redis.Redis
) -> None:
    world = losing_world
    world.publish(event(), event())
    world.drain()
    stream = f"{world.settings.namespace}:events"
    (reused, fields), _ = server.xrange(stream)
    server.delete(stream)
    server.xadd(stream, {b"i": fields[b"i"], b"e": msgspec.json.encode(event())}, id=reused)
    world.drain()
    report = world.audit()
    assert (report.violations, report.incidents) == ((), ())
    assert report.dead_letters_open == 1


def test_an_unknown_incident_cannot_be_acknowledged(world: AuditWorld) -> None:
    with pytest.raises(NotFoundError, match="none is open"):
        acknowledge(world.database, "incident_0")


# --- sources and schedules ------------------------------------------------------------------------


@pytest.fixture
def told(world: AuditWorld, tmp_path: Path) -> AuditWorld:
    """A world in which a schedule has ticked and a source has announced."""
    watched = tmp_path / "in"
    watched.mkdir()
    (watched / "a.csv").write_text("a")
    every_minute = ScheduleSpec(cron="* * * * *")
    files = SourceSpec(uri=f"{watched}/")
    schedule, _ = world.database.transact(
        lambda c: apply_schedule(world.database, c, "minutely", every_minute)
    )
    source, _ = world.database.transact(lambda c: apply_source(world.database, c, "files", files))
    later = clock.utc_now() + timedelta(minutes=3)
    assert tick(world.database, schedule, every_minute, later) == 1
    found = list(open_store(files.uri, world.settings).list())
    assert announce(world.database, source, files, found) == 1
    return world


def test_news_on_its_way_and_news_that_arrived_are_in_order(told: AuditWorld) -> None:
    assert told.audit().ok
    flush(told.database, told.bus)
    told.drain()
    report = told.audit()
    assert report.ok
    assert (report.checked["tick_event"], report.checked["object_event"]) == (1, 1)


@pytest.mark.parametrize(
    ("check", "source"),
    [("tick_event", "augury/schedules/minutely"), ("object_event", "augury/sources/files")],
)
def test_news_that_nobody_was_told_is_named(told: AuditWorld, check: str, source: str) -> None:
    told.change(sa.delete(tables.outbox).where(tables.outbox.c.source == source))
    assert told.broken() == {check}


def _queued_for_nobody(told: AuditWorld) -> None:
    told.database.transact(lambda c: delete_schedule(told.database, c, "minutely"))
    _set_ticks(told, state="QUEUED")


def _set_ticks(told: AuditWorld, **values: object) -> None:
    told.change(sa.update(tables.ticks).where(tables.ticks.c.state == "MISSED").values(**values))


@pytest.mark.parametrize(
    ("corrupt", "found"),
    [
        (_queued_for_nobody, "no such schedule, or a deleted one"),
        (lambda told: _set_ticks(told, missed_count=0), "0"),
        (lambda told: _set_ticks(told, state="LOST"), "LOST"),
    ],
    ids=["queued for nobody", "missed nothing", "no state"],
)
def test_a_tick_that_cannot_be_is_named(
    told: AuditWorld, corrupt: Callable[[AuditWorld], None], found: str
) -> None:
    assert told.audit().checked["tick_state"] == 2
    corrupt(told)
    (violation,) = told.audit().violations
    assert (violation.check, violation.found) == ("tick_state", found)


def test_a_source_that_keeps_updates_to_itself_owes_no_event(
    told: AuditWorld, tmp_path: Path
) -> None:
    told.change(sa.delete(tables.outbox).where(tables.outbox.c.source == "augury/sources/files"))
    quiet = SourceSpec(uri=f"{tmp_path}/in/", events=("created",))
    told.database.transact(lambda c: apply_source(told.database, c, "files", quiet))
    assert told.broken() == set()


# --- beside a working system ----------------------------------------------------------------------


@contextmanager
def _running(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=loop, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.slow
def test_a_system_under_load_gives_no_false_alarm(
    database: Database, live_settings: Settings, tmp_path: Path
) -> None:
    world = ScoredWorld(database, live_settings, tmp_path)
    world.fill()
    published = 0

    def publish(stop: threading.Event) -> None:
        nonlocal published
        while not stop.wait(0.05) and published < 100:
            twice = event(id=f"e{published}")
            world.publish(*(event() for _ in range(20)), twice, twice)
            if published % 20 == 0:
                world.land(f"{published}.parquet", 20)
            published += 1

    def score(stop: threading.Event) -> None:
        while not stop.wait(0.01):
            world.work_off()

    patient = {"lease_timeout_s": 8.0, "sweep_s": 1.0}  # this worker has no heart
    routers = [world.router(router_batch=50).run for _ in range(2)]
    relay = Relay(database, world.bus, world.settings.model_copy(update={"relay_s": 0.05})).run
    before = len(world.runs())
    with _running(publish, score, relay, *routers):
        deadline = clock.monotonic_s() + 60
        audits = 0
        while audits < 5 or len(world.runs()) < before + 2:
            report = world.audit(deep=True, **patient)
            assert report.violations == ()
            assert report.ok
            assert clock.monotonic_s() < deadline
            audits += 1
    flush(database, world.bus)
    world.drain()
    report = world.audit(deep=True, **patient)
    assert report.ok
    assert report.checked["event_body"] > 100
    assert report.checked["part_object"] >= before + 2
    world.bus.close()


@pytest.mark.slow
def test_many_events_are_paged_and_take_seconds(
    sqlite_database: Database, settings: Settings, bus_url: str
) -> None:
    changes = {"database_url": sqlite_database.url, "redis_url": bus_url}
    world = AuditWorld(sqlite_database, settings.model_copy(update=changes))
    world.job()
    for number in range(10):
        world.rule(f"rule {number}", {"type": ["acme.thing"], "data": {"n": [number]}})
    world.publish(event())
    world.drain()
    _fill_ledger(world, 20_000)
    report = world.audit()
    assert report.checked["event_body"] >= 20_000
    assert report.num_violations == {}
    assert report.seconds < 30  # about one where nothing else runs
    world.bus.close()


def _fill_ledger(world: AuditWorld, count: int) -> None:
    """Rows as the router writes them, without the router."""
    from augury.monitoring.audit.event_checks import content_digest

    (model, *_) = world.rows(tables.events)
    ruleset = max(row.version for row in world.rows(tables.rulesets))
    now = clock.utc_now()
    last = world.rows(tables.events)[-1].position
    for start in range(0, count, 5000):
        documents = [event("acme.thing", n=100, where="here") for _ in range(5000)]
        rows = [
            {
                **model._mapping,
                "position": last + start + number + 1,
                "entry_id": f"{start + number + 1}-1",
                "source": document["source"],
                "event_id": document["id"],
                "type": document["type"],
                "body": msgspec.json.encode(document).decode(),
                "content_digest": content_digest(document),
                "ruleset_version": ruleset,
                "matched": [],
                "duplicate_of": None,
                "accepted_at": now,
            }
            for number, document in enumerate(documents)
        ]
        keys = [
            {
                "source": row["source"],
                "event_id": row["event_id"],
                "position": row["position"],
                "content_digest": row["content_digest"],
                "seen_at": now,
            }
            for row in rows
        ]
        world.database.transact(lambda c, r=rows: c.execute(sa.insert(tables.events), r))  # type: ignore[misc]
        world.database.transact(lambda c, k=keys: c.execute(sa.insert(tables.event_keys), k))  # type: ignore[misc]
