"""What people say of the past (`30d`, `2026-10-01`, a rule's name) as the ledger understands it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury import clock
from augury.errors import InvalidError
from augury.jobs.states import OutcomeState
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.ledger import EventFilter
from augury.rules.quantities import parse_duration
from augury.storage.tables import rules

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_EXPECTED = (
    "expected a time such as 2026-10-01T08:00:00Z, a day such as 2026-10-01 (its beginning in UTC) "
    "or how long ago, such as 30d, 12h or '90 min'"
)


def moment(text: str, name: str) -> datetime:
    """The instant that a text names.

    Args:
        text: RFC 3339 with a zone, a day, or a duration back from now.
        name: of the option or parameter, for the message.

    Raises:
        InvalidError: none of them.
    """
    readers: tuple[Callable[[str], datetime], ...] = (_day, clock.parse, _ago)
    for read in readers:
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    raise InvalidError(f"{name}: {_EXPECTED}; found {text!r:.80}")


def _day(text: str) -> datetime:
    if not _DAY.match(text):
        raise ValueError("not a day")
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _ago(text: str) -> datetime:
    return clock.utc_now() - timedelta(seconds=float(parse_duration(text)))


def is_duration(text: str) -> bool:
    """True if the text says how long ago, which is another instant each time."""
    try:
        parse_duration(text)
    except ValueError:
        return False
    return True


def rule_id_of(connection: sa.Connection, name_or_id: str) -> str:
    """Id of a rule; of one that was deleted only by its id.

    Raises:
        NotFoundError: no such rule; the message names close ones.
    """
    found = store.find(connection, Kind.RULE, name_or_id)
    if found is not None:
        return found.id
    by_id = connection.scalar(sa.select(rules.c.id).where(rules.c.id == name_or_id))
    return by_id or store.get(connection, Kind.RULE, name_or_id).id  # which says what there is


def event_filter(
    connection: sa.Connection,
    *,
    type: str | None = None,  # noqa: A002 - the attribute's name in every surface
    source: str | None = None,
    rule: str | None = None,
    since: str | None = None,
    until: str | None = None,
    outcome: str | None = None,
) -> EventFilter:
    """The filter that a command's options or a request's parameters say.

    Raises:
        InvalidError: a time or an outcome's state that is none.
        NotFoundError: no such rule.
    """
    return EventFilter(
        type=type,
        source=source,
        rule_id=None if rule is None else rule_id_of(connection, rule),
        since=None if since is None else moment(since, "since"),
        until=None if until is None else moment(until, "until"),
        outcome=None if outcome is None else _outcome_state(outcome),
    )


def _outcome_state(text: str) -> OutcomeState:
    try:
        return OutcomeState(text.upper())
    except ValueError as error:
        raise InvalidError(
            f"outcome: expected one of {', '.join(OutcomeState)}, found {text!r}"
        ) from error
