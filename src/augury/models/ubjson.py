"""Reading Universal Binary JSON (https://ubjson.org), the form of XGBoost's `.ubj` files.

XGBoost's own reader trusts what it reads: a truncated or damaged file can end the process with a
segmentation fault. This reader checks every length against what is there, so that a bad file is an
error, and a model's names and types can be read without loading it.
"""

from __future__ import annotations

import struct
from typing import Any

from augury.errors import CorruptError

_NUMBERS = {"i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_LENGTHS = frozenset("iUIlL")
_CONSTANTS = {"Z": None, "T": True, "F": False}
_DEEPEST = 64


def decode(raw: bytes) -> Any:
    """The value in `raw`: dicts, lists, strings, numbers; typed arrays become numpy arrays.

    Raises:
        CorruptError: truncated, or no UBJSON.
    """
    reader = _Reader(raw)
    value = reader.value(reader.marker(), depth=0)
    if reader.offset != len(raw):
        raise CorruptError(f"not UBJSON: {len(raw) - reader.offset} bytes follow the value")
    return value


class _Reader:
    """A position in the bytes."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.offset = 0

    def value(self, kind: str, *, depth: int) -> Any:
        if depth > _DEEPEST:
            raise CorruptError(f"not UBJSON: nested deeper than {_DEEPEST} at byte {self.offset}")
        if kind in _NUMBERS:
            return self._number(kind)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind == "S":
            return self._text()
        if kind == "C":
            return self._take(1).decode("latin-1")
        if kind == "[":
            return self._array(depth)
        if kind == "{":
            return self._object(depth)
        raise CorruptError(f"not UBJSON: no type {kind!r} (byte {self.offset - 1})")

    def marker(self) -> str:
        return self._take(1).decode("latin-1")

    def _take(self, num_bytes: int) -> bytes:
        end = self.offset + num_bytes
        if num_bytes < 0 or end > len(self._raw):
            raise CorruptError(
                f"truncated: {num_bytes} bytes expected at byte {self.offset}, "
                f"the file ends at {len(self._raw)}"
            )
        taken = self._raw[self.offset : end]
        self.offset = end
        return taken

    def _number(self, kind: str) -> int | float:
        form = _NUMBERS[kind]
        number: int | float = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _length(self) -> int:
        kind = self.marker()
        if kind not in _LENGTHS:
            raise CorruptError(f"not UBJSON: {kind!r} is no length (byte {self.offset - 1})")
        return int(self._number(kind))

    def _text(self) -> str:
        try:
            return self._take(self._length()).decode()
        except UnicodeDecodeError as error:
            raise CorruptError(f"not UBJSON: text before byte {self.offset}: {error}") from error

    def _header(self) -> tuple[str | None, int | None]:
        """The optional `$type` and `#count` of a container."""
        kind = count = None
        if self._peek() == "$":
            self.offset += 1
            kind = self.marker()
        if self._peek() == "#":
            self.offset += 1
            count = self._length()
        if kind is not None and count is None:
            raise CorruptError(f"not UBJSON: a type without a count (byte {self.offset})")
        return kind, count

    def _peek(self) -> str:
        return self._raw[self.offset : self.offset + 1].decode("latin-1")

    def _array(self, depth: int) -> Any:
        kind, count = self._header()
        if kind in _NUMBERS and count is not None:
            import numpy as np

            form = _NUMBERS[kind]
            return np.frombuffer(self._take(count * struct.calcsize(form)), dtype=form)
        items: list[Any] = []
        while self._more(count, len(items), "]"):
            items.append(self.value(kind or self.marker(), depth=depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        kind, count = self._header()
        fields: dict[str, Any] = {}
        seen = 0
        while self._more(count, seen, "}"):
            name = self._text()
            fields[name] = self.value(kind or self.marker(), depth=depth + 1)
            seen += 1
        return fields

    def _more(self, count: int | None, seen: int, end: str) -> bool:
        if count is not None:
            return seen < count
        if self._peek() != end:
            return True
        self.offset += 1
        return False
