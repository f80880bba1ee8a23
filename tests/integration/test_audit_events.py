"""Each invariant of events: broken alone, audit names it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from audit_world import AuditWorld, Corruptions, Snapshot, sqlite_settings
from routing_world import event

from augury import clock
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import (
    dead_letters,
    event_keys,
    events,
    object_claims,
    outbox,
    outcomes,
    rule_versions,
    ruleset_members,
    runs,
)

type Corruption = Callable[[AuditWorld], None]
_CORRUPTIONS = Corruptions[AuditWorld]()
_IN_THE_STREAM = Corruptions[AuditWorld]()


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[AuditWorld, Snapshot]]:
    settings = sqlite_settings(tmp_path_factory.mktemp("audit"), _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    world = AuditWorld(database, settings)
    world.fill()
    yield world, Snapshot(database)
    world.bus.close()
    database.close()


@pytest.fixture
def world(_shared: tuple[AuditWorld, Snapshot]) -> Iterator[AuditWorld]:
    """A filled world; what a test changes in its ledger is put back, its stream is for looking."""
    world, snapshot = _shared
    yield world
    snapshot.restore()


@pytest.fixture
def own_world(sqlite_database: Database, settings: Settings, bus_url: str) -> Iterator[AuditWorld]:
    """A filled world with a stream of its own."""
    changes = {"database_url": sqlite_database.url, "redis_url": bus_url}
    world = AuditWorld(sqlite_database, settings.model_copy(update=changes))
    world.fill()
    yield world
    world.bus.close()


@pytest.fixture
def postgres_world(
    postgres_database: Database, settings: Settings, bus_url: str
) -> Iterator[AuditWorld]:
    changes = {"database_url": postgres_database.url, "redis_url": bus_url}
    world = AuditWorld(postgres_database, settings.model_copy(update=changes))
    world.fill()
    yield world
    world.bus.close()


def _named(world: AuditWorld, event_id: str) -> sa.Row[Any]:
    return world.rows(events, events.c.event_id == event_id)[0]


def _outcome(world: AuditWorld, state: str, reason: str | None = None) -> sa.Row[Any]:
    where = (outcomes.c.state == state, outcomes.c.reason.is_(None) | (outcomes.c.reason == reason))
    return world.rows(outcomes, *where)[0]


def _insert(world: AuditWorld, row: sa.Row[Any], table: sa.Table, **changes: Any) -> None:
    world.change(sa.insert(table).values(**{**row._mapping, **changes}))


# --- the stream -----------------------------------------------------------------------------------


def _raw(world: AuditWorld) -> redis.Redis:
    return redis.Redis.from_url(world.settings.effective_redis_url)


@_IN_THE_STREAM.breaks("stream_entry")
def an_entry_acknowledged_by_somebody_else(world: AuditWorld) -> None:
    world.publish(event(id="stolen"))
    (delivery,) = world.bus.read("thief", count=10, block_s=0)
    world.bus.ack([delivery.entry_id])


@_CORRUPTIONS.breaks("stream_body")
def an_event_that_is_not_what_was_published(world: AuditWorld) -> None:
    first, second, *_ = world.rows(events)  # they change places
    for position, entry_id in (
        (first.position, "0-1"),
        (second.position, first.entry_id),
        (first.position, second.entry_id),
    ):
        changed = sa.update(events).where(events.c.position == position)
        world.change(changed.values(entry_id=entry_id))


@_IN_THE_STREAM.breaks("stream_count")
def entries_deleted_before_anybody_read_them(world: AuditWorld) -> None:
    (entry_id,) = world.publish(event(id="deleted"))
    with _raw(world) as client:
        client.xdel(f"{world.settings.namespace}:events", entry_id)


# --- events ---------------------------------------------------------------------------------------


@_CORRUPTIONS.breaks("event_body")
def a_body_that_was_edited(world: AuditWorld) -> None:
    row = _named(world, "nobody wants me")
    body = row.body.replace('"data":{}', '"data":{"n":5}')
    assert body != row.body
    world.change(sa.update(events).where(events.c.position == row.position).values(body=body))


@_CORRUPTIONS.breaks("event_body")
def a_type_that_its_body_does_not_have(world: AuditWorld) -> None:
    row = _named(world, "nobody wants me")
    changed = sa.update(events).where(events.c.position == row.position)
    world.change(changed.values(type="acme.else"))


@_CORRUPTIONS.breaks("event_ruleset")
def a_ruleset_that_never_was(world: AuditWorld) -> None:
    row = _named(world, "nobody wants me")
    changed = sa.update(events).where(events.c.position == row.position)
    world.change(changed.values(ruleset_version=99))


@_CORRUPTIONS.breaks("event_ruleset")
def a_rule_version_that_cannot_be_read(world: AuditWorld) -> None:
    member = world.rows(ruleset_members)[0]
    where = (rule_versions.c.id == member.rule_id, rule_versions.c.version == 1)
    world.change(sa.update(rule_versions).where(*where).values(spec={"pattern": {}}))


@_CORRUPTIONS.breaks("event_matched")
def a_matched_set_that_the_matcher_does_not_confirm(world: AuditWorld) -> None:
    row = _named(world, "thing")
    world.change(sa.update(events).where(events.c.position == row.position).values(matched=[]))


@_CORRUPTIONS.breaks("outcome_missing")
def an_outcome_swallowed(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    world.change(sa.delete(outcomes).where(outcomes.c.id == row.id))


@_CORRUPTIONS.breaks("outcome_unmatched")
def an_outcome_of_a_rule_that_does_not_match(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    position = _named(world, "nobody wants me").position
    _insert(world, row, outcomes, id="out_extra", position=position)


@_CORRUPTIONS.breaks("outcome_unmatched")
def an_outcome_of_an_action_that_the_rule_does_not_have(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    _insert(world, row, outcomes, id="out_extra", action="third")


@_CORRUPTIONS.breaks("outcome_rule_version")
def an_outcome_under_another_version_of_the_rule(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    world.change(sa.update(outcomes).where(outcomes.c.id == row.id).values(rule_version=7))


@_CORRUPTIONS.breaks("outcome_state")
def a_suppression_without_a_reason(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    world.change(sa.update(outcomes).where(outcomes.c.id == row.id).values(reason=None))


@_CORRUPTIONS.breaks("outcome_state")
def a_state_that_no_outcome_has(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    world.change(sa.update(outcomes).where(outcomes.c.id == row.id).values(state="MAYBE"))


@_CORRUPTIONS.breaks("event_duplicate")
def a_duplicate_without_its_mark(world: AuditWorld) -> None:
    where = events.c.duplicate_of.is_not(None)
    position = world.rows(events, where)[0].position
    changed = sa.update(events).where(events.c.position == position)
    world.change(changed.values(duplicate_of=None))


@_CORRUPTIONS.breaks("event_duplicate")
def a_duplicate_of_another_event(world: AuditWorld) -> None:
    other = _named(world, "nobody wants me").position
    where = events.c.duplicate_of.is_not(None)
    world.change(sa.update(events).where(where).values(duplicate_of=other))


@_CORRUPTIONS.breaks("event_duplicate")
def a_duplicate_of_no_event(world: AuditWorld) -> None:
    where = events.c.duplicate_of.is_not(None)
    world.change(sa.update(events).where(where).values(duplicate_of=10**6))


@_CORRUPTIONS.breaks("event_duplicate")
def a_duplicate_that_acted(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "duplicate")
    world.change(sa.update(outcomes).where(outcomes.c.id == row.id).values(reason="other"))


@_CORRUPTIONS.breaks("event_key")
def a_key_forgotten_too_early(world: AuditWorld) -> None:
    world.change(sa.delete(event_keys).where(event_keys.c.event_id == "nobody wants me"))


@_CORRUPTIONS.breaks("event_key")
def a_key_with_another_digest(world: AuditWorld) -> None:
    where = event_keys.c.event_id == "nobody wants me"
    world.change(sa.update(event_keys).where(where).values(content_digest="0" * 64))


@_CORRUPTIONS.breaks("event_key")
def a_key_that_names_a_later_event(world: AuditWorld) -> None:
    later = world.rows(events)[-1].position
    where = event_keys.c.event_id == "nobody wants me"
    world.change(sa.update(event_keys).where(where).values(position=later))


@_CORRUPTIONS.breaks("event_buried")
def an_event_both_routed_and_buried(world: AuditWorld) -> None:
    row = _named(world, "nobody wants me")
    letter = world.buried()[0]
    _insert(
        world, letter, dead_letters, id="dead_2",
        incarnation=row.incarnation, entry_id=row.entry_id,
    )  # fmt: skip


@_CORRUPTIONS.breaks("outcome_run")
def a_started_outcome_whose_run_names_another(world: AuditWorld) -> None:
    row = _outcome(world, "STARTED")
    world.change(
        sa.update(runs).where(runs.c.id == row.run_id).values(outcome_id=None, position=None)
    )


@_CORRUPTIONS.breaks("outcome_run")
def a_suppressed_outcome_with_a_run(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    run_id = _outcome(world, "STARTED").run_id
    world.change(sa.update(outcomes).where(outcomes.c.id == row.id).values(run_id=run_id))


@_CORRUPTIONS.breaks("object_claim")
def an_object_that_nobody_claims(world: AuditWorld) -> None:
    claim = world.rows(object_claims)[0]
    world.change(sa.delete(object_claims).where(object_claims.c.outcome_id == claim.outcome_id))


# --- references -----------------------------------------------------------------------------------


@_CORRUPTIONS.breaks("outcome_event")
def an_outcome_of_no_event(world: AuditWorld) -> None:
    # PostgreSQL counts on from 1 too, and every event was inserted once: a gap in the middle
    gap = _make_gap(world)
    _insert(world, _outcome(world, "SUPPRESSED", "same object"), outcomes, id="out_2", position=gap)


@_CORRUPTIONS.breaks("key_event")
def a_key_of_no_event(world: AuditWorld) -> None:
    key = world.rows(event_keys)[0]
    _insert(world, key, event_keys, event_id="ghost", position=_make_gap(world))


def _make_gap(world: AuditWorld) -> int:
    """A position inside the ledger's range that no event has."""
    newest = world.rows(events)[-1]
    assert newest.matched == []
    gap: int = newest.position
    moved = {"position": gap + 1}
    world.change(
        sa.update(events).where(events.c.position == gap).values(**moved),
        sa.update(event_keys).where(event_keys.c.position == gap).values(**moved),
    )
    return gap


