"""What must hold for each event in the ledger: law 1, from the stored body and ruleset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.ids import digest
from augury.jobs.states import OutcomeState
from augury.monitoring.audit.check import Check, Finding, differences, shown
from augury.monitoring.audit.event_pages import LIVE_EPOCH, AuditedEvent, EventPage

_NEEDS_REASON = frozenset(
    {
        OutcomeState.SUPPRESSED,
        OutcomeState.DROPPED,
        OutcomeState.SHADOW,
        OutcomeState.DEAD,
        OutcomeState.DISCARDED,
    }
)
_IN_A_RUN = frozenset({OutcomeState.STARTED, OutcomeState.JOINED})
_DUPLICATE = "duplicate"
_DUPLICATE_DIFFERS = "duplicate, payload differs"
_STATES = frozenset(OutcomeState)
_ATTRIBUTES = ("content_digest", "source", "event_id", "type", "subject")


def content_digest(document: dict[str, Any]) -> str:
    """SHA-256 of an event in structured form, with keys sorted and no white space."""
    return digest(msgspec.json.encode(document, order="sorted"))


def _body(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        document, row = event.document, event.row
        if document is None:
            yield Finding(event.subject, "a body that is a JSON object", shown(row.body))
            continue
        said = _attributes(document)
        if said != tuple(getattr(row, name) for name in _ATTRIBUTES):
            named = dict(zip(_ATTRIBUTES, said, strict=True))
            expected, found = differences(named, row._mapping)
            yield Finding(event.subject, f"what its body says: {expected}", found)


def _attributes(document: dict[str, Any]) -> tuple[object, ...]:
    """What the ledger's columns must say of an event, in the order of `_ATTRIBUTES`."""
    subject = document.get("subject")
    return (
        content_digest(document),
        document.get("source"),
        document.get("id"),
        document.get("type"),
        subject.replace("\x00", "\ufffd") if isinstance(subject, str) else None,
    )


