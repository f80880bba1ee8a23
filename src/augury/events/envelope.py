"""The event: an immutable fact in CloudEvents 1.0 form.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its JSON format.
An event travels and is stored as the exact JSON bytes of its structured form; `Event` is the
validated view that sources and the API build and read. Validation collects every fault.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from augury import clock, ids
from augury.errors import Fault, InvalidError

SPEC_VERSION = "1.0"
DEFAULT_MAX_BYTES = 262_144
# source and id together are a unique key, and PostgreSQL's hold about 2,700 bytes
LONGEST_ATTRIBUTE_BYTES = 1024

_ATTRIBUTES = (
    "source", "id", "type", "subject", "time", "datacontenttype", "dataschema",
)  # fmt: skip
_NOT_EXTENSIONS = frozenset({"specversion", "data", "data_base64", *_ATTRIBUTES})
_REQUIRED = ("source", "id", "type")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,64}\Z")  # up to 20 is the spec's advice only
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One CloudEvent.

    Attributes:
        source: who says it, a URI reference; with `id` unique for every distinct event.
        id: unique within `source`; a second event with the same pair is a duplicate.
        type: what happened, in the past tense, for example `augury.object.created`.
        data: any JSON value; None if the event carries none, or bytes.
        data_base64: the bytes that it carries, in base 64; None if it carries none.
        time: when it happened, aware; None if the producer does not say.
        extensions: further attributes (strings, integers, booleans).
    """

    source: str
    id: str
    type: str
    data: Any = None
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = "application/json"
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = field(default_factory=dict)
    data_base64: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """The structured form; attributes that are not set are left out."""
        document: dict[str, Any] = {"specversion": SPEC_VERSION}
        for name in _ATTRIBUTES:
            value = getattr(self, name)
            if value is not None:
                document[name] = clock.iso(value) if isinstance(value, datetime) else value
        document.update(self.extensions)
        if self.data is not None:
            document["data"] = self.data
        if self.data_base64 is not None:
            document["data_base64"] = self.data_base64
        return document

    def to_json(self) -> bytes:
        """The structured form as JSON."""
        return msgspec.json.encode(self.to_mapping())


def new_event(
    event_type: str,
    data: Any = None,
    *,
    source: str,
    subject: str | None = None,
    event_id: str | None = None,
    time: datetime | None = None,
) -> Event:
    """An event of ours or of a Python caller; id and time are made if not given."""
    return Event(
        source=source,
        id=event_id or ids.new_id("evt"),
        type=event_type,
        data=data,
        subject=subject,
        time=time or clock.utc_now(),
    )


def parse_event(
    raw: bytes | str | Mapping[str, Any], *, max_bytes: int = DEFAULT_MAX_BYTES
) -> Event:
    """Validates a structured CloudEvent.

    Args:
        raw: JSON text or an already decoded object.
        max_bytes: upper bound (inclusive) of the JSON text's size.

    Raises:
        InvalidError: with every fault found.
    """
    document = _decode(raw, max_bytes)
    extensions = [name for name in document if name not in _NOT_EXTENSIONS]
    faults = [
        *_required_faults(document),
        *_optional_faults(document),
        *_extension_faults(document, extensions),
    ]
    if faults:
        raise InvalidError("not a valid CloudEvent", faults=faults)
    time = document.get("time")
    return Event(
        source=document["source"],
        id=document["id"],
        type=document["type"],
        data=document.get("data"),
        data_base64=document.get("data_base64"),
        subject=document.get("subject"),
        time=clock.parse(time) if time else None,
        datacontenttype=document.get("datacontenttype"),
        dataschema=document.get("dataschema"),
        extensions={name: document[name] for name in extensions},
    )


def _decode(raw: bytes | str | Mapping[str, Any], max_bytes: int) -> Mapping[str, Any]:
    text = raw if isinstance(raw, bytes | str) else _encode(raw)
    size_bytes = len(text.encode() if isinstance(text, str) else text)
    if size_bytes > max_bytes:
        raise InvalidError(
            f"event too large: at most {max_bytes} bytes are accepted, found {size_bytes}; "
            "put the payload into object storage and send its URI",
            size_bytes=size_bytes,
        )
    if not isinstance(raw, bytes | str):
        return raw
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidError(f"expected a JSON object, found {type(document).__name__}")
    return document


def _encode(document: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"cannot be written as JSON: {error}") from error


def _required_faults(document: Mapping[str, Any]) -> list[Fault]:
    faults = []
    if document.get("specversion") != SPEC_VERSION:
        faults.append(_fault("specversion", f"expected '{SPEC_VERSION}'", document))
    for name in _REQUIRED:
        value = document.get(name)
        if not isinstance(value, str) or not value or _CONTROL.search(value):
            faults.append(_fault(name, "expected a non-empty string", document))
        elif len(value.encode()) > LONGEST_ATTRIBUTE_BYTES:
            faults.append(
                _fault(name, f"expected at most {LONGEST_ATTRIBUTE_BYTES} bytes", document)
            )
    return faults


def _optional_faults(document: Mapping[str, Any]) -> list[Fault]:
    faults = []
    for name in ("subject", "datacontenttype", "dataschema"):
        value = document.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            faults.append(_fault(name, "expected a non-empty string or nothing", document))
    time = document.get("time")
    if time is not None:
        try:
            clock.parse(time)
        except (TypeError, ValueError):
            faults.append(_fault("time", "expected an RFC 3339 timestamp with zone", document))
    coded = document.get("data_base64")
    if "data" in document and coded is not None:
        faults.append(Fault(path="data_base64", message="expected either data or data_base64"))
    if coded is not None and not _is_base64(coded):
        faults.append(_fault("data_base64", "expected bytes in base 64", document))
    return faults


def _is_base64(found: object) -> bool:
    try:
        return isinstance(found, str) and base64.b64decode(found, validate=True) is not None
    except ValueError:
        return False


def _extension_faults(document: Mapping[str, Any], names: Iterable[str]) -> list[Fault]:
    faults = []
    for name in names:
        value = document[name]
        if not _EXTENSION_NAME.match(name):
            faults.append(
                Fault(path=name, message="expected only a-z and 0-9 in an attribute's name")
            )
        if not isinstance(value, str | int | bool) and value is not None:
            faults.append(_fault(name, "expected a string, integer or boolean", document))
    return faults


def _fault(name: str, expected: str, document: Mapping[str, Any]) -> Fault:
    found = repr(document[name])[:80] if name in document else "nothing"
    return Fault(path=name, message=f"{expected}, found {found}")
