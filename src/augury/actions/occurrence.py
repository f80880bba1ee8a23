"""What an event is about, as far as doing something once is concerned.

Two events about the same content of the same object are one occurrence: the file was announced by
the watcher and by a notification, or dropped again unchanged. An event that names no object is its
own occurrence. The occurrence is part of a run's identity, together with rule, action and epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from augury.events.catalog import EventType
from augury.ids import digest

_OBJECT_TYPES = frozenset({EventType.OBJECT_CREATED, EventType.OBJECT_UPDATED})
# a unique index on PostgreSQL holds values up to about 2,700 bytes, all of its columns together
_LONGEST_BYTES = 1500


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """Identity of what happened.

    Attributes:
        kind: `object` or `event`.
        value: the object's identity (`{uri}#{tag}`), or the event's (source, id) as JSON; a hash
            of either if it is too long for an index.
    """

    kind: str
    value: str

    @property
    def text(self) -> str:
        """Kind and value in one string, as run keys and outcomes have it."""
        return f"{self.kind}:{self.value}"


def occurrence(event: Mapping[str, Any]) -> Occurrence:
    """The occurrence of an event in structured form; `source`, `id` and `type` must be there."""
    identity = object_identity(event)
    if identity is not None:
        return Occurrence(kind="object", value=_bounded(identity))
    pair = msgspec.json.encode([event["source"], event["id"]]).decode()
    return Occurrence(kind="event", value=_bounded(pair))


def object_identity(event: Mapping[str, Any]) -> str | None:
    """`{uri}#{tag}` of the object that the event announces, or None if it announces none."""
    if event["type"] not in _OBJECT_TYPES:
        return None
    data = event.get("data")
    identity = data.get("identity") if isinstance(data, Mapping) else None
    usable = isinstance(identity, str) and identity and "\x00" not in identity
    return identity if usable else None


def _bounded(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= _LONGEST_BYTES else f"sha256:{digest(raw)}"
