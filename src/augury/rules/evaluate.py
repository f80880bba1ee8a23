"""One branch against one event: the meaning of patterns, with no regard to speed.

The index (`index.py`) only proposes rules; wherever arrays of objects, dotted keys or guards make a
proposal uncertain, what is said here decides. There are two ways to choose among elements.

* Nested (`augury` and the dialects that become it): an object pattern over an array asks for one
  element that meets all of it. A key with dots that is a path of the pattern is taken apart first.
* By row (`eventbridge`): the event is cut into rows of path, scalar and the array elements that it
  lies in. Fields are taken in the order of their paths; each needs a row whose elements agree with
  those chosen before. That a field is absent is decided at its turn, by the choices made so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from augury.rules.branches import Branch, Condition, Field, Guard, Node
from augury.rules.conditions import Scalar
from augury.rules.quantifiers import MISSING, Exists, flat, read_leaf

type Place = dict[int, int]  # which element of which array
type Rows = dict[str, list[tuple[Scalar, Place]]]


def meets(condition: Condition, event: Mapping[str, Any]) -> bool:
    """True if the event meets one of the branches."""
    return any(meets_branch(branch, event) for branch in condition)


def meets_branch(branch: Branch, event: Mapping[str, Any]) -> bool:
    """True if the event meets all of the branch."""
    if branch.by_row:
        rows = read_rows(event, {item.path for item in branch.fields})
        return rows_agree(branch.fields, rows)
    return _object_meets(branch.tree, event, event)


# --- nested --------------------------------------------------------------------------------------


def _object_meets(node: Node, found: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    whole = taken_apart(node, found)
    return all(
        _value_meets(child, whole.get(name, MISSING), event)
        for name, child in node.children.items()
    ) and all(_guard_meets(guard, found, event) for guard in node.guards)


def _guard_meets(guard: Guard, found: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    met = any(_object_meets(branch.tree, found, event) for branch in guard.condition)
    return met is guard.wanted


def _value_meets(node: Node, value: Any, event: Mapping[str, Any]) -> bool:
    if node.leaf is not None and not field_meets(node.leaf, value, event):
        return False
    if not node.children and not node.guards:
        return True
    return any(_object_meets(node, item, event) for item in objects_in(value))


def objects_in(value: Any) -> Sequence[Mapping[str, Any]]:
    """The value itself or the objects of an array; where there is none, one without any field."""
    return [item for item in flat(value) if isinstance(item, Mapping)] or [{}]


def field_meets(item: Field, value: Any, event: Mapping[str, Any]) -> bool:
    """True if one of the field's alternatives holds for what the event has at its path."""
    if value is not MISSING and item.tests:
        if value.__class__ is str:  # as it mostly is
            if scalar_meets(item, value):
                return True
        elif any(scalar_meets(item, v) for v in flat(value) if not isinstance(v, Mapping)):
            return True
    if not item.quantifiers:
        return False
    leaf = read_leaf(value, event)
    return any(quantifier.holds(leaf) for quantifier in item.quantifiers)


class Steps(Protocol):
    """A tree of paths."""

    @property
    def children(self) -> Mapping[str, Steps]:
        """The next step of each path, by name."""


