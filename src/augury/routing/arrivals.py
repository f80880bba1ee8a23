"""Deliveries as the router reads them: an event's attributes and its content's digest.

The stream is fed by us, but anybody with its address can write to it. What cannot be an event, or
what no database could hold as one, is told apart here, before any transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from augury.bus.port import Delivery
from augury.events.envelope import LONGEST_ATTRIBUTE_BYTES
from augury.ids import digest

_REQUIRED = ("source", "id", "type")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A delivery that is an event.

    Attributes:
        delivery: what the bus handed out.
        document: the event in structured form.
        body: the event's JSON text, as published.
        content_digest: SHA-256 of the event, whatever the order of its keys.
        accepted_at: when the bus took it, by the bus's clock; so it does not depend on who routes.
    """

    delivery: Delivery
    document: dict[str, Any]
    body: str
    source: str
    event_id: str
    event_type: str
    subject: str | None
    content_digest: str
    accepted_at: datetime

    @property
    def entry(self) -> tuple[str, str]:
        """Incarnation and entry id: what identifies a delivery."""
        return self.delivery.incarnation, self.delivery.entry_id

    @property
    def order(self) -> str:
        """Place in the stream, as text that sorts."""
        return stream_order(self.delivery.entry_id)

    @property
    def key(self) -> tuple[str, str]:
        """Source and id: what identifies an event."""
        return self.source, self.event_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A delivery that is no event, and why."""

    delivery: Delivery
    reason: str


def read_deliveries(deliveries: Iterable[Delivery]) -> tuple[list[Arrival], list[Unreadable]]:
    """Tells events from what is none; arrivals in the stream's order."""
    arrivals: list[Arrival] = []
    unreadable: list[Unreadable] = []
    for delivery in deliveries:
        read = _read(delivery)
        if isinstance(read, Arrival):
            arrivals.append(read)
        else:
            unreadable.append(read)
    return sorted(arrivals, key=_stream_order), unreadable


def _read(delivery: Delivery) -> Arrival | Unreadable:
    try:
        document = msgspec.json.decode(delivery.body)
        body = delivery.body.decode()
        accepted = accepted_at(delivery.entry_id)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        return Unreadable(delivery=delivery, reason=f"not JSON: {error}")
    reason = _refusal(document)
    if reason is not None:
        return Unreadable(delivery=delivery, reason=reason)
    subject = document.get("subject")
    return Arrival(
        delivery=delivery,
        document=document,
        body=body,
        source=document["source"],
        event_id=document["id"],
        event_type=document["type"],
        subject=_storable(subject) if isinstance(subject, str) else None,
        content_digest=content_digest(document),
        accepted_at=accepted,
    )


def content_digest(document: dict[str, Any]) -> str:
    """SHA-256 of an event in structured form, with keys sorted and no white space."""
    return digest(msgspec.json.encode(document, order="sorted"))


def _refusal(document: Any) -> str | None:
    """Why this is no event, or None; the API asks for more, the ledger needs only this much."""
    if not isinstance(document, dict):
        return f"not an event: expected a JSON object, found {type(document).__name__}"
    wrong = [name for name in _REQUIRED if not _is_attribute(document.get(name))]
    if not wrong:
        return None
    return (
        f"not an event: expected a string of 1 to {LONGEST_ATTRIBUTE_BYTES} bytes in "
        f"{', '.join(wrong)}"
    )


def _is_attribute(value: Any) -> bool:
    if not isinstance(value, str) or not value or "\x00" in value:
        return False
    return len(value) * 4 <= LONGEST_ATTRIBUTE_BYTES or len(value.encode()) <= (
        LONGEST_ATTRIBUTE_BYTES
    )


def _storable(text: str) -> str:
    """PostgreSQL's text holds anything but NUL; the body keeps the original."""
    return text.replace("\x00", "\ufffd")


def accepted_at(entry_id: str) -> datetime:
    """When the bus gave an entry its id, by its own clock.

    Raises:
        ValueError, OverflowError: it is none that a bus gives.
    """
    milliseconds = int(entry_id.partition("-")[0])
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def stream_order(entry_id: str) -> str:
    """An entry's id with both numbers in fixed width: text order is the stream's order."""
    milliseconds, _, sequence = entry_id.partition("-")
    return f"{int(milliseconds):015}-{int(sequence or 0):020}"


def _stream_order(arrival: Arrival) -> tuple[str, int, int]:
    milliseconds, _, sequence = arrival.delivery.entry_id.partition("-")
    return arrival.delivery.incarnation, int(milliseconds), int(sequence or 0)
