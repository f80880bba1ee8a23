"""What a notification means, given what was told before: pure.

Notifications come late, twice and in any order. Which of two is newer, the provider's own order
says (S3's sequencer, GCS's generation); where one of them has none, the store's time does, which is
coarse. What is older than what was told is *superseded*: it is told as that, so that it is on
record and rules that act on contents are not misled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from augury.events.catalog import EventType
from augury.events.normalise import Change, ObjectNotice

_CLOCK_GRAIN = timedelta(seconds=1)


class Meaning(StrEnum):
    """What one notification turns out to be."""

    CREATED = "created"  #: content at a key at which there was none
    UPDATED = "updated"  #: other content at a known key
    TOUCHED = "touched"  #: something else than the content of a known object changed
    DELETED = "deleted"  #: the object is gone
    VERSION_DELETED = "version_deleted"  #: an older version is gone, the object is not
    READ = "read"  #: somebody read it
    KNOWN = "known"  #: told already, by a notification or found by listing; no event
    SUPERSEDED = "superseded"  #: something newer was told before

    @property
    def event_type(self) -> EventType | None:
        """Type of the event that tells it; None for what is told already."""
        return _TYPES.get(self)


_TYPES = {
    Meaning.CREATED: EventType.OBJECT_CREATED,
    Meaning.UPDATED: EventType.OBJECT_UPDATED,
    Meaning.TOUCHED: EventType.OBJECT_UPDATED,
    Meaning.DELETED: EventType.OBJECT_DELETED,
    Meaning.VERSION_DELETED: EventType.OBJECT_DELETED,
    Meaning.READ: EventType.OBJECT_READ,
    Meaning.SUPERSEDED: EventType.OBJECT_SUPERSEDED,
}
# those after which something else is on record
CHANGES = frozenset({Meaning.CREATED, Meaning.UPDATED, Meaning.TOUCHED, Meaning.DELETED})


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is on record of an object.

    Attributes:
        identity: of the content that was told last; empty if none ever was.
        exists: False once it was told to be gone.
        life: how often it was told to be gone.
        order: of the last notification; None if it had none, or a listing told last.
        at: when the last change happened, by the store's clock.
        version: of the content that was told last.
    """

    identity: str
    exists: bool
    life: int = 0
    order: str | None = None
    at: datetime | None = None
    version: str | None = None


def meaning(known: Known | None, notice: ObjectNotice) -> Meaning:
    """What the notification is, given what is on record of its object."""
    if notice.change is Change.READ:
        return Meaning.READ
    if known is not None and _is_older(known, notice):
        return Meaning.SUPERSEDED
    if notice.change is Change.DELETED:
        return _deletion(known, notice)
    if known is None or not known.exists:
        return Meaning.UPDATED if notice.change is Change.UPDATED else Meaning.CREATED
    if known.identity != notice.identity:
        return Meaning.UPDATED
    return Meaning.TOUCHED if _is_touched(known, notice) else Meaning.KNOWN


def after(known: Known | None, notice: ObjectNotice, found: Meaning) -> Known | None:
    """What is on record once the notification was told."""
    if found is Meaning.KNOWN and known is not None:
        return Known(
            identity=known.identity,
            exists=known.exists,
            life=known.life,
            order=notice.order or known.order,
            at=notice.time or known.at,
            version=notice.version or known.version,
        )
    if found not in CHANGES:
        return known
    gone = found is Meaning.DELETED
    return Known(
        identity=(known.identity if known else "") if gone else notice.identity or "",
        exists=not gone,
        life=(known.life if known else 0) + gone,
        order=notice.order,
        at=notice.time,
        version=None if gone else notice.version,
    )


def _deletion(known: Known | None, notice: ObjectNotice) -> Meaning:
    if known is not None and not known.exists:
        return Meaning.KNOWN
    removed, present = notice.removed_version, known.version if known else None
    if removed is not None and present is not None and removed != present:
        return Meaning.VERSION_DELETED
    return Meaning.DELETED


def _is_older(known: Known, notice: ObjectNotice) -> bool:
    if known.order is not None and notice.order is not None:
        if notice.order == known.order:  # the content whose deletion has the same generation
            return not known.exists and notice.change is not Change.DELETED
        return notice.order < known.order
    if known.at is not None and notice.time is not None:
        return notice.time < known.at - _CLOCK_GRAIN
    return False


def _is_touched(known: Known, notice: ObjectNotice) -> bool:
    if notice.change is not Change.UPDATED:
        return False  # the same content put again is no news
    if known.order is not None and notice.order is not None:
        return notice.order != known.order
    return notice.time != known.at
