"""OCI Object Storage, whose events have `cloudEventsVersion` 0.1.

https://docs.oracle.com/iaas/Content/Events/Reference/eventsproducers.htm. There is no sequencer:
which of two notifications is older, only their times say.
"""

from __future__ import annotations

from typing import Any

from augury.events.normalise.notice import (
    Change,
    ObjectNotice,
    Provider,
    made,
    short,
    size,
    tag,
    text,
    time,
)

_TYPE = "com.oraclecloud.objectstorage."
_CHANGES = {
    "createobject": Change.CREATED,
    "updateobject": Change.UPDATED,
    "deleteobject": Change.DELETED,
}


def notice(event: Any) -> ObjectNotice | None:
    """One event; None if it is none, or of no known change."""
    kind = text(event, "eventType") or ""
    if not kind.startswith(_TYPE) or text(event, "cloudEventsVersion") is None:
        return None
    bucket = short(event, "data", "additionalDetails", "bucketName")
    namespace = short(event, "data", "additionalDetails", "namespace")
    name = text(event, "data", "resourceName")
    known = bucket is not None and namespace is not None and name is not None
    return made(
        event,
        provider=Provider.OCI,
        change=_CHANGES.get(kind.removeprefix(_TYPE)),
        uri=f"oci://{bucket}@{namespace}/{name}" if known else None,
        bucket=bucket,
        key=name,
        tag=tag(event, "data", "additionalDetails", "eTag"),
        size_bytes=size(event, "data", "additionalDetails", "size"),
        version=short(event, "data", "additionalDetails", "versionId"),
        time=time(event, "eventTime"),
    )
