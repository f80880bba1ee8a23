"""Rule versions as the grouper needs them: what decided when an event was routed decides on."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from augury.actions.spec import ActionSpec, parse_actions
from augury.errors import InvalidError
from augury.rules.grouping import Policy, policy_of
from augury.rules.spec import RuleSpec
from augury.storage.tables import rule_versions, rules

_MOST_KEPT = 2000


@dataclass(frozen=True, kw_only=True)
class GroupingRule:
    """One version of a rule that groups.

    Attributes:
        actions: by name; a text instead says why this Augury cannot read them.
    """

    name: str
    spec: RuleSpec
    policy: Policy
    actions: dict[str, ActionSpec] | str

    def action(self, name: str) -> ActionSpec | str:
        """The action of that name, or why there is none."""
        if isinstance(self.actions, str):
            return self.actions
        return self.actions.get(name) or f"the rule has no action {name!r} any more"


class RuleVersions:
    """Reads each version once: it never changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], GroupingRule] = {}

    def get(self, connection: sa.Connection, rule_id: str, version: int) -> GroupingRule:
        """The rule as it was at `version`."""
        key = (rule_id, version)
        if key not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[key] = _read(connection, rule_id, version)
        return self._known[key]


def _read(connection: sa.Connection, rule_id: str, version: int) -> GroupingRule:
    select = (
        sa.select(rule_versions.c.spec, rules.c.name)
        .join_from(rule_versions, rules, rules.c.id == rule_versions.c.id)
        .where(rule_versions.c.id == rule_id, rule_versions.c.version == version)
    )
    row = connection.execute(select).one()
    spec = RuleSpec.model_validate(row.spec)
    try:
        actions: dict[str, ActionSpec] | str = {a.name: a for a in parse_actions(spec.actions)}
    except InvalidError as error:
        actions = str(error)
    return GroupingRule(name=row.name, spec=spec, policy=policy_of(spec.group), actions=actions)
