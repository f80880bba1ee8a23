"""Text with holes that an event fills: `scores/${data.key}`.

`${a.b.0}` stands for the value at that path of the event (the CloudEvent's structured form; a
number is an index into an array), `$${` for a literal `${`. A text that is one hole and nothing
else takes the value itself, so that a list of URIs can become a list of inputs; inside other text
only strings, numbers and booleans make sense. What is not there is a fault, never an empty string:
a run on the wrong data is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_HOLE = re.compile(r"\$(\$)?\{([^{}]*)\}?")
_PATH = re.compile(r"[^.\s{}$]+(\.[^.\s{}$]+)*\Z")
_SHOWN = 80


class TemplateError(ValueError):
    """A template that cannot be read, or that an event does not fill."""


def check(text: str) -> str:
    """Returns `text` if every hole in it is well formed.

    Raises:
        TemplateError: naming the first hole that is not.
    """
    for match in _HOLE.finditer(text):
        if match[1]:
            continue
        if not match[0].endswith("}"):
            raise TemplateError(f"expected '}}' after {match[0]!r}")
        if not _PATH.match(match[2]):
            raise TemplateError(f"expected a path such as ${{data.key}}, found {match[0]!r}")
    return text


def fill(text: str, event: Mapping[str, Any]) -> str:
    """The text with every hole filled from `event`.

    Raises:
        TemplateError: the event has nothing, or nothing that text can hold, at a path.
    """
    return _HOLE.sub(lambda match: _filled(match, event), text)


def value(text: str, event: Mapping[str, Any]) -> Any:
    """The event's value if `text` is exactly one hole, otherwise the filled text."""
    match = _HOLE.fullmatch(text)
    return look_up(match[2], event) if match and not match[1] else fill(text, event)


def holes(text: str) -> list[tuple[str, bool]]:
    """The path of every hole in a text, and whether it is all of the text."""
    found = [match for match in _HOLE.finditer(text) if not match[1]]
    return [(match[2], match[0] == text) for match in found]


def fill_json(given: Any, event: Mapping[str, Any]) -> Any:
    """A JSON value with every text in it filled; a text that is one hole takes the value itself.

    Raises:
        TemplateError: the event has nothing, or nothing that text can hold, at a path.
    """
    if isinstance(given, str):
        return value(given, event)
    if isinstance(given, Mapping):
        return {key: fill_json(item, event) for key, item in given.items()}
    if isinstance(given, list):
        return [fill_json(item, event) for item in given]
    return given


def fill_list(texts: Sequence[str], event: Mapping[str, Any]) -> list[str]:
    """Filled texts; one that is a single hole over a list of strings gives all of them.

    Raises:
        TemplateError: what is found is not a non-empty string, or a list of them.
    """
    filled: list[str] = []
    for text in texts:
        found = value(text, event)
        for item in found if isinstance(found, list) else [found]:
            if not isinstance(item, str) or not item:
                raise TemplateError(f"expected a non-empty string for {text!r}, found {item!r}")
            filled.append(item)
    return filled


def _filled(match: re.Match[str], event: Mapping[str, Any]) -> str:
    if match[1]:
        return match[0][1:]
    found = look_up(match[2], event)
    if isinstance(found, str):
        return found
    if isinstance(found, bool | int | float):
        return msgspec.json.encode(found).decode()
    raise TemplateError(
        f"expected a string, number or boolean at {match[2]}, found {_shown(found)}"
    )


def look_up(path: str, event: Mapping[str, Any]) -> Any:
    """The value at a dotted path.

    Raises:
        TemplateError: the path ends before its last part; says where, and what is there.
    """
    here: Any = event
    walked: list[str] = []
    for part in path.split("."):
        try:
            here = _step(here, part)
        except (KeyError, IndexError, ValueError, TypeError):
            where = ".".join(walked) or "the event"
            raise TemplateError(
                f"nothing at {path}: {where} has no {part!r} (it is {_shown(here)})"
            ) from None
        walked.append(part)
    return here


def _step(here: Any, part: str) -> Any:
    if isinstance(here, Mapping):
        return here[part]
    if isinstance(here, Sequence) and not isinstance(here, str) and part.isascii():
        return here[int(part)] if part.isdecimal() else here[part]  # type: ignore[call-overload]
    raise TypeError


def _shown(found: Any) -> str:
    text = msgspec.json.encode(found).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
