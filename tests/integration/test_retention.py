"""Old events move to files and are found there; nothing is lost on the way, and audit knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audit_world import AuditWorld
from routing_world import dropped, event

from augury import clock
from augury.errors import CorruptError, NotFoundError, UnavailableError
from augury.routing import history, retention
from augury.routing.archives import PastEvent, list_archives
from augury.routing.dead_letters import discard
from augury.routing.grouper import Grouper
from augury.routing.history import History
from augury.routing.ledger import EventFilter
from augury.routing.retention import Retention
from augury.rules.spec import RuleSpec
from augury.rules.store import apply_rule
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

AT_ONCE = {"retain_events_days": 1e-9, "archive_events": 4}


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, settings: Settings, bus_url: str) -> Iterator[AuditWorld]:
    database: Database = request.getfixturevalue(f"{request.param}_database")
    wired = settings.model_copy(
        update={"database_url": database.url, "redis_url": bus_url, **AT_ONCE}
    )
    world = AuditWorld(database, wired)
    world.fill()
    yield world
    world.bus.close()


@pytest.fixture
def small(sqlite_database: Database, settings: Settings, bus_url: str) -> Iterator[AuditWorld]:
    """The same on SQLite alone."""
    wired = settings.model_copy(update={"redis_url": bus_url, **AT_ONCE})
    world = AuditWorld(sqlite_database, wired)
    world.fill()
    yield world
    world.bus.close()


def _past(world: AuditWorld) -> History:
    return History(world.database, world.settings)


def _everything(world: AuditWorld) -> list[PastEvent]:
    found = _past(world).latest(limit=1000)
    return [replace(past, is_archived=False) for past in found]


def _archive_all(world: AuditWorld) -> int:
    mover, moved = Retention(world.database, world.settings), 0
    while mover.archive_once():
        moved += 1
    return moved


def _files(world: AuditWorld) -> list[Path]:
    return sorted(Path(world.settings.effective_store_url[7:]).rglob("*.parquet"))


def test_events_move_and_are_found_as_before(
    world: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter in world.rows(tables.dead_letters, tables.dead_letters.c.kind == "action"):
        world.database.transact(lambda c, i=letter.id: discard(world.database, c, i))  # type: ignore[misc]
    before = _everything(world)
    assert _archive_all(world) >= 2
    assert [past.event.position for past in before][:1] == [
        row.position for row in world.rows(tables.events)
    ]  # only the newest is left
    assert _everything(world) == before
    past = _past(world)
    assert [p.event.position for p in past.latest(limit=3)] == [
        p.event.position for p in before[:3]
    ]
    middle = before[4].event.position
    assert past.latest(limit=2, before=middle)[0].event == before[5].event
    monkeypatch.setattr(history, "PAGE_EVENTS", 3)
    paged = [found for _, page in past.pages() for found in page]
    assert [p.event for p in paged] == [p.event for p in reversed(before)]
    assert [p.outcomes for p in paged] == [p.outcomes for p in reversed(before)]
    oldest = before[-1]
    assert past.show(oldest.event.event_id).event == oldest.event
    assert past.show(str(oldest.event.position)).is_archived
    with pytest.raises(NotFoundError):
        past.show("nobody")
    world.audit()
    assert world.broken(deep=True) == set()


def test_filters_hold_in_the_archive(small: AuditWorld) -> None:
    rule_id = next(row.id for row in small.rows(tables.rules) if row.name == "things")
    filters = [
        EventFilter(type="acme.*"),
        EventFilter(type="acme.other", source="/test"),
        EventFilter(rule_id=rule_id),
        EventFilter(until=clock.utc_now()),
        EventFilter(since=clock.utc_now()),
        EventFilter(source="/nobody"),
    ]
    before = [[p.event.position for p in _past(small).latest(each)] for each in filters]
    _archive_all(small)
    assert [[p.event.position for p in _past(small).latest(each)] for each in filters] == before
    assert [len(found) for found in before[:2]] != [0, 0]


def test_what_is_published_again_is_still_known(small: AuditWorld) -> None:
    first = event(id="once", n=1)
    small.publish(first, event(id="later"))
    small.drain()
    _archive_all(small)
    small.publish(first)
    small.drain()
    assert ("once", "start_run", "SUPPRESSED", "duplicate") in small.outcomes()
    assert small.broken(deep=True) == set()
    _archive_all(small)  # also the duplicate moves
    assert small.broken(deep=True) == set()


def test_open_outcomes_keep_their_events(small: AuditWorld) -> None:
    held = small.rows(tables.outcomes)[0]
    small.change(
        sa.update(tables.outcomes).where(tables.outcomes.c.id == held.id).values(state="QUEUED")
    )
    before = _everything(small)
    _archive_all(small)
    assert held.position in [row.position for row in small.rows(tables.events)]
    assert [row.id for row in small.rows(tables.outcomes, tables.outcomes.c.id == held.id)]
    assert _everything(small) == before
    paged = [found.event for _, page in _past(small).pages() for found in page]
    assert paged == [past.event for past in reversed(before)]


def test_a_crash_between_file_and_transaction_loses_nothing(
    small: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _everything(small)

    def crash(*_: Any) -> bool:
        raise UnavailableError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(retention, "_move", crash)
        with pytest.raises(UnavailableError):
            Retention(small.database, small.settings).archive_once()
    (orphan,) = _files(small)
    assert (_everything(small), small.rows(tables.archives)) == (before, [])
    os.utime(orphan, (0, 0))
    orphan.rename(orphan.with_name("0-0-abandoned.parquet"))
    mover = Retention(small.database, small.settings)
    mover.sweep()
    assert [file.name for file in _files(small) if "abandoned" in file.name] == []
    assert len(small.rows(tables.archives)) == 1
    assert _everything(small) == before


def test_what_changed_while_it_was_written_stays(
    small: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _everything(small)
    pack = retention.pack

    def pack_while_an_outcome_changes(rows: Any, decided: Any) -> bytes:
        changed = sa.update(tables.outcomes).where(tables.outcomes.c.position == max(decided))
        small.change(changed.values(updated_at=clock.utc_now()))
        return pack(rows, decided)

    with monkeypatch.context() as raced:
        raced.setattr(retention, "pack", pack_while_an_outcome_changes)
        assert not Retention(small.database, small.settings).archive_once()
    assert (small.rows(tables.archives), _files(small)) == ([], [])
    assert [p.event for p in _everything(small)] == [p.event for p in before]


def test_two_that_move_at_once(world: AuditWorld) -> None:
    before = _everything(world)
    movers = [Retention(world.database, world.settings) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        moved = list(pool.map(lambda mover: mover.archive_once(), movers))
    assert any(moved)
    _archive_all(world)
    assert _everything(world) == before
    assert len(_files(world)) == len(world.rows(tables.archives))
    assert world.broken(deep=True) == set()


def test_keys_are_forgotten_after_the_window(small: AuditWorld) -> None:
    _archive_all(small)
    mover = Retention(small.database, small.settings)
    mover.purge_keys()
    keys = small.rows(tables.event_keys)
    with small.database.read() as connection:
        assert {file.keys_purged_at for file in list_archives(connection)} == {None}
    long_ago = clock.utc_now().replace(year=2020)
    small.change(sa.update(tables.archives).values(last_accepted_at=long_ago))
    mover.purge_keys()
    left = small.rows(tables.event_keys)
    assert len(left) < len(keys)
    assert {key.position for key in left} == {row.position for row in small.rows(tables.events)}


def test_nothing_moves_before_its_time(small: AuditWorld) -> None:
    for changed in ({"retain_events_days": 0.0}, {"retain_events_days": 1.0}):
        mover = Retention(small.database, small.settings.model_copy(update=changed))
        mover.sweep()
    assert small.rows(tables.archives) == []


def test_a_file_that_was_changed_is_not_believed(small: AuditWorld) -> None:
    _archive_all(small)
    damaged = _files(small)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match="restore it from a backup"):
        list(_past(small).pages())
    assert small.broken(deep=True) == {"archive_file"}


def _first_row(world: AuditWorld) -> Any:
    return world.rows(tables.archives)[0]


def test_audit_names_a_gap(small: AuditWorld) -> None:
    _archive_all(small)
    first = _first_row(small).first_position
    small.change(sa.delete(tables.archives).where(tables.archives.c.first_position == first))
    # what the row said of the bus's entries is gone with it
    assert small.broken() == {"archive_range", "stream_count"}


def test_audit_counts_what_a_file_holds(small: AuditWorld) -> None:
    _archive_all(small)
    small.change(sa.update(tables.archives).values(num_outcomes=tables.archives.c.num_outcomes + 1))
    assert small.broken(deep=True) == {"archive_content"}


def test_audit_names_an_event_that_is_in_both(small: AuditWorld) -> None:
    old = small.rows(tables.events)[0]
    _archive_all(small)
    small.change(sa.insert(tables.events).values(**old._mapping))
    assert "archive_content" in small.broken(deep=True)


def test_audit_matches_archived_events_again(small: AuditWorld) -> None:
    moved = small.rows(tables.outcomes)[0]
    small.change(sa.delete(tables.outcomes).where(tables.outcomes.c.id == moved.id))
    _archive_all(small)
    assert "archive_law" in small.broken(deep=True)


def test_an_object_that_lands_again_is_still_known(small: AuditWorld) -> None:
    _archive_all(small)
    small.publish(dropped("a"))
    small.drain()
    assert [o[3] for o in small.outcomes() if o[2] == "SUPPRESSED"] == ["same object"]


def test_groups_outlive_the_outcomes_of_their_members(small: AuditWorld) -> None:
    spec = RuleSpec.model_validate(
        {
            "pattern": {"type": ["acme.grouped"]},
            "actions": [{"start_run": {"job": "score"}}],
            "group": {"batch": {"max_events": 2, "max_wait_s": 3600}},
        }
    )
    small.database.transact(lambda c: apply_rule(small.database, c, "pairs", spec))
    small.publish(*(event("acme.grouped") for _ in range(5)))
    small.drain()
    Grouper(small.database, small.bus, small.executor, small.settings).group()
    small.publish(event("acme.later"))
    small.drain()
    before = _everything(small)
    assert small.broken(deep=True) == set()
    _archive_all(small)
    kept = small.rows(tables.outcomes, tables.outcomes.c.state == "PENDING")
    assert len(kept) == 1  # of the group that is still open
    assert _everything(small) == before
    assert small.broken(deep=True) == set()
