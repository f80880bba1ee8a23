"""The compiled form of a pattern, the same for every dialect.

A condition is met if one of its branches is; a branch if all of its fields and guards are. `$or`
is multiplied out into branches when the pattern is compiled, so that the index sees plain
conjunctions.
A field is a dotted path with alternatives, one of which must hold. A guard is a condition of its
own, wanted or not wanted, on the object at the end of a path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from augury.rules.conditions import Test
from augury.rules.quantifiers import Quantifier

type Condition = tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """Alternatives for what is found at a path; exactly one of the two kinds may be empty."""

    path: str
    tests: tuple[Test, ...] = ()
    quantifiers: tuple[Quantifier, ...] = ()

    @property
    def items(self) -> tuple[Test | Quantifier, ...]:
        """All alternatives."""
        return (*self.tests, *self.quantifiers)


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on the object at `scope` (a dotted path; empty: the event)."""

    scope: str
    condition: Condition
    wanted: bool = True


@dataclass(frozen=True)
class Branch:
    """A conjunction.

    Attributes:
        fields: in the order of their paths, each path once.
        by_row: EventBridge's way of choosing among the elements of arrays (see `evaluate`).
    """

    fields: tuple[Field, ...]
    guards: tuple[Guard, ...] = ()
    by_row: bool = False

    @cached_property
    def tree(self) -> Node:
        """The fields as nested as their paths."""
        root = Node()
        for item in self.fields:
            root.at(item.path).leaf = item
        for guard in self.guards:
            root.at(guard.scope).guards.append(guard)
        return root


@dataclass(slots=True)
class Node:
    """One step of the paths of a branch."""

    children: dict[str, Node] = field(default_factory=dict)
    leaf: Field | None = None
    guards: list[Guard] = field(default_factory=list)

    def at(self, path: str) -> Node:
        """The node at a dotted path, made if need be; the empty path is this node."""
        node = self
        for name in path.split(".") if path else ():
            node = node.children.setdefault(name, Node())
        return node
