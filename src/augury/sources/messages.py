"""What a message of a foreign queue is: notifications, an event, or nothing that can be one. Pure.

CloudEvents are read in both modes of the AMQP binding (the body is the event; or its attributes
are headers that begin with `cloudEvents:` or `cloudEvents_`). Notifications of the source's
provider become events about objects. Everything else passes through untouched: JSON as the data of
`augury.message.received`, other bytes as its `data_base64`. Ids follow from the message's own id,
or from its body if it has none, so a message that is delivered again is a duplicate.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from augury.errors import InvalidError
from augury.events.catalog import EventType
from augury.events.envelope import Event, parse_event
from augury.events.http import BATCHED, STRUCTURED, parse_request
from augury.events.normalise import ObjectNotice, Provider, normalise
from augury.ids import derived_id, digest

_ATTRIBUTES = ("cloudevents:", "cloudevents_")
_SAYS_JSON = ("application/json", "text/json")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message, of whatever broker.

    Attributes:
        body: as it came.
        content_type: as the sender says; empty if it does not.
        headers: application headers.
        message_id: as the sender says; None if it does not.
    """

    body: bytes
    content_type: str = ""
    headers: Mapping[str, Any]
    message_id: str | None = None

    @property
    def key(self) -> str:
        """The same when the message is delivered again."""
        return self.message_id or digest(self.body)


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a message says."""

    notices: tuple[ObjectNotice, ...] = ()
    events: tuple[Event, ...] = ()


def read_message(
    message: Message, *, source: str, provider: Provider | None, max_bytes: int
) -> Read:
    """Reads one message.

    Args:
        message: which.
        source: name of the source that consumes it.
        provider: whose notifications are known; None: nobody's.
        max_bytes: largest event.

    Raises:
        InvalidError: it can never be an event: too large, a CloudEvent that is none, or not the
            JSON that its content type says.
    """
    media_type = message.content_type.partition(";")[0].strip().lower()
    attributes = _attributes(message.headers)
    if media_type in {STRUCTURED, BATCHED} or "specversion" in attributes:
        return Read(events=tuple(_cloud_events(message, attributes, max_bytes)))
    document = _decoded(message.body)
    if document is _NOT_JSON:
        if media_type in _SAYS_JSON or media_type.endswith("+json"):
            raise InvalidError(f"expected JSON, as the content type {media_type} says")
        return Read(events=(_bytes_event(message, source, media_type, max_bytes),))
    found = normalise(document, provider) if provider else []
    notices = tuple(item for item in found if isinstance(item, ObjectNotice))
    others = [item.document for item in found if not isinstance(item, ObjectNotice)]
    if not notices:
        others = [document]
    events = tuple(
        _passed(message, source, index, other, max_bytes) for index, other in enumerate(others)
    )
    return Read(notices=notices, events=events)


def _attributes(headers: Mapping[str, Any]) -> dict[str, str]:
    """Attributes of a CloudEvent in binary mode, without their prefix."""
    return {
        name[len(_ATTRIBUTES[0]) :].lower(): str(value)
        for name, value in headers.items()
        if name.lower().startswith(_ATTRIBUTES)
    }


def _cloud_events(message: Message, attributes: Mapping[str, str], max_bytes: int) -> list[Event]:
    headers = [("content-type", message.content_type)] if message.content_type else []
    headers += [(f"ce-{name}", value) for name, value in attributes.items()]
    return parse_request(headers, message.body, max_bytes=max_bytes)


_NOT_JSON = object()


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _NOT_JSON


def _passed(message: Message, source: str, index: int, document: Any, max_bytes: int) -> Event:
    """One that is a CloudEvent itself stays what it is."""
    if isinstance(document, Mapping) and document.get("specversion") == "1.0":
        return parse_event(document, max_bytes=max_bytes)
    return _checked(_event(message, source, str(index), data=document), max_bytes)


def _bytes_event(message: Message, source: str, media_type: str, max_bytes: int) -> Event:
    coded = base64.b64encode(message.body).decode()
    kind = media_type or "application/octet-stream"
    event = _event(message, source, "0", data_base64=coded, datacontenttype=kind)
    return _checked(event, max_bytes)


def _event(message: Message, source: str, part: str, **content: Any) -> Event:
    """Without a time: the same message again is the same event."""
    return Event(
        type=EventType.MESSAGE_RECEIVED,
        source=f"augury/sources/{source}",
        id=derived_id("msg", source, message.key, part),
        **content,
    )


def _checked(event: Event, max_bytes: int) -> Event:
    return parse_event(event.to_mapping(), max_bytes=max_bytes)
