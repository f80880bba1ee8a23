"""Rulesets of long ago, put together again to match events a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury.actions.spec import parse_actions
from augury.errors import AuguryError, InvalidError
from augury.rules.ruleset import Ruleset, load_ruleset

_KEPT = 16
# what the router writes for a stored rule whose actions this Augury cannot read
_UNREADABLE_ACTION = "invalid"


@dataclass(kw_only=True)
class StoredRules:
    """One ruleset, ready to say what must have become of an event."""

    ruleset: Ruleset
    _actions: dict[str, dict[str, bool]] = field(default_factory=dict)

    def matched(self, event: Mapping[str, Any]) -> list[str]:
        """Ids of the rules that match, sorted as the ledger stores them."""
        return sorted(self.ruleset.matcher.match(event))

    def actions(self, rule_id: str) -> tuple[str, ...]:
        """Names of the rule's actions."""
        return tuple(self._parsed(rule_id))

    def acts_outside(self, rule_id: str, action: str) -> bool:
        """Whether an action of a rule is one that has an effect outside Augury."""
        return rule_id in self.ruleset.rules and self._parsed(rule_id).get(action, False)

    def _parsed(self, rule_id: str) -> dict[str, bool]:
        if rule_id not in self._actions:
            self._actions[rule_id] = parsed_actions(self.ruleset.rules[rule_id].spec.actions)
        return self._actions[rule_id]


def parsed_actions(actions: list[dict[str, Any]]) -> dict[str, bool]:
    """For each action by name: whether it acts outside."""
    try:
        return {action.name: action.effect is not None for action in parse_actions(actions)}
    except InvalidError:
        return {_UNREADABLE_ACTION: False}


class Rulesets:
    """The last few rulesets that were asked for; events of one time share them."""

    def __init__(self) -> None:
        self._kept: dict[int, StoredRules | str] = {}

    def get(self, connection: sa.Connection, version: int) -> StoredRules | str:
        """The ruleset, or why it cannot be put together."""
        if version not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[version] = _load(connection, version)
        return self._kept[version]


def _load(connection: sa.Connection, version: int) -> StoredRules | str:
    try:
        return StoredRules(ruleset=load_ruleset(connection, version))
    except (AuguryError, ValidationError) as error:
        return str(error)
