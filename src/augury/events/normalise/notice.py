"""What a notification says about one object, whoever sent it; and how its parts are read.

A reader of a provider's shape asks for text, numbers and times by path and gets None for what is
not there or is no such thing, so that whatever stands in a notification, no exception leaves a
reader. URIs and identities have the form in which our own watcher forms them (`{uri}#{tag}`): plain
text, nothing percent-encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from augury import clock
from augury.ids import derived_id

# a key on PostgreSQL's unique indexes, together with its bucket and the source
LONGEST_KEY_BYTES = 1024
_LONGEST_TEXT_BYTES = 512
_LARGEST_SIZE = 2**63 - 1


class Provider(StrEnum):
    """Whose notifications."""

    S3 = "s3"  #: Amazon S3 and what speaks like it; direct, EventBridge, SNS, SQS, Lambda
    MINIO = "minio"  #: MinIO
    GCS = "gcs"  #: Google Cloud Storage; CloudEvents (Eventarc) and Pub/Sub
    AZURE = "azure"  #: Azure Blob Storage; Event Grid's own schema and CloudEvents
    OCI = "oci"  #: Oracle Cloud Infrastructure Object Storage


class Change(StrEnum):
    """What happened to an object; `augury.object.{change}` is the type of its event."""

    CREATED = "created"  #: content came to be at the key, whatever was there before
    UPDATED = "updated"  #: the provider says that something of an existing object changed
    DELETED = "deleted"  #: the object, or the version `removed_version` of it, is gone
    READ = "read"  #: somebody read it


@dataclass(frozen=True, kw_only=True)
class ObjectNotice:
    """One record of a notification.

    Attributes:
        provider: who says so.
        change: what happened.
        uri: of the object, as our own stores write it: `s3://bucket/key`, `gs://bucket/name`,
            `oci://bucket@namespace/name`, `https://{account}.blob.core.windows.net/container/blob`.
        bucket: or container.
        key: decoded, the whole key within the bucket.
        notice_id: follows from the record alone, so a record sent again has the same.
        tag: tells contents of one key apart: ETag; the generation on GCS. Always there if content
            was created or updated.
        size_bytes: of the content; None if not said.
        version: of the object, where the bucket keeps versions; the generation on GCS.
        removed_version: the one version that a deletion took away for good; None if it is the
            object that is gone (or a marker hides it).
        sequencer: as the provider wrote it.
        order: text that sorts as the changes of one key happened; None if the provider has none.
        time: when it happened, by the provider's clock.
    """

    provider: Provider
    change: Change
    uri: str
    bucket: str
    key: str
    notice_id: str
    tag: str | None = None
    size_bytes: int | None = None
    version: str | None = None
    removed_version: str | None = None
    sequencer: str | None = None
    order: str | None = None
    time: datetime | None = None

    @property
    def identity(self) -> str | None:
        """`{uri}#{tag}`: this content at this place; None if the notification names no content."""
        return None if self.tag is None else f"{self.uri}#{self.tag}"


def made(  # one place that knows what every notice must have
    record: Any,
    *,
    provider: Provider,
    change: Change | None,
    uri: str | None,
    bucket: str | None,
    key: str | None,
    **more: Any,
) -> ObjectNotice | None:
    """A notice, or None if the record lacks what makes one."""
    if change is None or uri is None or bucket is None or key is None or not _fits(key):
        return None
    if change in {Change.CREATED, Change.UPDATED} and more.get("tag") is None:
        return None
    notice_id = _notice_id(provider, record)
    if notice_id is None:
        return None
    return ObjectNotice(
        provider=provider,
        change=change,
        uri=uri,
        bucket=bucket,
        key=key,
        notice_id=notice_id,
        **more,
    )


def _notice_id(provider: Provider, record: Any) -> str | None:
    try:
        canonical = msgspec.json.encode(record, order="sorted").decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None  # numbers beyond 64 bits; no provider sends them
    return derived_id("notice", provider, canonical)


def _fits(key: str) -> bool:
    return len(key.encode(errors="surrogatepass")) <= LONGEST_KEY_BYTES


def at(document: Any, *path: str) -> Any:
    """The value at a path of names; None if something on the way is no object or not there."""
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def text(document: Any, *path: str) -> str | None:
    """Non-empty text at a path that a database can hold, numbers written out; or None."""
    found = at(document, *path)
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found) if abs(found) <= _LARGEST_SIZE else None
    return found if isinstance(found, str) and _is_storable(found) else None


def short(document: Any, *path: str) -> str | None:
    """As `text`, at most 512 bytes: tags, versions, sequencers, names of buckets."""
    found = text(document, *path)
    return found if found is not None and len(found.encode()) <= _LONGEST_TEXT_BYTES else None


def tag(document: Any, *path: str) -> str | None:
    """An ETag, without the quotation marks that some senders leave around it."""
    found = short(document, *path)
    return (found or "").removeprefix('"').removesuffix('"') or None


def size(document: Any, *path: str) -> int | None:
    """A size in bytes, also one that is written as text; None if it is none."""
    digits = text(document, *path)
    if digits is None or not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    number = int(digits)
    return number if number <= _LARGEST_SIZE else None


def time(document: Any, *path: str) -> datetime | None:
    """An RFC 3339 timestamp with zone; None if it is none."""
    found = at(document, *path)
    try:
        return clock.parse(found) if isinstance(found, str) else None
    except (ValueError, OverflowError):
        return None


def _is_storable(found: str) -> bool:
    if not found or "\x00" in found:
        return False
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True
