"""Amazon S3's own notification, MinIO's version of it, and S3 through EventBridge.

Records: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
(the key is URL-encoded there, with `+` for a space). EventBridge:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html (the key is not encoded).
A sequencer orders the changes of one key: hexadecimal, compared as text after padding the shorter
one with zeros on the right, which is comparing both without their final zeros.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from augury.events.normalise.notice import (
    Change,
    ObjectNotice,
    Provider,
    at,
    made,
    short,
    size,
    tag,
    text,
    time,
)

_MINIO_SOURCE = "minio:s3"
_CHANGES = {
    "ObjectCreated": Change.CREATED,
    "ObjectRemoved": Change.DELETED,
    "LifecycleExpiration": Change.DELETED,
    "ObjectAccessed": Change.READ,
}
# MinIO sends these as creations; the content stays what it was
_TOUCHED = frozenset({"PutRetention", "PutLegalHold", "PutTagging", "DeleteTagging"})
_DETAIL_TYPES = {"Object Created": Change.CREATED, "Object Deleted": Change.DELETED}
_MARKERS = frozenset({"DeleteMarkerCreated", "Delete Marker Created"})


def record(found: Any, provider: Provider) -> ObjectNotice | None:
    """One element of `Records`, of S3 or of MinIO; None if it is none, or of no known change."""
    is_minio = at(found, "eventSource") == _MINIO_SOURCE
    if is_minio is not (provider is Provider.MINIO):
        return None
    kind, _, how = (text(found, "eventName") or "").removeprefix("s3:").partition(":")
    version = short(found, "s3", "object", "versionId")
    change = Change.UPDATED if how in _TOUCHED else _CHANGES.get(kind)
    bucket = short(found, "s3", "bucket", "name")
    key = _decoded(text(found, "s3", "object", "key"))
    return made(
        found,
        provider=provider,
        change=change,
        uri=_uri(bucket, key),
        bucket=bucket,
        key=key,
        tag=tag(found, "s3", "object", "eTag"),
        size_bytes=size(found, "s3", "object", "size"),
        version=version,
        removed_version=_removed(change, how, version),
        sequencer=short(found, "s3", "object", "sequencer"),
        order=_order(short(found, "s3", "object", "sequencer")),
        time=time(found, "eventTime"),
    )


def through_eventbridge(event: Any) -> ObjectNotice | None:
    """An event of S3 on EventBridge; None if it is none, or of no known change."""
    if at(event, "source") != "aws.s3":
        return None
    change = _DETAIL_TYPES.get(text(event, "detail-type") or "")
    bucket, key = short(event, "detail", "bucket", "name"), text(event, "detail", "object", "key")
    version = short(event, "detail", "object", "version-id")
    sequencer = short(event, "detail", "object", "sequencer")
    return made(
        event,
        provider=Provider.S3,
        change=change,
        uri=_uri(bucket, key),
        bucket=bucket,
        key=key,
        tag=tag(event, "detail", "object", "etag"),
        size_bytes=size(event, "detail", "object", "size"),
        version=version,
        removed_version=_removed(change, text(event, "detail", "deletion-type") or "", version),
        sequencer=sequencer,
        order=_order(sequencer),
        time=time(event, "time"),
    )


def _decoded(key: str | None) -> str | None:
    """The key without URL-encoding; None if it is not UTF-8 or holds what no database can."""
    if key is None:
        return None
    try:
        plain = unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in plain else plain


def _uri(bucket: str | None, key: str | None) -> str | None:
    return None if bucket is None or key is None else f"s3://{bucket}/{key}"


def _removed(change: Change | None, how: str, version: str | None) -> str | None:
    return version if change is Change.DELETED and how not in _MARKERS else None


def _order(sequencer: str | None) -> str | None:
    return None if sequencer is None else sequencer.upper().rstrip("0") or "0"
