"""From an event's bytes to just the fields that rules mention.

A full decode is most of what matching costs, so msgspec is given a type that is made from the
mentioned paths: what no rule mentions is skipped without becoming an object. At every step of a
path the type also allows whatever else an event may hold there. Numbers with a fraction are read as
doubles first, which is fast and nearly always enough (`Index.match` says when it is not).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Union

import msgspec

from augury.errors import InvalidError
from augury.rules.document import read_event, read_real
from augury.rules.nodes import IndexNode

_MANY_KEYS = 60  # msgspec looks for a key of a declared shape in their order

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def make_decoders(
    root: IndexNode,
) -> tuple[Callable[[bytes], dict[str, Any]], Callable[[bytes], dict[str, Any]]]:
    """(fast, exact) decoders of the paths below `root`.

    The fast one raises `UNREADABLE` for what `read_whole` may still read; the exact one does that.
    """
    shape = _shape(root)
    fast = msgspec.json.Decoder(shape)
    # the hook sees only numbers of no declared type, so not those where a path may also go on
    mixed = _has_mixed(root)
    exact = msgspec.json.Decoder(Any if mixed else shape, float_hook=read_real)
    return fast.decode, _careful(exact.decode)


def _has_mixed(node: IndexNode) -> bool:
    """True if some path ends where another one goes on."""
    return any(
        child.children and (child.is_end or _has_mixed(child)) for child in node.children.values()
    )


def _careful(decode: Callable[[bytes], Any]) -> Callable[[bytes], dict[str, Any]]:
    def read(raw: bytes) -> dict[str, Any]:
        try:
            found = decode(raw)
        except UNREADABLE:
            found = None
        return found if found.__class__ is dict else read_whole(raw)

    return read


def read_whole(raw: bytes | str) -> dict[str, Any]:
    """The whole event, exactly; reads some that msgspec refuses (1e400, half a surrogate pair).

    Raises:
        InvalidError: not a JSON object.
    """
    try:
        found = read_event(raw)
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidError(f"expected an event in JSON, found {raw[:80]!r}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidError(f"expected a JSON object as event, found {raw[:80]!r}")
    return found


def _shape(node: IndexNode) -> Any:
    """The type of an object at a node: a dict of the members that rules mention."""
    if len(node.keys) > _MANY_KEYS:
        return dict[str, Any]
    members = {
        key: Any if not child.children else _value(child) for key, child in node.keys.items()
    }
    # the functional form is the one that takes any text as a name
    return TypedDict("Shape", members, total=False)  # type: ignore[operator]


def _value(node: IndexNode) -> Any:
    shape: Any = _shape(node)
    scalar: Any = str | int | float | bool | None
    return Union[shape, list[Union[shape, list[Any], scalar]], scalar]  # noqa: UP007 - of values
