"""What each matching rule's actions want to do about each event: pure, before any transaction.

Whether it happens is not decided here: a duplicate, a known object or a missing job is only seen
inside the transaction (`commit.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augury.actions.occurrence import Occurrence, occurrence
from augury.actions.resolve import Request, resolve
from augury.actions.spec import ActionSpec, parse_actions
from augury.errors import AuguryError, InvalidError
from augury.routing.arrivals import Arrival
from augury.rules.membership import Membership, membership
from augury.rules.ruleset import Ruleset, RuleVersion

UNREADABLE_ACTION = "invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """One action of one rule that matched one event.

    Attributes:
        occurrence: what the event is about, once for all actions.
        request: a run to start, or an effect to deliver later; None if `fault` says why there is
            nothing to do, or `membership` that this is not decided event by event.
        membership: what its group needs to know of the event, if the rule groups its events.
        shadow: nothing is done; the outcome says what would have been.
    """

    arrival: Arrival
    rule_id: str
    rule_version: int
    action: str
    occurrence: Occurrence
    request: Request | None = None
    fault: str | None = None
    membership: Membership | None = None
    shadow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One event, the rules that match it (sorted ids), and what they want."""

    arrival: Arrival
    matched: tuple[str, ...]
    intents: tuple[Intent, ...]


class ActiveRules:
    """A ruleset with its actions validated, ready to decide."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.version = ruleset.version
        self._matcher = ruleset.matcher
        self._rules = ruleset.rules
        self._actions = {rule_id: _actions(rule) for rule_id, rule in ruleset.rules.items()}

    def decide(self, arrivals: Sequence[Arrival]) -> list[Decision]:
        """One decision for each arrival, in the same order."""
        return [self._decide(arrival) for arrival in arrivals]

    def _decide(self, arrival: Arrival) -> Decision:
        matched = tuple(sorted(self._matcher.match(arrival.document)))
        if not matched:
            return Decision(arrival=arrival, matched=(), intents=())
        about = occurrence(arrival.document)
        intents = tuple(
            intent
            for rule_id in matched
            for intent in self._intents(arrival, self._rules[rule_id], about)
        )
        return Decision(arrival=arrival, matched=matched, intents=intents)

    def _intents(self, arrival: Arrival, rule: RuleVersion, about: Occurrence) -> list[Intent]:
        joins = membership(rule.spec.group, arrival.document) if rule.spec.is_grouped else None
        return [
            Intent(
                arrival=arrival,
                rule_id=rule.rule_id,
                rule_version=rule.version,
                action=name,
                occurrence=about,
                request=None if isinstance(request, str) else request,
                fault=request if isinstance(request, str) else None,
                membership=None if isinstance(request, str) else joins,
                shadow=rule.spec.shadow,
            )
            for name, request in self._requests(arrival, rule)
        ]

    def _requests(
        self, arrival: Arrival, rule: RuleVersion
    ) -> list[tuple[str, Request | str | None]]:
        """What each action asks for; None if that is only known when its group closes."""
        actions = self._actions[rule.rule_id]
        if isinstance(actions, InvalidError):
            return [(UNREADABLE_ACTION, str(actions))]
        if rule.spec.is_grouped:
            return [(action.name, None) for action in actions]
        return [(action.name, _request(action, arrival.document)) for action in actions]


def _actions(rule: RuleVersion) -> tuple[ActionSpec, ...] | InvalidError:
    """The rule's actions; an error instead if an earlier Augury accepted what this one does not."""
    try:
        return parse_actions(rule.spec.actions)
    except InvalidError as error:
        return error


def _request(action: ActionSpec, event: Mapping[str, Any]) -> Request | str:
    try:
        return resolve(action, event)
    except AuguryError as error:
        return str(error)
