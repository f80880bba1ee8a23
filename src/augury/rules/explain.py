"""Why an event does not meet a pattern: the first field that fails, and what nearly met it.

The walk is that of `evaluate.py`, but it comes back with a failure instead of False; the two agree
(a property test holds them together). Where a pattern offers several ways (`$or`, the elements of
an array) every way fails, and the one that got furthest is told: most fields met before the first
that was not. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from augury.rules.branches import Branch, Condition, Field, Guard, Node
from augury.rules.conditions import Test
from augury.rules.evaluate import Rows, field_meets, objects_in, read_rows, rows_agree, taken_apart
from augury.rules.limits import shown
from augury.rules.near_misses import NearMiss, near_misses
from augury.rules.pattern import Pattern
from augury.rules.quantifiers import MISSING, Exists, NoneOf, Quantifier, flat
from augury.rules.wording import operator_of, said_of

NOT = "$not"
_MOST_SAID = 5
_FIRST = ("type", "source")
_SAME_ELEMENT = (
    "elements of the array meet each field, but no single element meets all of them: fields of one "
    "pattern speak of one and the same element"
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The first field that the event does not meet.

    Attributes:
        path: dotted path of the field.
        operator: the operator that decided, `equals` for a plain value; of several alternatives
            all, joined by `|`.
        expected: the alternatives, as a pattern writes them.
        is_present: False if the event has nothing at `path`; then `found` is None.
        found: what the event has there.
        reason: a sentence: what was expected and what was found.
        near_misses: what would have matched, had it been written a little differently.
        num_met: fields that were met before this one.
        alternative: which way of `$or` this is, from 1; 0 if the pattern has only one.
        num_alternatives: how many ways there are, all of which fail.
    """

    path: str
    operator: str
    expected: tuple[Any, ...]
    is_present: bool
    found: Any
    reason: str
    near_misses: tuple[NearMiss, ...] = ()
    num_met: int = 0
    alternative: int = 0
    num_alternatives: int = 1


def explain(pattern: Pattern, event: Mapping[str, Any]) -> Failure | None:
    """The failure of the way that got furthest; None exactly if `pattern.matches(event)`.

    Args:
        pattern: of any dialect.
        event: decoded; numbers that no double holds as `rules.document.read_event` gives them.
    """
    return _condition(pattern.condition, event)


def _condition(condition: Condition, event: Mapping[str, Any]) -> Failure | None:
    failures = []
    for number, branch in enumerate(condition, 1):
        failure = _branch(branch, event)
        if failure is None:
            return None
        failures.append(replace(failure, alternative=number if len(condition) > 1 else 0))
    return replace(_furthest(failures), num_alternatives=len(condition))


def _branch(branch: Branch, event: Mapping[str, Any]) -> Failure | None:
    if branch.by_row:
        rows = read_rows(event, {item.path for item in branch.fields})
        return _by_row(branch.fields, rows, event)
    return _Walk(event).object(branch.tree, event, "")


def _furthest(failures: Sequence[Failure]) -> Failure:
    if not failures:  # a condition without any branch is met by nothing
        return _failure((), "", MISSING, "the pattern has no alternative that an event could meet")
    return max(failures, key=lambda failure: failure.num_met)


# --- nested ---------------------------------------------------------------------------------------


