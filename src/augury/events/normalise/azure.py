"""Azure Blob Storage through Event Grid, in Event Grid's own schema and in CloudEvents'.

https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage. The subject names container
and blob as they are, the URL is percent-encoded, so the names come from the subject and only the
host from the URL. A sequencer is compared as text, within one blob.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

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

_CHANGES = {
    "Microsoft.Storage.BlobCreated": Change.CREATED,
    "Microsoft.Storage.BlobDeleted": Change.DELETED,
}
_LONGEST_CONTAINER = 63
_CONTAINERS = "/containers/"
_BLOBS = "/blobs/"


def notice(event: Any) -> ObjectNotice | None:
    """One event in either schema; None if it is none, or of no known change."""
    kind = text(event, "eventType") or text(event, "type") or ""
    if kind not in _CHANGES:
        return None
    _, _, path = (text(event, "subject") or "").partition(_CONTAINERS)
    container, _, blob = path.partition(_BLOBS)
    host = _host(event)
    sequencer = short(event, "data", "sequencer")
    return made(
        event,
        provider=Provider.AZURE,
        change=_CHANGES[kind],
        uri=f"https://{host}/{container}/{blob}" if host else None,
        bucket=container if 0 < len(container) <= _LONGEST_CONTAINER else None,
        key=blob or None,
        tag=tag(event, "data", "eTag"),
        size_bytes=size(event, "data", "contentLength"),
        sequencer=sequencer,
        order=sequencer,
        time=time(event, "eventTime") or time(event, "time"),
    )


def _host(event: Any) -> str | None:
    """The account's host, from the blob's URL or from the name of the account."""
    try:
        host = urlsplit(text(event, "data", "url") or "").hostname
    except ValueError:
        host = None
    if host:
        return host if len(host) <= 255 else None
    account = (short(event, "topic") or short(event, "source") or "").rpartition("/")[2]
    return f"{account}.blob.core.windows.net" if account else None
