"""A ruleset as it is used: every rule that was enabled at one version, and their matcher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury.errors import NotFoundError, PatternError
from augury.rules.matcher import Matcher
from augury.rules.pattern import Pattern, compile_pattern
from augury.rules.spec import RuleSpec
from augury.storage import tables
from augury.storage.tables import ruleset_members, rulesets


@dataclass(frozen=True, kw_only=True)
class RuleVersion:
    """One rule at one version."""

    rule_id: str
    name: str
    version: int
    spec: RuleSpec


_MOST_COMPILED = 20_000
_compiled: dict[tuple[str, int], tuple[Any, tuple[RuleVersion, Pattern]]] = {}


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    """The rules that were enabled together.

    Attributes:
        version: 0 for the time before the first rule.
        matcher: gives the ids of the rules that match an event.
        rules: by rule id; exactly those that `matcher` knows.
    """

    version: int
    matcher: Matcher
    rules: Mapping[str, RuleVersion]


def active_version(connection: sa.Connection) -> int:
    """The newest ruleset's version; 0 if no rule was ever enabled."""
    return connection.scalar(sa.select(sa.func.max(rulesets.c.version))) or 0


def load_ruleset(connection: sa.Connection, version: int) -> Ruleset:
    """Puts a ruleset together, be it the active one or one of long ago.

    Args:
        connection: for reading.
        version: 0 to `active_version`, both inclusive.

    Raises:
        NotFoundError: there never was such a version.
        PatternError: a rule was stored by an Augury whose patterns this one does not understand.
    """
    newest = active_version(connection)
    if not 0 <= version <= newest:
        raise NotFoundError(f"no ruleset version {version}; there are 0 to {newest}")
    known = [_known(row) for row in connection.execute(_members(version))]
    matcher = Matcher({rule.rule_id: pattern for rule, pattern in known})
    return Ruleset(version=version, matcher=matcher, rules={r.rule_id: r for r, _ in known})


def _known(row: sa.Row[Any]) -> tuple[RuleVersion, Pattern]:
    """A rule version and its pattern, compiled once in this process.

    Neither ever changes, unless somebody writes into the database; the audit must see that.
    """
    key = (row.rule_id, row.rule_version)
    spec, known = _compiled.get(key, (None, None))
    if known is None or spec != row.spec:
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        rule = _rule(row)
        known = rule, _pattern(rule)
        _compiled[key] = row.spec, known
    return known


def _pattern(rule: RuleVersion) -> Pattern:
    try:
        return compile_pattern(rule.spec.pattern, dialect=rule.spec.dialect)
    except PatternError as error:
        who = f"rule {rule.name!r} version {rule.version} cannot be read by this Augury"
        raise PatternError(f"{who}; apply it again with another pattern", error.faults) from error


def _members(version: int) -> sa.Select[Any]:
    members, versions, rules = ruleset_members.c, tables.rule_versions.c, tables.rules
    return (
        sa.select(members.rule_id, members.rule_version, versions.spec, rules.c.name)
        .join_from(
            ruleset_members,
            tables.rule_versions,
            (versions.id == members.rule_id) & (versions.version == members.rule_version),
        )
        .join(rules, rules.c.id == members.rule_id)
        .where(
            members.from_ruleset <= version,
            members.until_ruleset.is_(None) | (members.until_ruleset > version),
        )
        .order_by(members.rule_id)
    )


def _rule(row: sa.Row[Any]) -> RuleVersion:
    return RuleVersion(
        rule_id=row.rule_id,
        name=row.name,
        version=row.rule_version,
        spec=RuleSpec.model_validate(row.spec),
    )
