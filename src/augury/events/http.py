"""CloudEvents over HTTP: headers and body in, events out.

The three content modes of the HTTP protocol binding 1.0.2
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md):
structured (the body is the event), binary (attributes in `ce-` headers, the body is the data) and
batched (the body is an array of events). Plain `application/json` without `ce-` headers is read as
structured or batched, so that `curl` needs no special header. Pure: no request object, no status
codes. Either every event of a request is good, or the error names every fault of all of them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from email.message import Message
from typing import Any
from urllib.parse import unquote

import msgspec

from augury.errors import Fault, InvalidError
from augury.events.envelope import DEFAULT_MAX_BYTES, Event, parse_event

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
_JSON = "application/json"
_PREFIX = "ce-"
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def parse_request(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> list[Event]:
    """Reads the events of one HTTP request.

    Args:
        headers: the request's headers; names in any case.
        body: the request's body, as received.
        max_bytes: upper bound (inclusive) of one event's JSON form; a batch may be larger.

    Raises:
        InvalidError: with every fault of every event; paths begin with `[i].` in a batch.
    """
    lowered = {name.lower(): value for name, value in _items(headers)}
    media_type, charset = _content_type(lowered.get("content-type", ""))
    binary = f"{_PREFIX}specversion" in lowered
    if charset not in _CHARSETS and (not binary or _is_json(media_type)):
        raise InvalidError(f"expected JSON in UTF-8, found charset {charset!r}")
    if media_type == BATCHED:
        return _batch(body, max_bytes)
    if media_type.startswith("application/cloudevents"):
        return [_structured(media_type, body, max_bytes)]
    if binary:
        return [parse_event(_binary_document(lowered, media_type, body), max_bytes=max_bytes)]
    if media_type == _JSON:
        plain = _batch if body.lstrip()[:1] == b"[" else _single
        return plain(body, max_bytes)
    raise InvalidError(
        f"expected content type {STRUCTURED} or {BATCHED}, or the headers ce-specversion, ce-id, "
        f"ce-source and ce-type (binary mode); found content type {media_type or 'nothing'!r}"
    )


def _items(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers


def _content_type(header: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = header or "application/octet-stream"
    charset = message.get_param("charset", "utf-8")
    media_type = message.get_content_type() if header else ""
    return media_type, str(charset).lower()


def _is_json(media_type: str) -> bool:
    return media_type in {_JSON, "text/json"} or media_type.endswith("+json")


def _structured(media_type: str, body: bytes, max_bytes: int) -> Event:
    if media_type != STRUCTURED:
        raise InvalidError(f"expected the JSON event format {STRUCTURED}, found {media_type!r}")
    return parse_event(body, max_bytes=max_bytes)


def _single(body: bytes, max_bytes: int) -> list[Event]:
    return [parse_event(body, max_bytes=max_bytes)]


def _batch(body: bytes, max_bytes: int) -> list[Event]:
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"expected a JSON array of events: {error}") from error
    events: list[Event] = []
    faults: list[Fault] = []
    for index, item in enumerate(items):
        try:
            events.append(parse_event(bytes(item), max_bytes=max_bytes))
        except InvalidError as error:
            faults += _indexed(index, error)
    if faults:
        raise InvalidError(f"batch of {len(items)} events refused", faults=faults)
    return events


def _indexed(index: int, error: InvalidError) -> list[Fault]:
    if not error.faults:
        return [Fault(path=f"[{index}]", message=error.message)]
    return [Fault(path=f"[{index}].{fault.path}", message=fault.message) for fault in error.faults]


def _binary_document(headers: Mapping[str, str], media_type: str, body: bytes) -> dict[str, Any]:
    """The structured form of a binary-mode request; header values are percent-decoded."""
    document: dict[str, Any] = {
        name.removeprefix(_PREFIX): unquote(value)
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    if content_type := headers.get("content-type"):
        document["datacontenttype"] = content_type
    if body:
        document.update(_binary_data(media_type, body))
    return document


def _binary_data(media_type: str, body: bytes) -> dict[str, Any]:
    if _is_json(media_type):
        try:
            return {"data": msgspec.json.decode(body)}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidError(
                "not a valid CloudEvent",
                faults=[
                    Fault(path="data", message=f"expected JSON as the content type says: {error}")
                ],
            ) from error
    if media_type.startswith("text/"):
        try:
            return {"data": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(body).decode()}
