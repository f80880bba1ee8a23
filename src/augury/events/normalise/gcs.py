"""Google Cloud Storage: as CloudEvents from Eventarc, and through Pub/Sub.

CloudEvents: https://cloud.google.com/eventarc/docs/cloudevents (types
`google.cloud.storage.object.v1.*`). Pub/Sub: attributes of a message,
https://cloud.google.com/storage/docs/pubsub-notifications, with the object's resource as data if
the payload format says so; pushed (`{"message": ...}`) or through Eventarc. The generation tells
contents of one name apart and grows with every write; the metageneration counts changes of
metadata within one generation. Numbers may be written as text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from augury.events.normalise.notice import (
    Change,
    ObjectNotice,
    Provider,
    at,
    made,
    short,
    size,
    text,
    time,
)

_TYPE = "google.cloud.storage.object.v1."
_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_CHANGES = {
    "finalized": Change.CREATED,
    "metadataUpdated": Change.UPDATED,
    "deleted": Change.DELETED,
    "OBJECT_FINALIZE": Change.CREATED,
    "OBJECT_METADATA_UPDATE": Change.UPDATED,
    "OBJECT_DELETE": Change.DELETED,
}


def notice(document: Any) -> ObjectNotice | None:
    """A notification in either form; None if it is none, or of no known change."""
    kind = text(document, "type") or ""
    if kind.startswith(_TYPE):
        return _from_cloud_event(document, kind)
    message = at(document, "data", "message") if kind == _PUBLISHED else at(document, "message")
    found = message if isinstance(message, Mapping) else document
    return _from_message(found) if text(found, "attributes", "eventType") else None


def _from_cloud_event(event: Any, kind: str) -> ObjectNotice | None:
    return _made(
        event,
        change=_CHANGES.get(kind.removeprefix(_TYPE)),
        bucket=short(event, "data", "bucket"),
        name=text(event, "data", "name"),
        generation=text(event, "data", "generation"),
        resource=at(event, "data"),
        happened=time(event, "time"),
    )


def _from_message(message: Any) -> ObjectNotice | None:
    """A Pub/Sub message; one about content that was overwritten is no deletion of the object."""
    if text(message, "attributes", "overwrittenByGeneration"):
        return None
    return _made(
        message,
        change=_CHANGES.get(text(message, "attributes", "eventType") or ""),
        bucket=short(message, "attributes", "bucketId"),
        name=text(message, "attributes", "objectId"),
        generation=text(message, "attributes", "objectGeneration"),
        resource=_resource(at(message, "data")),
        happened=time(message, "attributes", "eventTime"),
    )


def _resource(data: Any) -> Any:
    """The object's resource that a message carries in base 64; None if it carries none."""
    if not isinstance(data, str):
        return data
    try:
        return msgspec.json.decode(base64.b64decode(data, validate=True))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None


def _made(
    record: Any,
    *,
    change: Change | None,
    bucket: str | None,
    name: str | None,
    generation: str | None,
    resource: Any,
    happened: Any,
) -> ObjectNotice | None:
    if generation is None or not generation.isascii() or not generation.isdigit():
        return None
    if len(generation) > 20:
        return None
    meta = size(resource, "metageneration") or 0
    return made(
        _without_envelope(record),
        provider=Provider.GCS,
        change=change,
        uri=None if bucket is None or name is None else f"gs://{bucket}/{name}",
        bucket=bucket,
        key=name,
        tag=generation,
        size_bytes=size(resource, "size"),
        version=generation,
        sequencer=generation,
        order=f"{int(generation):020d}.{meta:019d}",
        time=happened,
    )


def _without_envelope(record: Any) -> Any:
    """What of the record stays the same when it is delivered again."""
    if not isinstance(record, Mapping):
        return record
    return {name: value for name, value in record.items() if name != "deliveryAttempt"}
