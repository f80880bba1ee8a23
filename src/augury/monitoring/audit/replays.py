"""Replays as the audit sees them: each row with its rule, put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury.errors import AuguryError
from augury.monitoring.audit.check import Finding
from augury.monitoring.audit.rulesets import parsed_actions
from augury.rules.pattern import Pattern, compile_pattern
from augury.rules.spec import RuleSpec
from augury.storage.tables import replays, rule_versions

LIVE_EPOCH = "0"

type Decided = tuple[str, str, str]  # epoch, rule id, action


@dataclass(frozen=True)
class AuditedReplay:
    """One replay.

    Attributes:
        row: of `replays`.
        pattern: of its rule at its version; None if that cannot be read any more.
        actions: names of the rule's actions.
    """

    row: sa.Row[Any]
    pattern: Pattern | None
    actions: Sequence[str]

    def has_decided(self, position: int, accepted_at: datetime) -> bool:
        """Whether it is past an event that it had to look at."""
        row = self.row
        return (
            position <= row.position
            and position <= row.last_position
            and (row.since is None or accepted_at >= row.since)
            and (row.until is None or accepted_at < row.until)
        )

    def expected(
        self, position: int, accepted_at: datetime, document: Mapping[str, Any]
    ) -> set[Decided]:
        """The outcomes that it must have left at an event; its pattern must be readable."""
        assert self.pattern is not None
        if not self.has_decided(position, accepted_at) or not self.pattern.matches(document):
            return set()
        return {(self.row.id, self.row.rule_id, action) for action in self.actions}


def audited_replays(connection: sa.Connection) -> list[AuditedReplay]:
    """All of them; there are as many as people have asked for."""
    at_version = (rule_versions.c.id == replays.c.rule_id) & (
        rule_versions.c.version == replays.c.rule_version
    )
    select = sa.select(replays, rule_versions.c.spec).outerjoin(rule_versions, at_version)
    return [_audited(row) for row in connection.execute(select)]


def _audited(row: sa.Row[Any]) -> AuditedReplay:
    try:
        spec = RuleSpec.model_validate(row.spec)
        pattern = compile_pattern(spec.pattern, dialect=spec.dialect)
    except (AuguryError, ValidationError):
        return AuditedReplay(row, None, ())
    return AuditedReplay(row, pattern, tuple(parsed_actions(spec.actions)))


def compared(
    known: Sequence[AuditedReplay],
    subject: str,
    event: tuple[int, datetime, Mapping[str, Any]],
    decided: Iterable[Decided],
) -> Iterator[Finding]:
    """What the outcomes at one event lack or have too many of, in the epochs of readable replays.

    Args:
        known: replays, read in one snapshot with the outcomes.
        subject: how a finding names the event.
        event: its position, when it was accepted, and its document.
        decided: the outcomes there, in any epoch.
    """
    readable = [replay for replay in known if replay.pattern is not None]
    epochs = {replay.row.id for replay in readable}
    found = sorted(each for each in decided if each[0] in epochs)
    expected: set[Decided] = set().union(*(replay.expected(*event) for replay in readable))
    for epoch, rule_id, action in sorted(expected - set(found)):
        where = f"{subject}, rule {rule_id}, action {action}"
        yield Finding(where, f"one outcome in epoch {epoch}, for the rule matches it", "none")
    for epoch, rule_id, action in found:
        if (epoch, rule_id, action) not in expected:
            where = f"{subject}, rule {rule_id}, action {action}"
            yield Finding(where, f"no outcome in epoch {epoch}", "one")