def taken_apart(node: Steps, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object with `{"a.b": 1}` as `{"a": {"b": 1}}`, where the tree has a path `a.b`.

    What is said about one field in both ways is merged. Other keys are left alone, dots or not.
    """
    dotted = [key for key in found if "." in key and _has_path(node, key)]
    if not dotted:
        return found
    made = {key: value for key, value in found.items() if key not in dotted}
    for key in dotted:
        name, _, rest = key.partition(".")
        inner = {rest: found[key]}
        made[name] = _merged(made[name], inner) if name in made else inner
    return made


def _has_path(node: Steps, path: str) -> bool:
    for name in path.split("."):
        if name not in node.children:
            return False
        node = node.children[name]
    return True


def _merged(first: Any, second: Any) -> Any:
    """Both values of one field: objects become one, all else is put side by side."""
    if isinstance(first, dict) and isinstance(second, dict):
        both = dict(first)
        for name, item in second.items():
            both[name] = _merged(both[name], item) if name in both else item
        return both
    if isinstance(first, list) and isinstance(second, dict):
        return _merged(second, first)
    if isinstance(first, dict) and isinstance(second, list) and _has_object(second):
        return [_merged(item, first) if isinstance(item, dict) else item for item in second]
    return [*_listed(first), *_listed(second)]


def _has_object(items: list[Any]) -> bool:
    return any(isinstance(item, dict) for item in items)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- by row --------------------------------------------------------------------------------------


def read_rows(event: Mapping[str, Any], paths: Collection[str]) -> Rows:
    """All scalars at the given paths, with the elements of arrays in which they lie."""
    prefixes = {path[: end + 1] for path in paths for end in _dots(path)}
    steps = frozenset(step for path in paths for step in _steps(path))
    reader = _RowReader(frozenset(paths), frozenset(prefixes), steps)
    reader.read_object(event, "", {})
    return reader.rows


def _dots(path: str) -> Iterator[int]:
    return (index for index, char in enumerate(path) if char == ".")


def _steps(path: str) -> list[str]:
    """The names in a path, as Java splits it: without empty ones at its end."""
    steps = path.split(".")
    while len(steps) > 1 and not steps[-1]:
        steps.pop()
    return steps if steps != [""] or path == "" else []


class _RowReader:
    """Walks an event in the order of its text."""

    def __init__(
        self, paths: frozenset[str], prefixes: frozenset[str], steps: frozenset[str]
    ) -> None:
        self.rows: Rows = {}
        self._paths = paths
        self._prefixes = prefixes
        self._steps = steps
        self._num_arrays = 0

    def read_object(self, found: Mapping[str, Any], prefix: str, place: Place) -> None:
        """Reads an object whose members' paths begin with `prefix`."""
        for name, value in found.items():
            path = f"{prefix}{name}"
            if self._is_used(name) and (path in self._paths or f"{path}." in self._prefixes):
                self._read(value, path, place)

    def _is_used(self, name: str) -> bool:
        """A name that no pattern mentions hides all below it, even if the path would fit."""
        return name in self._steps or (
            "." in name and all(step in self._steps for step in _steps(name))
        )

    def _read(self, value: Any, path: str, place: Place) -> None:
        if isinstance(value, Mapping):
            self.read_object(value, f"{path}.", place)
        elif isinstance(value, list | tuple):
            self._read_array(value, path, place)
        else:
            self.rows.setdefault(path, []).append((value, place))

    def _read_array(self, values: Collection[Any], path: str, place: Place) -> None:
        array = self._num_arrays
        self._num_arrays += 1
        for index, value in enumerate(values):
            nested = isinstance(value, Mapping | list | tuple)
            self._read(value, path, {**place, array: index} if nested else place)


def rows_agree(fields: tuple[Field, ...], rows: Rows) -> bool:
    """True if every field finds a row, and all of these lie in the same elements of arrays."""
    return _Choice(fields, rows).succeeds(0, {})


class _Choice:
    """The search for one row per field, all of which agree.

    What has failed is remembered by the chosen elements that later fields can still see, so that
    fields in arrays beside each other cost their sum, not their product.
    """

    def __init__(self, fields: tuple[Field, ...], rows: Rows) -> None:
        self._fields = fields
        self._rows = [
            [(place, row_meets(item, value)) for value, place in rows.get(item.path, ())]
            for item in fields
        ]
        self._failed: set[tuple[int, frozenset[tuple[int, int]]]] = set()
        self._ahead: list[set[int]] = [set() for _ in range(len(fields) + 1)]
        for index in reversed(range(len(fields))):
            here = {array for place, _ in self._rows[index] for array in place}
            self._ahead[index] = self._ahead[index + 1] | here

    def succeeds(self, index: int, chosen: Place) -> bool:
        """True if every field from `index` on finds a row that agrees with the elements chosen."""
        if index == len(self._fields):
            return True
        seen = frozenset(item for item in chosen.items() if item[0] in self._ahead[index])
        if (index, seen) in self._failed:
            return False
        if any(self.succeeds(index + 1, then) for then in self._choices(index, chosen)):
            return True
        self._failed.add((index, seen))
        return False

    def _choices(self, index: int, chosen: Place) -> Iterator[Place]:
        there = [(place, met) for place, met in self._rows[index] if _agree(chosen, place)]
        if not there and Exists(wanted=False) in self._fields[index].quantifiers:
            yield chosen
        for place, met in there:
            if met:
                yield {**chosen, **place} if place else chosen


def _agree(chosen: Place, place: Place) -> bool:
    return all(chosen.get(array, element) == element for array, element in place.items())


def scalar_meets(item: Field, value: Scalar) -> bool:
    """True if the scalar alone meets one of the field's tests."""
    return any(test.check(value) for test in item.tests)


def row_meets(item: Field, value: Scalar) -> bool:
    """True if a row with this scalar meets the field."""
    return Exists(wanted=True) in item.quantifiers or scalar_meets(item, value)
