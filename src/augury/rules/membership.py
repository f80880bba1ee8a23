"""What a group needs to know of an event: its key, its object, and what makes a group complete.

Pure. Which paths mean what is the rule's `group`; what an object's event holds is the catalog's
(`data.uri`, `data.tag`, `data.key`, `data.size_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from augury.ids import digest
from augury.rules.group_spec import MOST_EVENTS, GroupSpec

# a key is kept with each lane and shown; one that is longer is told apart by its hash
_LONGEST_KEY_BYTES = 1500


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """An event as a member of a group.

    Attributes:
        key: values of the fields of `group_by` as a JSON list.
        uri, tag: the object that the event names, and its content; None if it names none.
        is_marker: it completes its group.
        expected: how many objects its group must have, if this event says so.
    """

    key: str
    uri: str | None
    tag: str | None
    size_bytes: int
    is_marker: bool
    expected: int | None


def membership(spec: GroupSpec | None, event: Mapping[str, Any]) -> Membership:
    """Reads an event in structured form; what it does not have counts as null, or as nothing."""
    uri, size_bytes = look_up("data.uri", event), look_up("data.size_bytes", event)
    named = uri if isinstance(uri, str) and uri else None
    tag = look_up("data.tag", event)
    return Membership(
        key=group_key(spec, event),
        uri=named,
        tag=tag if named and isinstance(tag, str) and tag else None,
        size_bytes=size_bytes if _is_count(size_bytes) else 0,
        is_marker=_is_marker(spec, event),
        expected=_expected(spec, event),
    )


def group_key(spec: GroupSpec | None, event: Mapping[str, Any]) -> str:
    """Values of the fields of `group_by`, as a JSON list; bounded in length."""
    values = [] if spec is None else [_value(path, event) for path in spec.group_by]
    raw = msgspec.json.encode(values, order="sorted")
    if len(raw) > _LONGEST_KEY_BYTES:
        raw = msgspec.json.encode([f"sha256:{digest(raw)}"])
    return raw.decode()


def _value(path: str, event: Mapping[str, Any]) -> Any:
    if not path.startswith("folder("):
        return look_up(path, event)
    text = look_up(path.removeprefix("folder(").removesuffix(")"), event)
    return text.rpartition("/")[0] if isinstance(text, str) else None


def look_up(path: str, event: Mapping[str, Any]) -> Any:
    """The value at a dotted path of objects; None if there is none."""
    here: Any = event
    for part in path.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def _is_marker(spec: GroupSpec | None, event: Mapping[str, Any]) -> bool:
    if spec is None or spec.complete is None or spec.complete.marker is None:
        return False
    for name in (look_up("data.key", event), event.get("subject")):
        if isinstance(name, str):
            return fnmatchcase(name.rpartition("/")[2], spec.complete.marker)
    return False


def _expected(spec: GroupSpec | None, event: Mapping[str, Any]) -> int | None:
    if spec is None or spec.complete is None or spec.complete.expected is None:
        return None
    said = spec.complete.expected
    found = look_up(said, event) if isinstance(said, str) else said
    return found if _is_count(found) and 1 <= found <= MOST_EVENTS else None


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63
