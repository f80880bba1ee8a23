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
    _actions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def matched(self, event: Mapping[str, Any]) -> list[str]:
        """Ids of the rules that match, sorted as the ledger stores them."""
        return sorted(self.ruleset.matcher.match(event))

    def actions(self, rule_id: str) -> tuple[str, ...]:
        """Names of the rule's actions."""
        if rule_id not in self._actions:
            self._actions[rule_id] = _action_names(self.ruleset.rules[rule_id].spec.actions)
        return self._actions[rule_id]


def _action_names(actions: list[dict[str, Any]]) -> tuple[str, ...]:
    try:
        return tuple(action.name for action in parse_actions(actions))
    except InvalidError:
        return (_UNREADABLE_ACTION,)


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