@_CORRUPTIONS.breaks("claim_outcome")
def a_claim_of_no_outcome(world: AuditWorld) -> None:
    claim = world.rows(object_claims)[0]
    _insert(world, claim, object_claims, object_identity="file:///x#t", outcome_id="out_gone")


@_CORRUPTIONS.breaks("one_run")
def two_runs_for_one_object(world: AuditWorld) -> None:
    first, second = [
        row for row in world.rows(outcomes, outcomes.c.state == "STARTED")
        if row.action == "start_run" and "object:" in row.occurrence
    ][:2]  # fmt: skip
    assert first.rule_id == second.rule_id
    changed = sa.update(outcomes).where(outcomes.c.id == second.id)
    world.change(
        # otherwise the missing claim is a finding of its own
        sa.update(outcomes).where(outcomes.c.id == first.id).values(occurrence="event:x"),
        changed.values(occurrence="event:x"),
        sa.delete(object_claims).where(object_claims.c.outcome_id.in_([first.id, second.id])),
    )


# --- the outbox -----------------------------------------------------------------------------------


def _outbox_row(event_id: str, age_s: float) -> sa.Executable:
    created_at = clock.utc_now() - timedelta(seconds=age_s)
    return sa.insert(outbox).values(
        source="augury", event_id=event_id, body="{}", created_at=created_at, sent_at=created_at
    )


