"""Events that left the ledger: Parquet files in the object store, and the rows that name them.

A file holds consecutive events of the ledger with their outcomes, exactly as the tables held them;
it is written once, under a name that tells its range and its digest, and never changed. The rows
of `archives` are what counts: a file that no row names is a leftover of a crash. The ranges of all
rows together are the beginning of the ledger, without a gap; only events on which something is
still open were kept behind in `events` (see `retention.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from augury import clock
from augury.errors import CorruptError
from augury.ids import digest
from augury.routing.ledger import LedgerEvent, LedgerOutcome, event_of, outcome_of
from augury.storage.objects import locate
from augury.storage.tables import archives, events

if TYPE_CHECKING:
    import pyarrow as pa

    from augury.settings import Settings

FOLDER = "ledger/events/"
_MOST_FILES = 2
_OUTCOME_INSTANTS = ("created_at", "updated_at")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file of the archive.

    Attributes:
        first_position, last_position: the range it stands for, both inclusive; positions in it
            that no event has are gaps that the ledger had, or events that were kept behind.
        incarnations: number of its events per life of the bus.
        digest: SHA-256 of the file.
        keys_purged_at: when its events' (source, id) were forgotten; None: they are remembered.
    """

    first_position: int
    last_position: int
    num_events: int
    num_outcomes: int
    incarnations: Mapping[str, int]
    first_accepted_at: datetime
    last_accepted_at: datetime
    uri: str
    digest: str
    size_bytes: int
    created_at: datetime
    keys_purged_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class PastEvent:
    """An accepted event with all its outcomes, wherever they are kept."""

    event: LedgerEvent
    outcomes: tuple[LedgerOutcome, ...]
    is_archived: bool = False


def archived_until(connection: sa.Connection) -> int:
    """Last position of the archive; 0 if there is none."""
    return connection.scalar(sa.select(sa.func.max(archives.c.last_position))) or 0


def list_archives(
    connection: sa.Connection,
    *,
    after: int = 0,
    before: int | None = None,
    newest_first: bool = False,
    limit: int | None = None,
) -> list[Archive]:
    """Files with events at positions > `after` and < `before`, in their order."""
    column = archives.c.first_position
    select = sa.select(archives).where(archives.c.last_position > after)
    if before is not None:
        select = select.where(column < before)
    select = select.order_by(column.desc() if newest_first else column).limit(limit)
    return [Archive(**row._mapping) for row in connection.execute(select)]


# --- the file -------------------------------------------------------------------------------------


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "position": pa.int64(),
        "ruleset_version": pa.int32(),
        "duplicate_of": pa.int64(),
        "matched": pa.list_(pa.string()),
        "accepted_at": pa.timestamp("us", tz="UTC"),
    }
    fields = [pa.field(column.name, kinds.get(column.name, pa.string())) for column in events.c]
    return pa.schema([*fields, pa.field("outcomes", pa.list_(pa.string()))])


def pack(rows: Sequence[sa.Row[Any]], decided: Mapping[int, Sequence[sa.Row[Any]]]) -> bytes:
    """A file's bytes; the same rows give the same bytes with the same version of Arrow.

    Args:
        rows: of `events`, in ledger order.
        decided: rows of `outcomes`, by position.
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    records = [
        {**row._mapping, "outcomes": [_outcome_text(o) for o in decided.get(row.position, ())]}
        for row in rows
    ]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records, schema=_schema()), buffer, compression="zstd")
    return bytes(buffer.getvalue())


def _outcome_text(row: sa.Row[Any]) -> str:
    """A row of `outcomes` as JSON; its instants as RFC 3339."""
    plain = {
        name: clock.iso(value) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }
    return msgspec.json.encode(plain, order="sorted").decode()


def _outcome(text: str) -> LedgerOutcome:
    fields = msgspec.json.decode(text)
    for name in _OUTCOME_INSTANTS:
        fields[name] = clock.parse(fields[name])
    return outcome_of(fields)


def unpack(data: bytes) -> list[PastEvent]:
    """What a file holds, in ledger order.

    Raises:
        CorruptError: not a file of the archive.
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        records = pq.read_table(BytesIO(data)).to_pylist()
        return [_past(record) for record in records]
    except (pa.ArrowException, KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise CorruptError(f"not a file of the archive: {error}") from error


def _past(record: dict[str, Any]) -> PastEvent:
    decided = tuple(map(_outcome, record.pop("outcomes")))
    return PastEvent(event=event_of(record), outcomes=decided, is_archived=True)


_read: OrderedDict[str, list[PastEvent]] = OrderedDict()
_read_lock = Lock()


def read_archive(archive: Archive, settings: Settings) -> list[PastEvent]:
    """The events of one file; the last few files are kept in memory.

    Raises:
        NotFoundError: the file is gone.
        CorruptError: it is not the one that was written.
        UnavailableError: the store did not answer.
    """
    with _read_lock:
        if archive.digest in _read:
            _read.move_to_end(archive.digest)
            return _read[archive.digest]
    found = unpack(fetch_archive(archive, settings))
    with _read_lock:
        _read[archive.digest] = found
        while len(_read) > _MOST_FILES:
            _read.popitem(last=False)
    return found


def fetch_archive(archive: Archive, settings: Settings) -> bytes:
    """The file's bytes, proven to be those that were written; raises as `read_archive` does."""
    store, key = locate(archive.uri, settings)
    data = store.read(key)
    found = digest(data)
    if found != archive.digest:
        raise CorruptError(
            f"{archive.uri} is not the file that was written: expected digest {archive.digest}, "
            f"found {found}; restore it from a backup",
            uri=archive.uri,
        )
    return data
