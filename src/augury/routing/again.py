"""One rule over past events: what the router would decide, without the stream.

Backtest and replay share this. A past event becomes an arrival as it once was, and the same code
that decides about what arrives now decides about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from augury.actions.start_run import RunRequest
from augury.bus.port import Delivery
from augury.routing.archives import PastEvent
from augury.routing.arrivals import Arrival
from augury.routing.commit import DUPLICATE
from augury.routing.decisions import ActiveRules, Intent
from augury.routing.epochs import with_model
from augury.routing.ledger import LedgerEvent
from augury.routing.outcomes import Duplicate
from augury.rules.matcher import Matcher
from augury.rules.pattern import compile_pattern
from augury.rules.ruleset import Ruleset, RuleVersion


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What one rule wants about some past events.

    Attributes:
        intents: with the position of each one's event, in ledger order.
        num_matched: how many of the events the rule matches.
        duplicates: those of them that were accepted before.
    """

    intents: list[tuple[int, Intent]]
    num_matched: int
    duplicates: Mapping[int, Duplicate]


class RuleAgain:
    """One version of a rule, ready to decide about past events.

    Args:
        rule: also one that is disabled, or never was applied.
        model: `name@version` that every run is to use instead of its own; None: its own.
    """

    def __init__(self, rule: RuleVersion, *, model: str | None = None) -> None:
        pattern = compile_pattern(rule.spec.pattern, dialect=rule.spec.dialect)
        matcher = Matcher({rule.rule_id: pattern})
        ruleset = Ruleset(version=0, matcher=matcher, rules={rule.rule_id: rule})
        self._rules = ActiveRules(ruleset)
        self._model = model

    def decide(self, past: Iterable[PastEvent]) -> Decided:
        """What the rule wants about each event that it matches."""
        intents: list[tuple[int, Intent]] = []
        duplicates: dict[int, Duplicate] = {}
        num_matched = 0
        for each in past:
            (decision,) = self._rules.decide([_arrival(each.event)])
            num_matched += bool(decision.matched)
            position, original = each.event.position, each.event.duplicate_of
            intents += [(position, self._with_model(intent)) for intent in decision.intents]
            if original is not None:
                duplicates[position] = Duplicate(original=original, reason=DUPLICATE)
        return Decided(intents=intents, num_matched=num_matched, duplicates=duplicates)

    def _with_model(self, intent: Intent) -> Intent:
        if not isinstance(intent.request, RunRequest):
            return intent
        return replace(intent, request=self.with_model(intent.request))

    def with_model(self, request: RunRequest) -> RunRequest:
        """The request, with the model that every run is to use."""
        return with_model(request, self._model)


def _arrival(event: LedgerEvent) -> Arrival:
    body = _encoded(event.document)
    return Arrival(
        delivery=Delivery(
            incarnation=event.incarnation, entry_id=event.entry_id, body=body, attempt=0
        ),
        document=event.document,
        body=body.decode(),
        source=event.source,
        event_id=event.event_id,
        event_type=event.type,
        subject=event.subject,
        content_digest=event.content_digest,
        accepted_at=event.accepted_at,
    )


def _encoded(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document)
