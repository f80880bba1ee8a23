"""From a whole notification to its records: envelopes are opened, lists are taken apart.

What carries other notifications (SNS in SQS in a Lambda call, a list of Event Grid events) is
opened up to a bounded depth, whoever the provider is. What no reader of the provider knows passes
through untouched: the whole notification if nothing in it is known, else the record alone, so that
nothing that came is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from augury.errors import InvalidError
from augury.events.normalise import azure, gcs, oci, s3
from augury.events.normalise.notice import ObjectNotice, Provider, at

_DEEPEST = 8
_MOST_RECORDS = 10_000

type _Reader = Callable[[Any], ObjectNotice | None]
type Found = ObjectNotice | Untouched


@dataclass(frozen=True, kw_only=True)
class Untouched:
    """What passes through as it came.

    Attributes:
        document: the notification, or one record of it.
    """

    document: Any


def _s3(document: Any) -> ObjectNotice | None:
    return s3.through_eventbridge(document) or s3.record(document, Provider.S3)


def _minio(document: Any) -> ObjectNotice | None:
    return s3.record(document, Provider.MINIO)


_READERS: Mapping[Provider, _Reader] = {
    Provider.S3: _s3,
    Provider.MINIO: _minio,
    Provider.GCS: gcs.notice,
    Provider.AZURE: azure.notice,
    Provider.OCI: oci.notice,
}


def normalise(document: Any, provider: Provider | None = None) -> list[Found]:
    """Reads one notification. Pure, and raises nothing, whatever the document.

    Args:
        document: a decoded JSON value.
        provider: whose notifications are known; None: everybody's.

    Returns:
        At least one item, in the notification's order; one for each record.
    """
    readers = list(_READERS.values()) if provider is None else [_READERS[provider]]
    found = list(_read(document, readers, _DEEPEST))
    if not any(isinstance(item, ObjectNotice) for item in found) or len(found) > _MOST_RECORDS:
        return [Untouched(document=document)]
    return found


def normalise_json(body: bytes | str, provider: Provider | None = None) -> list[Found]:
    """As `normalise`, from JSON text.

    Raises:
        InvalidError: it is not JSON.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidError(f"expected a notification in JSON: {error}") from error
    return normalise(document, provider)


def _read(document: Any, readers: Sequence[_Reader], depth: int) -> Iterator[Found]:
    notice = next((found for read in readers if (found := read(document))), None)
    if notice is not None:
        yield notice
        return
    parts = _parts(document) if depth else ()
    if not parts:
        yield Untouched(document=document)
    for part, inner in parts:
        within = list(_read(inner, readers, depth - 1))
        known = any(isinstance(item, ObjectNotice) for item in within)
        yield from within if known else [Untouched(document=part)]


def _parts(document: Any) -> Sequence[tuple[Any, Any]]:
    """What the document carries: each part as it stands there, and what is in it."""
    if isinstance(document, list):
        return [(part, part) for part in document]
    for name in ("Records", "Messages"):  # S3, MinIO, Lambda; SQS's ReceiveMessage
        parts = at(document, name)
        if isinstance(parts, list):
            return [(part, part) for part in parts]
    # SNS over HTTP or in SQS; a Lambda's record of SNS; a record or message of SQS
    for path in (("Message",), ("Sns", "Message"), ("body",), ("Body",)):
        inner = _decoded(at(document, *path))
        if inner is not None:
            return [(document, inner)]
    return ()


def _decoded(found: Any) -> Any:
    """What JSON text holds; None if it is no text, or not JSON."""
    if not isinstance(found, str):
        return None
    try:
        return msgspec.json.decode(found)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