def _ruleset(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if isinstance(event.rules, str):
            version = event.row.ruleset_version
            yield Finding(event.subject, f"ruleset {version} to be readable", event.rules)


def _matched(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if event.matched is not None and event.matched != event.row.matched:
            version = event.row.ruleset_version
            expected = f"matched={event.matched} under ruleset {version}"
            yield Finding(event.subject, expected, f"matched={shown(event.row.matched)}")


def _live(event: AuditedEvent) -> dict[tuple[str, str], list[sa.Row[Any]]]:
    """The event's outcomes outside replays, by (rule id, action)."""
    found: dict[tuple[str, str], list[sa.Row[Any]]] = {}
    for outcome in event.outcomes:
        if outcome.epoch == LIVE_EPOCH:
            found.setdefault((outcome.rule_id, outcome.action), []).append(outcome)
    return found


def _missing(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        expected = event.expected_outcomes()
        if not expected:
            continue
        for rule_id, action in sorted(expected - _live(event).keys()):
            subject = f"{event.subject}, rule {rule_id}, action {action}"
            yield Finding(subject, "one outcome, for the rule matches the event", "none")


def _unmatched(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if not event.outcomes or (expected := event.expected_outcomes()) is None:
            continue
        for (rule_id, action), rows in sorted(_live(event).items()):
            subject = f"{event.subject}, rule {rule_id}, action {action}"
            if (rule_id, action) not in expected:
                wanted = "no outcome, for no such action of a rule matches the event"
                yield Finding(subject, wanted, f"outcome {rows[0].id} ({rows[0].state})")
            elif len(rows) > 1:
                yield Finding(subject, "one outcome", f"{len(rows)}: {[row.id for row in rows]}")


def _rule_version(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if isinstance(event.rules, str):
            continue
        for outcome in event.outcomes:
            rule = event.rules.ruleset.rules.get(outcome.rule_id)
            if outcome.epoch != LIVE_EPOCH or rule is None:
                continue
            if outcome.rule_version != rule.version:
                expected = f"rule_version={rule.version} of ruleset {event.row.ruleset_version}"
                found = f"rule_version={outcome.rule_version}"
                yield Finding(f"outcome {outcome.id}", expected, found)


def _state(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            if outcome.state not in _STATES:
                expected = "a state of an outcome"
                yield Finding(f"outcome {outcome.id}", expected, shown(outcome.state))
            elif outcome.state in _NEEDS_REASON and not outcome.reason:
                yield Finding(f"outcome {outcome.id}", f"{outcome.state} with a reason", "none")


def _duplicate(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if event.row.duplicate_of is None:
            yield from _unmarked(event)
        else:
            original = page.originals.get(event.row.duplicate_of)
            if original is None and event.row.duplicate_of <= page.archived_until:
                continue
            yield from _marked(event, original)


def _unmarked(event: AuditedEvent) -> Iterator[Finding]:
    key = event.key
    if key is not None and key.position < event.row.position:
        expected = f"duplicate_of={key.position}, where its (source, id) was first accepted"
        yield Finding(event.subject, expected, "duplicate_of=None")


def _marked(event: AuditedEvent, original: sa.Row[Any] | None) -> Iterator[Finding]:
    row = event.row
    mark = f"duplicate_of={row.duplicate_of}"
    if original is None:
        yield Finding(event.subject, f"an event at position {row.duplicate_of}", "none")
        return
    same = (original.source, original.event_id) == (row.source, row.event_id)
    if not same or original.duplicate_of is not None:
        expected = "duplicate_of to name the first event with its (source, id)"
        yield Finding(event.subject, expected, f"{mark}, which is not that")
        return
    equal = original.content_digest == row.content_digest
    reason = _DUPLICATE if equal else _DUPLICATE_DIFFERS
    for rows in _live(event).values():
        for outcome in rows:
            if (outcome.state, outcome.reason) != (OutcomeState.SUPPRESSED, reason):
                found = f"{outcome.state} ({outcome.reason})"
                yield Finding(f"outcome {outcome.id}", f"SUPPRESSED ({reason})", found)


def _key(page: EventPage) -> Iterator[Finding]:
    """The key of a first event, as long as it must be remembered."""
    for event in page.events:
        row, key = event.row, event.key
        if row.duplicate_of is not None:
            continue
        if key is not None:
            right = key.position == row.position and key.content_digest == row.content_digest
            if right or key.position < row.position:  # an unmarked duplicate has its own check
                continue
        if row.accepted_at < page.keys_since:
            continue
        wanted = {"position": row.position, "content_digest": row.content_digest}
        expected, found = differences(wanted, key._mapping if key is not None else {})
        yield Finding(f"key of {event.subject} ({row.source}, {row.event_id})", expected, found)


def _buried(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        if event.grave is not None:
            entry = f"entry {event.row.entry_id}"
            found = f"in both: {event.subject} and {event.grave.id}"
            yield Finding(entry, "to be routed or a dead letter", found)


def _run(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            subject = f"outcome {outcome.id}"
            if outcome.state == OutcomeState.STARTED:
                yield from _started(subject, outcome)
            elif outcome.run_id is not None and outcome.state not in _IN_A_RUN:
                yield Finding(subject, f"{outcome.state} without a run", f"run {outcome.run_id}")
            elif outcome.run_id is not None and outcome.run_found is None:
                yield Finding(subject, "JOINED with its run", f"no run {outcome.run_id}")


def _started(subject: str, outcome: sa.Row[Any]) -> Iterator[Finding]:
    if outcome.run_found is None:
        yield Finding(subject, "STARTED with its run", f"no run {outcome.run_id}")
        return
    expected, found = differences(
        {"run_outcome_id": outcome.id, "run_position": outcome.position}, outcome._mapping
    )
    if found:
        yield Finding(subject, f"run {outcome.run_id} to name it: {expected}", found)


def _claim(page: EventPage) -> Iterator[Finding]:
    for event in page.events:
        for outcome in event.outcomes:
            is_object = (outcome.occurrence or "").startswith("object:")
            acts = outcome.state in _IN_A_RUN or outcome.effect_state is not None
            if not acts or not is_object:
                continue
            if outcome.claim_outcome_id != outcome.id:
                found = outcome.claim_outcome_id or "nobody"
                expected = f"its object claimed by it ({shown(outcome.occurrence)})"
                yield Finding(f"outcome {outcome.id}", expected, f"claimed by {found}")


_RESTORE = (
    "the ledger was changed by something other than Augury, or is damaged: compare with a backup, "
    "and report a bug if nobody touched it"
)
_DECIDE_AGAIN = (
    "see what the rule should have done about this event (`augury events show POSITION`); start "
    "the missing run by hand, or cancel the one too many, and report a bug"
)

EVENT_CHECKS: tuple[Check[EventPage], ...] = (
    Check(name="event_body", examine=_body, advice=_RESTORE),
    Check(
        name="event_ruleset",
        examine=_ruleset,
        advice="the rules this event was routed under are gone or unreadable, so nobody can prove "
        "what it matched: restore `rulesets`, `ruleset_members` and `rule_versions`",
    ),
    Check(name="event_matched", examine=_matched, advice=_DECIDE_AGAIN),
    Check(name="outcome_missing", examine=_missing, advice=_DECIDE_AGAIN),
    Check(name="outcome_unmatched", examine=_unmatched, advice=_DECIDE_AGAIN),
    Check(name="outcome_rule_version", examine=_rule_version, advice=_RESTORE),
    Check(name="outcome_state", examine=_state, advice=_RESTORE),
    Check(
        name="event_duplicate",
        examine=_duplicate,
        advice="an event that was published twice may have acted twice: look at the outcomes of "
        "both, and delete the run too many",
    ),
    Check(
        name="event_key",
        examine=_key,
        advice="the memory of (source, id) is incomplete: the same event published again would act "
        "again; restore the row of `event_keys`",
    ),
    Check(name="event_buried", examine=_buried, advice=_RESTORE),
    Check(
        name="outcome_run",
        examine=_run,
        advice="the ledger says that a run was started and there is none: start it by hand "
        "(`augury runs start`), and report a bug",
    ),
    Check(
        name="object_claim",
        examine=_claim,
        advice="the object could enter a second run under this rule: restore the row of "
        "`object_claims`",
    ),
)
