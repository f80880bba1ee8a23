"""Law 1, rule by rule: what was accepted, what matched, and what became of it."""

from __future__ import annotations

from collections import Counter

from augury.monitoring.audit.event_pages import LIVE_EPOCH, AuditedEvent, EventPage
from augury.monitoring.audit.report import RuleBalance
from augury.monitoring.audit.rulesets import StoredRules


class Balance:
    """Counts by matching every event again; grows with the number of rules, not of events."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._accepted: Counter[str] = Counter()
        self._matched: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = {}

    def add(self, page: EventPage) -> None:
        """Takes a page into account."""
        routed: Counter[int] = Counter()
        rules: dict[int, StoredRules] = {}
        for event in page.events:
            if not isinstance(event.rules, str):
                version = event.row.ruleset_version
                rules[version] = event.rules
                routed[version] += 1
            self._decided(event)
        for version, count in routed.items():
            for rule_id, rule in rules[version].ruleset.rules.items():
                self._names[rule_id] = rule.name
                self._accepted[rule_id] += count

    def _decided(self, event: AuditedEvent) -> None:
        self._matched.update(event.matched or ())
        for rule_id, _ in event.expected_outcomes() or ():
            self._expected[rule_id] += 1
        for outcome in event.outcomes:
            if outcome.epoch == LIVE_EPOCH:
                self._outcomes.setdefault(outcome.rule_id, Counter())[outcome.state] += 1

    def rules(self) -> list[RuleBalance]:
        """One balance for each rule that was ever asked, by name."""
        asked = sorted(self._accepted.keys() | self._outcomes.keys())
        balances = [
            RuleBalance(
                rule_id=rule_id,
                name=self._names.get(rule_id, rule_id),
                accepted=self._accepted[rule_id],
                not_matched=self._accepted[rule_id] - self._matched[rule_id],
                expected_outcomes=self._expected[rule_id],
                outcomes=dict(sorted(self._outcomes.get(rule_id, {}).items())),
            )
            for rule_id in asked
        ]
        return sorted(balances, key=lambda balance: (balance.name, balance.rule_id))
