"""Whether an object that was seen is all there.

On a store where objects appear whole there is nothing to ask. A local file may still be being
written: a Parquet file is complete when its footer parses (it is written last), any other when it
has not changed for a while.
"""

from __future__ import annotations

import logging
import struct

from augury.errors import IdentityError, NotFoundError, UnavailableError
from augury.storage.objects import InputObject, ObjectInfo, ObjectStore

_log = logging.getLogger(__name__)
_PARQUET = (".parquet", ".parq", ".pq")
_MAGIC = frozenset({b"PAR1", b"PARE"})
_TAIL_BYTES = 8


def appears_whole(store: ObjectStore) -> bool:
    """True if the store shows an object only once all of it is there."""
    return not store.url.startswith("file://")


def is_parquet(key: str) -> bool:
    """True if the name says that it is a Parquet file."""
    return key.lower().endswith(_PARQUET)


def has_footer(store: ObjectStore, info: ObjectInfo) -> bool:
    """True if the object, being exactly `info`, ends in a footer that parses.

    False as well for one that cannot be read: it must not keep the others waiting.
    """
    if info.size_bytes <= _TAIL_BYTES:
        return False
    try:
        with store.open(info.key, tag=info.tag) as opened:
            if not _may_have_footer(opened, info.size_bytes) or not _parses(opened):
                return False
            opened.verify()
    except (IdentityError, NotFoundError, UnavailableError):
        return False  # it changes as we look, or is not for us to read (yet)
    return True


def _may_have_footer(opened: InputObject, size_bytes: int) -> bool:
    """A cheap look: most incomplete files end here."""
    opened.seek(size_bytes - _TAIL_BYTES)
    tail = opened.read(_TAIL_BYTES)
    if len(tail) < _TAIL_BYTES or tail[4:] not in _MAGIC:
        return False
    (footer_bytes,) = struct.unpack("<I", tail[:4])
    return bool(0 < footer_bytes <= size_bytes - _TAIL_BYTES - 4)


def _parses(opened: InputObject) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened.seek(0)
    try:
        pq.read_metadata(opened)
    except (pa.ArrowException, OSError):
        return False
    return True


def preload() -> None:
    """Loads what parsing a footer needs, so that the first file does not wait for it."""
    import pyarrow.parquet as pq

    _log.debug("footers are read by %s", pq.__name__, extra={"action": "footers_ready"})