@_CORRUPTIONS.breaks("outbox_stale")
def an_event_of_ours_that_never_arrives(world: AuditWorld) -> None:
    world.change(_outbox_row("lost", 100.0))


@_CORRUPTIONS.breaks("outbox_leftover")
def an_event_of_ours_that_arrived_and_stays(world: AuditWorld) -> None:
    key = world.rows(event_keys, event_keys.c.source == "augury")[0]
    seen_at = key.seen_at - timedelta(seconds=100)
    where = (event_keys.c.source == "augury", event_keys.c.event_id == key.event_id)
    world.change(
        _outbox_row(key.event_id, 100.0),
        sa.update(event_keys).where(*where).values(seen_at=seen_at),
    )


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_what_is_broken_is_named(world: AuditWorld, check: str, corrupt: Corruption) -> None:
    corrupt(world)
    report = world.audit()
    assert {violation.check for violation in report.violations} == {check}
    assert not report.ok
    for violation in report.violations:
        assert violation.subject and violation.expected and violation.found and violation.advice


@pytest.mark.parametrize(("check", "corrupt"), _IN_THE_STREAM, ids=_IN_THE_STREAM.ids)
def test_what_the_stream_lost_is_named(
    own_world: AuditWorld, check: str, corrupt: Corruption
) -> None:
    assert own_world.broken() == set()
    corrupt(own_world)
    assert own_world.broken() == {check}


def test_a_replay_is_not_held_against_the_rules_of_its_time(world: AuditWorld) -> None:
    row = _outcome(world, "SUPPRESSED", "same object")
    position = _named(world, "nobody wants me").position
    again = {"id": "out_replay", "position": position, "epoch": "replay-1", "rule_version": 9}
    _insert(world, row, outcomes, **again)
    before = world.audit()
    # only that nobody asked for this replay
    assert {violation.check for violation in before.violations} == {"replay_epoch"}
    assert sum(sum(rule.outcomes.values()) for rule in before.rules) == 11


def test_an_event_of_ours_that_was_buried_was_told(world: AuditWorld) -> None:
    run = world.rows(runs)[0]
    where = event_keys.c.event_id == f"{run.id}:ACCEPTED"
    position = world.rows(event_keys, where)[0].position
    letter = world.buried()[0]
    world.change(
        sa.delete(event_keys).where(where), sa.delete(events).where(events.c.position == position)
    )
    assert world.broken() == {"run_event", "stream_entry"}
    gone = next(
        entry for entry in world.bus.entries("", 1000) if f"{run.id}:ACCEPTED" in str(entry.body)
    )
    _insert(
        world, letter, dead_letters, id="dead_2", entry_id=gone.entry_id,
        payload=gone.body.decode(),
    )  # fmt: skip
    assert world.broken() == set()


def test_every_check_does_the_same_on_postgres(postgres_world: AuditWorld) -> None:
    assert postgres_world.broken() == set()
    snapshot = Snapshot(postgres_world.database)
    for check, corrupt in _CORRUPTIONS:
        corrupt(postgres_world)
        assert postgres_world.broken() == {check}, corrupt.__name__
        snapshot.restore()
    assert postgres_world.broken() == set()
