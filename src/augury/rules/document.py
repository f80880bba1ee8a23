"""Reading JSON so that nothing is lost: doubled keys, and numbers that no double can hold.

Patterns are read once and may repeat a key, which the dialects judge differently; so their objects
come as `Members`, in order. Events are read in the fast lane by msgspec (`decoding.py`); what it
refuses or would round is read again here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

_shortest = msgspec.json.Encoder().encode


class Literal(Decimal):
    """A number that is not exactly what any double prints as; `text` is how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Literal:
        """From the text of a JSON number."""
        made = super().__new__(cls, text)
        made.text = text
        return made


@dataclass(frozen=True, slots=True, repr=False)
class Members:
    """The members of an object, in the order of the text, repeated ones included."""

    pairs: tuple[tuple[str, Any], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return repr(dict(self.pairs))


def read_real(text: str) -> float | Literal:
    """A JSON number with fraction or exponent, exactly.

    Raises:
        ValueError: its exponent has more than some 18 digits.
    """
    value = float(text)
    # msgspec finds the shortest text of a double in a fraction of the time that repr needs
    if _shortest(value).decode() == text:
        return value
    try:
        return value if Decimal(repr(value)) == Decimal(text) else Literal(text)
    except InvalidOperation:
        raise ValueError(f"number {text[:40]} is beyond all bounds") from None


def read_pattern(text: str | bytes, *, to_the_end: bool = True) -> Any:
    """JSON as a pattern's author wrote it.

    Args:
        text: UTF-8 if it is bytes.
        to_the_end: False: what follows the first value is left alone, as event-ruler does.

    Raises:
        ValueError: not JSON.
    """
    source = (text.decode() if isinstance(text, bytes) else text).lstrip(" \t\r\n\ufeff")
    try:
        if to_the_end:
            return _PATTERN_DECODER.decode(source)
        return _PATTERN_DECODER.raw_decode(source)[0]
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_event(text: bytes | str) -> Any:
    """JSON with exact numbers; of a repeated key the last one counts.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(text, parse_float=read_real, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _members(pairs: list[tuple[str, Any]]) -> Members:
    return Members(tuple(pairs))


_PATTERN_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=read_real, parse_constant=_refuse
)


def is_object(value: Any) -> bool:
    """True for what was an object in JSON."""
    return isinstance(value, Members | Mapping)


def is_list(value: Any) -> bool:
    """True for what was an array in JSON."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_number(value: Any) -> bool:
    """True for what was a number in JSON; booleans are none."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def members(value: Any) -> list[tuple[Any, Any]]:
    """Names and values of an object, in order."""
    return list(value.pairs if isinstance(value, Members) else value.items())


def inner_values(value: Any) -> list[Any]:
    """What an object or list holds; nothing for all else."""
    if is_object(value):
        return [item for _, item in members(value)]
    return list(value) if is_list(value) else []


def only_member(value: Any) -> tuple[Any, Any] | None:
    """Name and value of an object that has just one."""
    found = members(value)
    return found[0] if len(found) == 1 else None


def plain_document(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event made of dicts and lists only."""
    return {key: _plain(item) for key, item in event.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_document(value)
    return [_plain(item) for item in value] if is_list(value) else value
