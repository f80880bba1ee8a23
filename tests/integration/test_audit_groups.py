"""Each invariant of groups: broken alone, audit names it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from audit_world import QUICK, Corruptions, Snapshot, sqlite_settings
from grouping_world import LANDED, GroupingWorld
from routing_world import dropped

from augury import clock
from augury.monitoring.audit import audit
from augury.processes.valkey import ValkeyServer
from augury.storage.database import Database
from augury.storage.tables import group_members, groups, object_claims, outcomes, runs, work

_CORRUPTIONS = Corruptions[GroupingWorld]()


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[GroupingWorld, Snapshot]]:
    settings = sqlite_settings(tmp_path_factory.mktemp("groups"), _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    world = GroupingWorld(database, settings.model_copy(update=QUICK))
    world.job()
    world.rule("pairs", LANDED, group={"batch": {"max_events": 2}}, max_active=1)
    world.rule("seconds", LANDED, group={"batch": {"max_bytes": 2}}, when_full="coalesce")
    # a group that acted, two that wait, and one that is open
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(7)))
    world.settle()
    yield world, Snapshot(database)
    world.bus.close()
    database.close()


@pytest.fixture
def world(_shared: tuple[GroupingWorld, Snapshot]) -> Iterator[GroupingWorld]:
    world, snapshot = _shared
    yield world
    snapshot.restore()


def _change(world: GroupingWorld, *statements: sa.Executable) -> None:
    def change(connection: sa.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    world.database.transact(change)


def _of_rule(world: GroupingWorld, state: str, number: int = 0) -> str:
    """Id of one of the groups of the rule `pairs`."""
    rule_id = next(row.rule_id for row in world.groups() if row.slot_of is not None)
    found = [row.id for row in world.groups(state) if row.rule_id == rule_id]
    return str(found[number])


def _members(group_id: str) -> sa.Select[tuple[str]]:
    return sa.select(group_members.c.outcome_id).where(group_members.c.group_id == group_id)


@_CORRUPTIONS.breaks("group_member")
def a_pending_outcome_that_is_nowhere(world: GroupingWorld) -> None:
    opened = _of_rule(world, "OPEN")
    forgotten = sa.delete(group_members).where(group_members.c.group_id == opened)
    _change(world, forgotten, sa.delete(groups).where(groups.c.id == opened))


@_CORRUPTIONS.breaks("group_outcome")
def a_waiting_group_one_of_whose_events_was_dropped(world: GroupingWorld) -> None:
    member = _members(_of_rule(world, "QUEUED")).limit(1).scalar_subquery()
    changed = sa.update(outcomes).where(outcomes.c.id == member)
    _change(world, changed.values(state="DROPPED", reason="by hand"))


@_CORRUPTIONS.breaks("group_outcome")
def a_member_whose_outcome_names_another_run(world: GroupingWorld) -> None:
    started = _of_rule(world, "STARTED")
    joined = sa.update(outcomes).where(
        outcomes.c.id.in_(_members(started)), outcomes.c.state == "JOINED"
    )
    mine = next(row.run_id for row in world.groups() if row.id == started)
    wrong = next(run.id for run in world.rows(runs) if run.id != mine)
    _change(world, joined.values(run_id=wrong))


@_CORRUPTIONS.breaks("group_outcome")
def a_member_whose_outcome_is_gone(world: GroupingWorld) -> None:
    """That its law 1 is broken too is seen with its event."""
    member = _members(_of_rule(world, "QUEUED")).limit(1).scalar_subquery()
    _change(world, sa.delete(outcomes).where(outcomes.c.id == member))


@_CORRUPTIONS.breaks("group_run")
def a_run_that_was_made_under_another_key(world: GroupingWorld) -> None:
    group = next(row for row in world.groups("STARTED"))
    _change(world, sa.update(runs).where(runs.c.id == group.run_id).values(run_key="another"))


@_CORRUPTIONS.breaks("group_size")
def a_group_that_counts_more_than_it_has(world: GroupingWorld) -> None:
    opened = _of_rule(world, "OPEN")
    _change(world, sa.update(groups).where(groups.c.id == opened).values(num_events=9))


@_CORRUPTIONS.breaks("group_size")
def a_group_beyond_what_its_rule_allows(world: GroupingWorld) -> None:
    """A waiting group takes the members of the next one."""
    first, second = _of_rule(world, "QUEUED"), _of_rule(world, "QUEUED", 1)
    moved = sa.update(group_members).where(group_members.c.group_id == second)
    _change(
        world,
        moved.values(group_id=first),
        sa.delete(groups).where(groups.c.id == second),
        sa.update(groups).where(groups.c.id == first).values(num_events=4),
    )


@_CORRUPTIONS.breaks("group_size")
def a_group_of_more_bytes_than_its_rule_allows(world: GroupingWorld) -> None:
    group = next(row.id for row in world.groups("STARTED") if row.slot_of is None)
    heavier = sa.update(group_members).where(group_members.c.group_id == group)
    _change(world, heavier.values(size_bytes=5))


@_CORRUPTIONS.breaks("group_stuck")
def a_group_that_nobody_closes(world: GroupingWorld) -> None:
    past = clock.utc_now() - timedelta(hours=1)
    opened = _of_rule(world, "OPEN")
    _change(world, sa.update(groups).where(groups.c.id == opened).values(due_at=past))


@_CORRUPTIONS.breaks("group_stuck")
def an_event_that_no_grouper_takes(world: GroupingWorld) -> None:
    opened = _of_rule(world, "OPEN")
    past = clock.utc_now() - timedelta(hours=1)
    alone = sa.update(group_members).where(group_members.c.group_id == opened)
    _change(
        world,
        alone.values(group_id=None, accepted_at=past),
        sa.delete(groups).where(groups.c.id == opened),
    )


@_CORRUPTIONS.breaks("group_active")
def more_runs_than_the_rule_allows(world: GroupingWorld) -> None:
    held = next(row for row in world.groups() if row.slot_of is not None)
    other = next(row.id for row in world.groups("STARTED") if row.id != held.id)
    taken = sa.update(groups).where(groups.c.id == other)
    _change(world, taken.values(slot_of=1, lane_id=held.lane_id))


@_CORRUPTIONS.breaks("group_backlog")
def a_waiting_group_that_nobody_starts(world: GroupingWorld) -> None:
    held = next(row for row in world.groups() if row.slot_of is not None)
    past = clock.utc_now() - timedelta(hours=1)
    waiting = sa.update(groups).where(groups.c.state == "QUEUED")
    _change(
        world,
        waiting.values(updated_at=past),
        sa.update(groups).where(groups.c.id == held.id).values(slot_of=None),
    )


@_CORRUPTIONS.breaks("one_run")
def an_object_in_two_groups(world: GroupingWorld) -> None:
    group = next(row for row in world.groups("STARTED") if row.slot_of is None)
    first, second = world.rows(outcomes, outcomes.c.id.in_(_members(group.id)))[:2]
    claim = sa.update(object_claims).where(object_claims.c.outcome_id == second.id)
    same = sa.update(outcomes).where(outcomes.c.id == second.id)
    _change(
        world,
        sa.delete(object_claims).where(object_claims.c.outcome_id == first.id),
        claim.values(object_identity=first.occurrence.removeprefix("object:")),
        same.values(occurrence=first.occurrence),
    )


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_what_is_broken_is_named(world: GroupingWorld, check: str, corrupt: object) -> None:
    assert _broken(world) == set()
    corrupt(world)  # type: ignore[operator]
    found = _broken(world)
    # an object in two groups has one claim, and an outcome that is gone has neighbours that miss it
    others = {"one_run": {"object_claim"}, "group_outcome": {"outcome_missing", "claim_outcome"}}
    assert found - others.get(check, set()) == {check}


def _broken(world: GroupingWorld) -> set[str]:
    report = audit(world.database, world.bus, world.settings, deep=False)
    return {violation.check for violation in report.violations}


def test_a_run_that_ends_is_no_false_alarm(world: GroupingWorld) -> None:
    held = next(row for row in world.groups() if row.slot_of is not None)
    world.finish(held.run_id)
    assert _broken(world) == set()
    assert len(world.rows(work)) > 0
