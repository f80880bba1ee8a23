"""Why a rule did or did not act on an event: the pattern's answer, then what the ledger knows.

The pattern is asked as it is now (or as a file has it); the ledger tells what was decided when the
event was routed. Both may differ, for rules change, and then both are said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from augury.errors import InvalidError
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.ledger import LedgerOutcome
from augury.rules.explain import Failure, explain
from augury.rules.pattern import Pattern, compile_pattern
from augury.rules.spec import RuleSpec

if TYPE_CHECKING:
    import sqlalchemy as sa

    from augury.engine.rule_files import RuleFile
    from augury.routing.history import History


@dataclass(frozen=True, kw_only=True)
class ExplainedEvent:
    """An event to explain. `position` and `outcomes` only if the ledger holds it."""

    document: Mapping[str, Any]
    position: int | None = None
    ruleset_version: int | None = None
    matched: tuple[str, ...] = ()
    outcomes: tuple[LedgerOutcome, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExplainedRule:
    """A rule to explain. `rule_id` and `version` only if it is applied."""

    name: str
    pattern: Pattern
    rule_id: str | None = None
    version: int | None = None
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The whole answer.

    Attributes:
        event_id: the event's `id`.
        position: in the ledger; None for an event from a file.
        rule: the rule's name.
        rule_version: which version was asked; None for a rule from a file.
        matches: whether the pattern, as it is now, is met.
        failure: the first field that is not; None if it matches.
        outcomes: what each action of this rule made of the event when it was routed, in every
            epoch; empty if the ledger does not hold the event or the rule did not match then.
        notes: where rule and ledger are not of one time, in sentences.
    """

    event_id: str
    position: int | None
    rule: str
    rule_version: int | None
    matches: bool
    failure: Failure | None
    outcomes: tuple[LedgerOutcome, ...] = ()
    notes: tuple[str, ...] = field(default=())


def event_in_ledger(history: History, position_or_id: str) -> ExplainedEvent:
    """An accepted event with its outcomes.

    Raises:
        NotFoundError: there is none.
    """
    past = history.show(position_or_id)
    found = past.event
    return ExplainedEvent(
        document=found.document,
        position=found.position,
        ruleset_version=found.ruleset_version,
        matched=found.matched,
        outcomes=past.outcomes,
    )


def event_in_file(text: bytes, origin: str) -> ExplainedEvent:
    """An event as a file holds it; also one as `augury events show --json` prints it.

    Raises:
        InvalidError: not a JSON object.
    """
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"{origin}: expected an event in JSON; {error}") from error
    if not isinstance(document, dict):
        raise InvalidError(f"{origin}: expected a JSON object, found {type(document).__name__}")
    inner = document.get("event")
    if isinstance(inner, dict) and "entry_id" in document:
        return ExplainedEvent(document=inner)
    return ExplainedEvent(document=document)


def rule_by_name(connection: sa.Connection, name: str) -> ExplainedRule:
    """An applied rule, as it is now.

    Raises:
        NotFoundError: no such rule; the message names close ones.
    """
    resource = store.get(connection, Kind.RULE, name)
    spec = RuleSpec.model_validate(resource.spec)
    return ExplainedRule(
        name=resource.name,
        pattern=compile_pattern(spec.pattern, dialect=spec.dialect),
        rule_id=resource.id,
        version=resource.version,
        enabled=spec.enabled,
    )


def rule_in_file(found: RuleFile) -> ExplainedRule:
    """A rule as a file holds it."""
    return ExplainedRule(name=found.name, pattern=found.pattern)


def explain_event(event: ExplainedEvent, rule: ExplainedRule) -> Explanation:
    """Compares one event with one rule; changes nothing."""
    failure = explain(rule.pattern, event.document)
    outcomes = tuple(o for o in event.outcomes if o.rule_id == rule.rule_id)
    explained = Explanation(
        event_id=str(event.document.get("id", "")),
        position=event.position,
        rule=rule.name,
        rule_version=rule.version,
        matches=failure is None,
        failure=failure,
        outcomes=outcomes,
    )
    return replace(explained, notes=tuple(_notes(event, rule, explained)))


def _notes(event: ExplainedEvent, rule: ExplainedRule, explained: Explanation) -> list[str]:
    if event.position is None or rule.rule_id is None:
        return []
    notes = []
    if not rule.enabled:
        notes.append("the rule is disabled: it matches nothing until it is enabled")
    then = rule.rule_id in event.matched
    under = f"when the event was routed (under ruleset {event.ruleset_version})"
    if explained.matches and not then:
        notes.append(f"it did not match {under}: the rule was not there, disabled or another then")
    if then and not explained.matches:
        notes.append(f"it matched {under}: the rule was changed since")
    return notes
