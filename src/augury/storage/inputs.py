"""Open objects as files of pyarrow.

A class of its own for each store, derived from pyarrow's, so that whatever takes a `NativeFile`
takes them without wrapping; apart from the stores, so that only those who read data load pyarrow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from augury.storage.objects import ObjectInfo


class LocalInput(pa.OSFile):  # type: ignore[misc] # pyarrow ships no types
    """A local file, read by pyarrow itself."""

    info: ObjectInfo
    _verify: Callable[[], None]

    @classmethod
    def over(cls, path: str, info: ObjectInfo, verify: Callable[[], None]) -> LocalInput:
        """Opens `path`; `verify` checks that it still is `info`."""
        opened = cls(path, "r")
        opened.info, opened._verify = info, verify
        return opened

    def verify(self) -> None:
        """See `InputObject.verify`."""
        self._verify()


class RangeInput(pa.PythonFile):  # type: ignore[misc] # pyarrow ships no types
    """An object whose ranges are fetched one by one."""

    info: ObjectInfo
    _verify: Callable[[], None]

    @classmethod
    def over(
        cls,
        info: ObjectInfo,
        fetch: Callable[[int, int], Any],
        verify: Callable[[], None],
    ) -> RangeInput:
        """Reads by `fetch(start, end)` (bytes, `end` exclusive); `verify` checks the identity."""
        opened = cls(_Ranges(info.size_bytes, fetch), "r")
        opened.info, opened._verify = info, verify
        return opened

    def verify(self) -> None:
        """See `InputObject.verify`."""
        self._verify()


class _Ranges(io.RawIOBase):
    """A file of Python's over a function that fetches a range."""

    def __init__(self, size_bytes: int, fetch: Callable[[int, int], Any]) -> None:
        self._size_bytes = size_bytes
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + position)
        return self._position

    def read_buffer(self, num_bytes: int = -1) -> Any:
        """The next bytes without a copy; pyarrow looks for this method."""
        start = min(self._position, self._size_bytes)
        left = self._size_bytes - start
        end = start + (left if num_bytes is None or num_bytes < 0 else min(num_bytes, left))
        self._position = end
        return pa.py_buffer(self._fetch(start, end) if end > start else b"")

    def read(self, num_bytes: int = -1) -> bytes:
        return bytes(self.read_buffer(num_bytes))

    def readinto(self, target: Any) -> int:
        found = self.read(len(target))
        target[: len(found)] = found
        return len(found)
