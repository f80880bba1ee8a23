"""Rules and the ruleset: which rule versions were active together, and when.

A ruleset is the set of enabled rules. Whatever changes that set (a rule is created, changed,
enabled, disabled or deleted) makes exactly one new ruleset version, in the transaction of the
change; whatever leaves it as it was (the same rule applied again, a disabled rule edited) makes
none. Membership is kept as intervals, so that any past ruleset can be put together again: events
are routed under a version that the ledger records, and audit matches them again under that one.
"""

from __future__ import annotations

import sqlalchemy as sa

from augury import clock
from augury.resources import store
from augury.resources.store import Change, Kind, Resource
from augury.rules.pattern import compile_pattern
from augury.rules.ruleset import active_version
from augury.rules.spec import RuleSpec
from augury.storage.database import Database
from augury.storage.tables import ruleset_members, rulesets


def apply_rule(
    database: Database, connection: sa.Connection, name: str, spec: RuleSpec
) -> tuple[Resource, Change]:
    """Creates or updates a rule inside the caller's transaction; the same spec changes nothing.

    Raises:
        PatternError: the pattern is not one; every fault is named.
    """
    compile_pattern(spec.pattern, dialect=spec.dialect)
    _take_turns(database, connection)
    resource, change = store.put(
        database, connection, Kind.RULE, name, spec.model_dump(mode="json"), enabled=spec.enabled
    )
    if change is not Change.UNCHANGED:
        _move(connection, resource.id, resource.version if spec.enabled else None)
    return resource, change


def delete_rule(database: Database, connection: sa.Connection, name: str) -> Resource:
    """Deletes a rule inside the caller's transaction; its versions and its history stay.

    Raises:
        NotFoundError: no such rule.
    """
    _take_turns(database, connection)
    resource = store.delete(database, connection, Kind.RULE, name)
    _move(connection, resource.id, None)
    return resource


def _take_turns(database: Database, connection: sa.Connection) -> None:
    """Lets one change of the ruleset at a time through; readers are not kept waiting."""
    if not database.is_sqlite:  # whose writers take turns anyway
        connection.execute(sa.text(f"LOCK TABLE {rulesets.name} IN SHARE ROW EXCLUSIVE MODE"))


def _move(connection: sa.Connection, rule_id: str, member: int | None) -> None:
    """Replaces whatever version of the rule is in the ruleset by `member` (None: by nothing)."""
    following = active_version(connection) + 1
    left = connection.execute(
        sa.update(ruleset_members)
        .where(ruleset_members.c.rule_id == rule_id, ruleset_members.c.until_ruleset.is_(None))
        .values(until_ruleset=following)
    )
    if not left.rowcount and member is None:
        return
    connection.execute(sa.insert(rulesets).values(version=following, created_at=clock.utc_now()))
    if member is not None:
        connection.execute(
            sa.insert(ruleset_members).values(
                rule_id=rule_id, rule_version=member, from_ruleset=following
            )
        )
