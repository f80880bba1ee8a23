"""What an audit found, as plain values that turn into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from augury import clock


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken invariant.

    Attributes:
        check: name of the check; docs/audit.md has a section for each.
        subject: what it is about, for example `event 17` or `run run_01J...`.
        expected: what the invariant says.
        found: what the evidence says.
        advice: what to do.
    """

    check: str
    subject: str
    expected: str
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.check}: {self.subject}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Something that can no longer be looked at, and why: evidence is gone, nothing is broken."""

    check: str
    subject: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where the audit cut through the running system.

    Attributes:
        position: the ledger's last position at that time; 0 if it was empty.
        taken_at: when.
        incarnation: the bus's life; None if it holds no stream.
    """

    position: int
    taken_at: datetime
    incarnation: str | None


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """What was on its way at the cut; never a violation by itself.

    Attributes:
        kind: for example `bus entries`, `outbox`, `runs IN_PROGRESS`, `work LEASED`.
        count: how many.
        oldest_age_s: seconds since the oldest of them began.
    """

    kind: str
    count: int
    oldest_age_s: float


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that happened to the bus and that nobody has acknowledged."""

    id: str
    kind: str
    position: int
    created_at: datetime
    detail: Mapping[str, Any]
    message: str


@dataclass(frozen=True, kw_only=True)
class RuleBalance:
    """Law 1 for one rule: accepted = not_matched + matched, and matched x actions = outcomes.

    Attributes:
        accepted: events routed while the rule was enabled.
        not_matched: those of them that its pattern, run again, does not match.
        expected_outcomes: actions of the rule, summed over the events that match.
        outcomes: outcomes in the ledger, per state.
    """

    rule_id: str
    name: str
    accepted: int
    not_matched: int
    expected_outcomes: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The whole answer.

    Attributes:
        deep: whether objects were looked at, or only the ledger and the stream.
        checked: for each check, how many subjects it looked at.
        violations: what is wrong, at most `LISTED_PER_CHECK` of each check.
        num_violations: for each check that found some, how many in all.
        unknown: what can no longer be checked; does not make the audit fail. Bounded as above.
        incidents: unacknowledged; each makes the audit fail until somebody acknowledges it.
        dead_letters_open: entries that could not be routed, and actions that failed for good,
            that wait for a person.
        seconds: how long the audit took.
        ok: no violation and no unacknowledged incident.
    """

    cut: Cut
    deep: bool
    checked: Mapping[str, int]
    violations: tuple[Violation, ...]
    num_violations: Mapping[str, int]
    unknown: tuple[Unknown, ...]
    num_unknown: Mapping[str, int]
    in_flight: tuple[InFlight, ...]
    incidents: tuple[Incident, ...]
    rules: tuple[RuleBalance, ...]
    dead_letters_open: int
    seconds: float
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as RFC 3339 text."""
        document: dict[str, Any] = _plain(asdict(self))
        return document


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return clock.iso(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
