"""Rulesets on real databases: when they move, and what an old one says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from augury.errors import NotFoundError, PatternError
from augury.resources import store
from augury.resources.store import Change, Kind
from augury.rules import ruleset
from augury.rules.ruleset import Ruleset, active_version, load_ruleset
from augury.rules.spec import RuleSpec
from augury.rules.store import apply_rule, delete_rule
from augury.storage import tables
from augury.storage.database import Database

ACTIONS: list[dict[str, Any]] = [{"start_run": {"job": "score"}}]


def spec(event_type: str = "a", **fields: Any) -> RuleSpec:
    return RuleSpec(pattern={"type": [event_type]}, actions=ACTIONS, **fields)


def apply(database: Database, name: str, rule: RuleSpec) -> Change:
    _, change = database.transact(lambda c: apply_rule(database, c, name, rule))
    return change


def drop(database: Database, name: str) -> None:
    database.transact(lambda c: delete_rule(database, c, name))


def version(database: Database) -> int:
    with database.read() as connection:
        return active_version(connection)


def load(database: Database, at: int) -> Ruleset:
    with database.read() as connection:
        return load_ruleset(connection, at)


def shown(ruleset: Ruleset) -> list[tuple[str, int, str]]:
    return sorted((r.name, r.version, r.spec.pattern["type"][0]) for r in ruleset.rules.values())


def test_before_the_first_rule_there_is_an_empty_ruleset(database: Database) -> None:
    assert version(database) == 0
    ruleset = load(database, 0)
    assert (ruleset.version, ruleset.rules, ruleset.matcher.match({"type": "a"})) == (0, {}, set())


def test_each_change_of_the_enabled_rules_moves_the_version_exactly_once(
    database: Database,
) -> None:
    steps = [
        (spec("a"), Change.CREATED, 1),
        (spec("a"), Change.UNCHANGED, 1),
        (spec("b"), Change.UPDATED, 2),
        (spec("b", enabled=False), Change.UPDATED, 3),
        (spec("b", enabled=False), Change.UNCHANGED, 3),
        (spec("c", enabled=False), Change.UPDATED, 3),  # was not in the ruleset, is not now
        (spec("c"), Change.UPDATED, 4),
        (spec("c", description="words"), Change.UPDATED, 5),
    ]
    for rule, change, moved_to in steps:
        assert (apply(database, "one", rule), version(database)) == (change, moved_to)
    assert (apply(database, "off", spec(enabled=False)), version(database)) == (Change.CREATED, 5)
    drop(database, "off")
    assert version(database) == 5
    drop(database, "one")
    assert version(database) == 6
    with pytest.raises(NotFoundError):
        drop(database, "one")
    assert version(database) == 6


def test_an_old_ruleset_has_exactly_the_rules_of_its_time(database: Database) -> None:
    apply(database, "one", spec("a"))  # 1
    apply(database, "two", spec("a"))  # 2
    apply(database, "one", spec("b"))  # 3
    apply(database, "two", spec("a", enabled=False))  # 4
    drop(database, "one")  # 5
    apply(database, "one", spec("z"))  # 6: the same name, another rule
    apply(database, "two", spec("a"))  # 7
    assert [shown(load(database, at)) for at in range(8)] == [
        [],
        [("one", 1, "a")],
        [("one", 1, "a"), ("two", 1, "a")],
        [("one", 2, "b"), ("two", 1, "a")],
        [("one", 2, "b")],
        [],
        [("one", 1, "z")],
        [("one", 1, "z"), ("two", 3, "a")],
    ]
    second = load(database, 2)
    assert second.matcher.match({"type": "a"}) == set(second.rules)
    assert load(database, 4).matcher.match({"type": "a"}) == set()
    assert all(rule_id == rule.rule_id for rule_id, rule in second.rules.items())


@pytest.mark.parametrize("at", [-1, 2])
def test_a_version_that_never_was_is_refused(database: Database, at: int) -> None:
    apply(database, "one", spec("a"))
    with pytest.raises(NotFoundError, match="0 to 1"):
        load(database, at)


def test_a_bad_pattern_changes_nothing(database: Database) -> None:
    bad = RuleSpec(pattern={"type": "a", "n": [{"near": 1}]}, actions=ACTIONS)
    with pytest.raises(PatternError) as caught:
        apply(database, "one", bad)
    assert [fault.path for fault in caught.value.faults] == ["$.type", "$.n[0].near"]
    assert version(database) == 0


def test_a_change_that_is_rolled_back_moves_nothing(database: Database) -> None:
    def change_and_fail(connection: sa.Connection) -> None:
        apply_rule(database, connection, "one", spec("a"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.transact(change_and_fail)
    assert (version(database), load(database, 0).rules) == (0, {})


def test_several_rules_in_one_transaction(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        for name in "abc":
            apply_rule(database, connection, name, spec(name))

    database.transact(work)
    assert shown(load(database, version(database))) == [("a", 1, "a"), ("b", 1, "b"), ("c", 1, "c")]


def test_concurrent_applies_take_turns(database: Database) -> None:
    def work(number: int) -> None:
        name = f"rule{number % 4}"
        apply(database, name, spec(f"t{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert version(database) == 24
    for at in range(1, 25):
        names = [name for name, _, _ in shown(load(database, at))]
        assert names == sorted(set(names))
    with database.read() as connection:
        current = {rule.name: rule.version for rule in store.listed(connection, Kind.RULE)}
        moved = list(connection.scalars(sa.select(tables.ruleset_members.c.from_ruleset)))
    assert {name: v for name, v, _ in shown(load(database, 24))} == current
    assert sorted(moved) == list(range(1, 25))


def test_concurrent_applies_of_the_same_spec_make_one_version(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        changes = list(pool.map(lambda _: apply(database, "one", spec("a")), range(8)))
    assert sorted(changes) == [Change.CREATED] + [Change.UNCHANGED] * 7
    assert version(database) == 1


def test_a_ruleset_is_loaded_again_without_compiling_it_again(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(connection: sa.Connection) -> None:
        for n in range(300):
            apply_rule(sqlite_database, connection, f"r{n}", spec(f"t{n}"))

    sqlite_database.transact(work)
    first = load(sqlite_database, 300)
    monkeypatch.setattr(ruleset, "compile_pattern", None)  # what was compiled is not again
    apply(sqlite_database, "r0", spec("t0", enabled=False))
    again = load(sqlite_database, 301)
    assert again.rules == {k: v for k, v in first.rules.items() if v.name != "r0"}
    assert len(again.matcher.match({"type": "t1"})) == 1
    assert again.matcher.match({"type": "t0"}) == set()
    assert len(first.matcher.match({"type": "t0"})) == 1


def test_a_stored_pattern_that_is_none_any_more_is_named(sqlite_database: Database) -> None:
    apply(sqlite_database, "old", spec("a"))
    bad = {**spec("a").model_dump(mode="json"), "pattern": {"type": [{"gone": 1}]}}
    sqlite_database.transact(lambda c: c.execute(tables.rule_versions.update().values(spec=bad)))
    with pytest.raises(PatternError, match=r"rule 'old' version 1 .*\$\.type\[0\]\.gone"):
        load(sqlite_database, 1)


def test_the_stored_spec_is_the_applied_one(database: Database) -> None:
    rule = RuleSpec(
        pattern={"type": ["a", None, 1.5]}, actions=ACTIONS, dialect="eventbridge", description="d"
    )
    apply(database, "one", rule)
    (loaded,) = load(database, 1).rules.values()
    assert loaded.spec == rule
