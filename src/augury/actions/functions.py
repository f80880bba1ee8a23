"""Python functions that the action `call` may name, and how a worker finds them.

    import augury

    @augury.function
    def tell_ops(call: augury.FunctionCall) -> None:
        page(call.arguments["text"], deduplicate=call.id)

A module that registers functions is named in AUGURY_FUNCTIONS, or a package that is installed
declares them under the entry point group `augury.functions`. A function is called at least once for
each event, with the same `call.id` each time; it should be harmless to call again. What it raises
makes the attempt fail: an `augury.errors.InvalidError`, `NotFoundError`, `ConflictError`,
`CorruptError` or `LimitError` for good, anything else for now.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, overload

from augury.errors import ConflictError, NotFoundError

_GROUP = "augury.functions"


@dataclass(frozen=True, kw_only=True)
class FunctionCall:
    """What a function is told.

    Attributes:
        id: the same in every attempt for this event, rule and action: an idempotency key.
        event: the event in structured form.
        arguments: the action's `arguments`, filled from the event.
        attempt: 1 for the first.
        rule_id: of the rule that asked.
        action: name of the rule's action.
    """

    id: str
    event: Mapping[str, Any]
    arguments: Mapping[str, Any]
    attempt: int
    rule_id: str
    action: str


type Function = Callable[[FunctionCall], object]

_registered: dict[str, Function] = {}
_loaded: set[str] = set()
_lock = threading.RLock()


@overload
def function[F: Function](given: F) -> F: ...
@overload
def function[F: Function](given: str) -> Callable[[F], F]: ...
def function(given: Any) -> Any:
    """Registers a function under its own name, or under the one that is given.

    Raises:
        ConflictError: another function has that name.
    """
    if isinstance(given, str):
        return lambda made: _register(given, made)
    return _register(given.__name__, given)


def _register(name: str, made: Function) -> Function:
    with _lock:
        known = _registered.setdefault(name, made)
        if _place(known) != _place(made):
            raise ConflictError(
                f"two functions are named {name!r}: {_place(known)}, {_place(made)}"
            )
        _registered[name] = made  # the module was loaded again
    return made


def _place(made: Function) -> str:
    return f"{made.__module__}.{getattr(made, '__qualname__', repr(made))}"


def find(name: str, modules: str) -> Function:
    """The function that is registered under a name.

    Args:
        name: as the rule says it.
        modules: to import first; names separated by commas.

    Raises:
        NotFoundError: there is none; the message names those that there are.
    """
    with _lock:
        for module in (part.strip() for part in modules.split(",")):
            _load(module)
        if name not in _registered:
            _load_entry_point(name)
        if name in _registered:
            return _registered[name]
        known = {*_registered, *(point.name for point in entry_points(group=_GROUP))}
    raise NotFoundError(
        f"no function {name!r} is registered here; there are: {', '.join(sorted(known)) or 'none'} "
        "(AUGURY_FUNCTIONS names the modules that register them)"
    )


def _load(module: str) -> None:
    if module and module not in _loaded:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise NotFoundError(f"AUGURY_FUNCTIONS: cannot import {module!r}: {error}") from error
        _loaded.add(module)


def _load_entry_point(name: str) -> None:
    for point in entry_points(group=_GROUP, name=name):
        _registered[name] = point.load()
