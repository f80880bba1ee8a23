"""Why a value that looks right is not: the five mistakes that people make again and again.

Each is tried: the value is changed in one way, and the same test is asked again. So a near miss is
never a guess; it says "this would have matched", and what would have to change. Pure, and bounded
in work: at most `_MOST_VALUES` values of an array, and `_MOST_PLACES` places of the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import msgspec

from augury.rules.branches import Field
from augury.rules.conditions import (
    Affix,
    Contains,
    EqualsText,
    Test,
    Wildcard,
    is_number,
    number_text,
)
from augury.rules.evaluate import field_meets
from augury.rules.quantifiers import MISSING, flat

_MOST_VALUES = 100
_MOST_PLACES = 1000
_DEEPEST = 8


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """Something that would have met the field, had it been so in the event or in the pattern.

    Attributes:
        kind: `case`, `url-encoding`, `number-as-string`, `trailing-slash`, `whitespace`,
            `nested-under-data`, `field-name-case` or `other-place`.
        path: dotted path in the event of what nearly met it.
        found: its value.
        message: what differs, in a sentence.
    """

    kind: str
    path: str
    found: Any
    message: str


def near_misses(field: Field, path: str, value: Any, event: Mapping[str, Any]) -> list[NearMiss]:
    """Each kind at most once.

    Args:
        field: what was asked.
        path: dotted path of the field.
        value: what the event holds there; `MISSING` if nothing.
        event: the whole event.
    """
    found: dict[str, NearMiss] = {}
    for miss in (*_of_values(field, path, value), *_of_places(field, path, event)):
        found.setdefault(miss.kind, miss)
    return list(found.values())


# --- another value at the right place -------------------------------------------------------------


def _of_values(field: Field, path: str, value: Any) -> Iterator[NearMiss]:
    if value is MISSING:
        return
    for scalar in islice(flat(value), _MOST_VALUES):
        if isinstance(scalar, Mapping):
            continue
        for kind, looks_alike, message in _LIKENESSES:
            if any(looks_alike(test, scalar) for test in field.tests):
                yield NearMiss(kind=kind, path=path, found=scalar, message=message)


def _in_other_case(test: Test, value: Any) -> bool:
    lowered = _lowered(test)
    return isinstance(value, str) and lowered is not None and lowered.check(value.lower())


def _lowered(test: Test) -> Test | None:
    match test:
        case EqualsText(text):
            return EqualsText(text.lower())
        case Affix(text, at_end):
            return Affix(text.lower(), at_end)
        case Contains(text):
            return Contains(text.lower())
        case Wildcard(parts):
            return Wildcard(tuple(part.lower() for part in parts))
        case _:
            return None


def _decoded(test: Test, value: Any) -> bool:
    if not isinstance(value, str) or not ("%" in value or "+" in value):
        return False
    return any(plain != value and test.check(plain) for plain in _plain_forms(value))


def _plain_forms(value: str) -> tuple[str, str]:
    return unquote(value), unquote_plus(value)


def _encoded(test: Test, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    coded = quote(value, safe="/", errors="replace")
    plus = coded.replace("%20", "+")
    return any(form != value and test.check(form) for form in (coded, plus))


def _unquoted(test: Test, value: Any) -> bool:
    """A string that the test would take as what it spells."""
    if not isinstance(value, str) or len(value) > 64:
        return False
    try:
        spelt = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    plain = spelt is None or isinstance(spelt, bool) or is_number(spelt)
    return plain and test.check(spelt)


def _quoted(test: Test, value: Any) -> bool:
    """A number or a constant that the test would take as text."""
    if isinstance(value, bool):
        return test.check("true" if value else "false")
    return is_number(value) and test.check(number_text(value))


def _with_slash(test: Test, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    trimmed = value.removesuffix("/") if value.endswith("/") else f"{value}/"
    begun = value.removeprefix("/") if value.startswith("/") else f"/{value}"
    return test.check(trimmed) or test.check(begun)


def _stripped(test: Test, value: Any) -> bool:
    return isinstance(value, str) and value != value.strip() and test.check(value.strip())


_LIKENESSES: tuple[tuple[str, Callable[[Test, Any], bool], str], ...] = (
    ("case", _in_other_case, "differs only in upper and lower case; `equals-ignore-case` helps"),
    ("url-encoding", _decoded, "the event's value is URL-encoded; decoded it would match"),
    ("url-encoding", _encoded, "the pattern's value is URL-encoded, the event's is not"),
    ("number-as-string", _unquoted, "the event has a string where the pattern has a bare value"),
    ("number-as-string", _quoted, "the event has a bare value where the pattern has a string"),
    ("trailing-slash", _with_slash, "differs only in a slash at the end or the beginning"),
    ("whitespace", _stripped, "differs only in white space around it"),
)


# --- the right value at another place -------------------------------------------------------------


def _of_places(field: Field, path: str, event: Mapping[str, Any]) -> Iterator[NearMiss]:
    if field_meets(field, MISSING, event):  # absence is enough: nothing elsewhere would help
        return
    name = path.rpartition(".")[2]
    for place, key, value in islice(_places(event, "", 0), _MOST_PLACES):
        if place == path or key.lower() != name.lower():
            continue
        if field_meets(field, value, event):
            kind, message = _how_placed(path, place)
            yield NearMiss(kind=kind, path=place, found=value, message=message)


def _how_placed(path: str, place: str) -> tuple[str, str]:
    if place == f"data.{path}":
        return "nested-under-data", f"the event has it under `data`: write `{place}`"
    if path == f"data.{place}":
        return "nested-under-data", f"the event has it beside `data`, not in it: write `{place}`"
    if place.lower() == path.lower():
        return "field-name-case", f"the event writes the field's name `{place}`"
    return "other-place", f"a field of this name that would match is at `{place}`"


def _places(value: Any, path: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of all fields; those of an array's objects under the array's path."""
    if depth > _DEEPEST:
        return
    for item in flat(value):
        if not isinstance(item, Mapping):
            continue
        for key, inner in item.items():
            place = f"{path}.{key}" if path else str(key)
            yield place, str(key), inner
            yield from _places(inner, place, depth + 1)