class _Walk:
    """The walk of one event through the tree of one branch."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._event = event

    def object(self, node: Node, found: Mapping[str, Any], path: str) -> Failure | None:
        whole = taken_apart(node, found)
        num_met = 0
        for name in _in_order(node.children):
            child = node.children[name]
            where = f"{path}.{name}" if path else name
            failure = self._value(child, whole.get(name, MISSING), where)
            if failure is not None:
                return replace(failure, num_met=failure.num_met + num_met)
            num_met += _num_leaves(child)
        for guard in node.guards:
            failure = self._guard(guard, found, path)
            if failure is not None:
                return replace(failure, num_met=failure.num_met + num_met)
            num_met += 1
        return None

    def _value(self, node: Node, value: Any, path: str) -> Failure | None:
        if node.leaf is not None and not field_meets(node.leaf, value, self._event):
            return _field(node.leaf, path, value, self._event)
        if not node.children and not node.guards:
            return None
        failures = []
        objects = objects_in(value)
        for item in objects:
            failure = self.object(node, item, path)
            if failure is None:
                return None
            failures.append(failure)
        closest = _furthest(failures)
        if len(objects) > 1 and _is_met_apart(node, objects, self._event):
            return replace(closest, reason=f"{closest.reason}; {_SAME_ELEMENT}")
        return closest

    def _guard(self, guard: Guard, found: Mapping[str, Any], path: str) -> Failure | None:
        failures = []
        for branch in guard.condition:
            failure = self.object(branch.tree, found, path)
            if failure is None:
                return None if guard.wanted else _excluded(branch, found, path)
            failures.append(failure)
        return _furthest(failures) if guard.wanted else None


def _in_order(names: Iterable[str]) -> list[str]:
    """What kind of event it is comes first: nobody asks for the data of another kind."""
    return sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _num_leaves(node: Node) -> int:
    own = (node.leaf is not None) + len(node.guards)
    return own + sum(map(_num_leaves, node.children.values()))


def _is_met_apart(
    node: Node, objects: Sequence[Mapping[str, Any]], event: Mapping[str, Any]
) -> bool:
    """True if every field below is met by some element: only not all by the same one."""
    walk = _Walk(event)
    parts = [Node(children={name: child}) for name, child in node.children.items()]
    return len(parts) > 1 and all(
        any(walk.object(part, item, "") is None for item in objects) for part in parts
    )


def _excluded(branch: Branch, found: Mapping[str, Any], path: str) -> Failure:
    """The event meets what `$not` rules out."""
    asked = {item.path: [said_of(each) for each in item.items] for item in branch.fields}
    field = next(iter(asked), "")
    where = ".".join(part for part in (path, field) if part)
    value = _looked_up(found, field) if field else dict(found)
    reason = f"expected an event that is not {asked or 'of this form'}, and it is"
    return _failure((), where, value, reason, operator=NOT, expected=({NOT: asked},))


def _looked_up(found: Mapping[str, Any], path: str) -> Any:
    value: Any = found
    for name in path.split("."):
        objects = [item for item in flat(value) if isinstance(item, Mapping) and name in item]
        if not objects:
            return MISSING
        value = objects[0][name]
    return value


# --- by row ---------------------------------------------------------------------------------------


def _by_row(fields: tuple[Field, ...], rows: Rows, event: Mapping[str, Any]) -> Failure | None:
    if rows_agree(fields, rows):
        return None
    kinds = [n for n, item in enumerate(fields, 1) if item.path in _FIRST]
    alone = (n for n in kinds if not rows_agree((fields[n - 1],), rows))
    # fields are taken in their order, so the shortest beginning that fails ends with the culprit
    begun = (n for n in range(1, len(fields) + 1) if not rows_agree(fields[:n], rows))
    number = next(alone, None) or next(begun)
    culprit = fields[number - 1]
    found = [value for value, _ in rows.get(culprit.path, ())]
    value = found[0] if len(found) == 1 else found or _looked_up(event, culprit.path)
    failure = _field(culprit, culprit.path, value, event)
    if number > 1 and rows_agree((culprit,), rows):
        failure = replace(failure, reason=f"{failure.reason}; {_SAME_ELEMENT}", near_misses=())
    return replace(failure, num_met=number - 1)


# --- what is said ---------------------------------------------------------------------------------


def _field(field: Field, path: str, value: Any, event: Mapping[str, Any]) -> Failure:
    misses = near_misses(field, path, value, event)
    return _failure(field.items, path, value, _reason(field, value), near=misses)


def _failure(
    items: Iterable[Test | Quantifier],
    path: str,
    value: Any,
    reason: str,
    *,
    operator: str = "",
    expected: tuple[Any, ...] = (),
    near: Sequence[NearMiss] = (),
) -> Failure:
    asked = tuple(items)
    return Failure(
        path=path,
        operator=operator or "|".join(dict.fromkeys(map(operator_of, asked))),
        expected=expected or tuple(map(said_of, asked)),
        is_present=value is not MISSING,
        found=None if value is MISSING else value,
        reason=reason,
        near_misses=tuple(near),
    )


def _reason(field: Field, value: Any) -> str:
    if value is MISSING:
        return f"expected {_asked(field)}, found no such field"
    if all(isinstance(item, Exists) for item in field.items):
        return "expected the field to be absent, found one"
    if all(isinstance(item, NoneOf) for item in field.items):
        return f"expected nothing that {_asked(field)} rules out, found one"
    if isinstance(value, Mapping):
        return f"expected {_asked(field)}, found an object"
    return f"expected {_asked(field)}, found {shown(value)}"


def _asked(field: Field) -> str:
    said = [shown(said_of(item)) for item in field.items]
    more = f" or {len(said) - _MOST_SAID} others" if len(said) > _MOST_SAID else ""
    return " or ".join(said[:_MOST_SAID]) + more
