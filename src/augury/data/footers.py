"""The parsed footers of the files that this process reads just now.

Shards of one file follow each other, and each opens the file anew. A footer names every column of
every row group: parsing it may take longer than reading a small shard's rows.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

    from augury.storage.objects import InputObject

_MOST_FILES = 4
_MOST_BYTES = 8 * 2**20  # as they are in the files; parsed they are several times as large

type _Parsed = tuple[pq.FileMetaData, pa.Schema]


class FooterCache:
    """The last few footers, by identity; for any thread.

    Args:
        most_files: kept at most.
        most_bytes: kept at most, as serialised in the files. The last one is always kept.
    """

    def __init__(self, most_files: int = _MOST_FILES, most_bytes: int = _MOST_BYTES) -> None:
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._parsed: OrderedDict[tuple[str, str], _Parsed] = OrderedDict()
        self._lock = Lock()

    def get(self, source: InputObject, uri: str, tag: str) -> _Parsed:
        """The footer of an open file and its Arrow schema.

        Args:
            source: the file; that it is `tag` was checked when it was opened.
            uri: its place.
            tag: its content.
        """
        with self._lock:
            found = self._parsed.get((uri, tag))
            if found is not None:
                self._parsed.move_to_end((uri, tag))
                return found
        parsed = _parse(source)
        with self._lock:
            self._parsed[uri, tag] = parsed
            while len(self._parsed) > 1 and self._is_full():
                self._parsed.popitem(last=False)
        return parsed

    def _is_full(self) -> bool:
        num_bytes = sum(metadata.serialized_size for metadata, _ in self._parsed.values())
        return len(self._parsed) > self._most_files or num_bytes > self._most_bytes


def _parse(source: InputObject) -> _Parsed:
    from pyarrow import parquet as pq

    metadata = pq.read_metadata(source)
    return metadata, metadata.schema.to_arrow_schema()


_cache = FooterCache()


def parsed_footer(source: InputObject, uri: str, tag: str) -> _Parsed:
    """See `FooterCache.get`; of this process's cache."""
    return _cache.get(source, uri, tag)
