"""Where a silence begins that no event of the rule's pattern began.

A rule with `absent` acts when nothing came for a time, so also when nothing ever came since there
is the rule. That silence begins with the event that told of the rule (`augury.rule.created`, or
`augury.rule.updated`: a change begins it anew), which is in the stream and has its accepted time
like any other. It gets an outcome under an epoch of its own, for the rule's pattern did not match
it, and joins the rule's lane. With `group_by` there is nothing to begin: which keys to wait for is
not known before each has come once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from augury import clock, ids
from augury.actions.spec import parse_actions
from augury.errors import InvalidError
from augury.events.catalog import OWN_SOURCE
from augury.jobs.states import OutcomeState
from augury.routing.arrivals import stream_order
from augury.routing.outcomes import LIVE_EPOCH, acting_epoch, lane_id
from augury.rules.spec import RuleSpec
from augury.storage.database import Database
from augury.storage.tables import (
    event_keys,
    events,
    group_members,
    lanes,
    outcomes,
    rules,
)

SILENCE_EPOCH = "silence"
_NO_KEY = "[]"


def begin_silences(database: Database) -> None:
    """Begins the silence of each enabled rule whose event is in the ledger. Idempotent.

    Raises:
        UnavailableError: the database did not answer.
    """
    with database.read() as connection:
        wanted = list(_missing(connection))
    if wanted:
        database.transact(lambda connection: _begin(database, connection, wanted))


def _missing(connection: sa.Connection) -> Iterator[tuple[Any, RuleSpec, sa.Row[Any]]]:
    listening = sa.select(rules).where(
        rules.c.deleted_at.is_(None),
        rules.c.enabled,
        sa.cast(rules.c.spec, sa.Text).contains('"absent"'),
    )
    for rule in connection.execute(listening):
        try:
            spec = RuleSpec.model_validate(rule.spec)
        except ValidationError:  # of an Augury that knew more; routing says so for each event
            continue
        if spec.group is None or spec.group.absent is None or spec.group.group_by:
            continue
        event = _event_of(connection, rule)
        if event is not None and not _has_begun(connection, rule.id, event.position):
            yield rule, spec, event


def _event_of(connection: sa.Connection, rule: sa.Row[Any]) -> Any:
    """The event that told of the rule's present version, if a router has seen it; None if not."""
    names = [f"{rule.id}:{rule.version}:{change}" for change in ("created", "updated")]
    return connection.execute(
        sa.select(events.c.position, events.c.entry_id, events.c.accepted_at)
        .join(event_keys, event_keys.c.position == events.c.position)
        .where(event_keys.c.source == OWN_SOURCE, event_keys.c.event_id.in_(names))
    ).one_or_none()


def _has_begun(connection: sa.Connection, rule_id: str, position: int) -> bool:
    look = sa.select(outcomes.c.id).where(
        outcomes.c.position == position,
        outcomes.c.rule_id == rule_id,
        outcomes.c.epoch == SILENCE_EPOCH,
    )
    return connection.execute(look.limit(1)).first() is not None


def _begin(
    database: Database,
    connection: sa.Connection,
    wanted: list[tuple[Any, RuleSpec, sa.Row[Any]]],
) -> None:
    now = clock.utc_now()
    for rule, spec, event in sorted(wanted, key=lambda found: str(found[0].id)):
        epoch = acting_epoch(LIVE_EPOCH, shadow=spec.shadow)
        lane = lane_id(rule.id, epoch, _NO_KEY)
        row = {"id": lane, "rule_id": rule.id, "epoch": epoch, "key": _NO_KEY, "created_at": now}
        database.insert_new(connection, lanes, [row], lanes.c.id)
        rows = [_outcome_row(rule, action, event.position, now) for action in _action_names(spec)]
        begun = database.insert_new(connection, outcomes, rows, outcomes.c.id, outcomes.c.action)
        members = [_member_row(lane, rule, event, found.id, found.action) for found in begun]
        if members:
            connection.execute(sa.insert(group_members), members)


def _action_names(spec: RuleSpec) -> list[str]:
    try:
        return sorted(action.name for action in parse_actions(spec.actions))
    except InvalidError:  # of another Augury: there is nothing that it could do
        return []


def _outcome_row(rule: sa.Row[Any], action: str, position: int, now: Any) -> dict[str, Any]:
    return {
        "id": ids.new_id("out"),
        "position": position,
        "rule_id": rule.id,
        "rule_version": rule.version,
        "action": action,
        "epoch": SILENCE_EPOCH,
        "state": OutcomeState.PENDING,
        "occurrence": f"silence:{rule.id}:{rule.version}",
        "created_at": now,
        "updated_at": now,
    }


def _member_row(
    lane: str, rule: sa.Row[Any], event: sa.Row[Any], outcome_id: str, action: str
) -> dict[str, Any]:
    return {
        "outcome_id": outcome_id,
        "lane_id": lane,
        "action": action,
        "rule_version": rule.version,
        "position": event.position,
        "entry_order": stream_order(event.entry_id),
        "accepted_at": event.accepted_at,
        "size_bytes": 0,
        "is_marker": False,
    }
