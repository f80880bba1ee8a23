"""Conjunctions while a pattern is being read: `$or` multiplies them, a field goes into all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augury.rules.branches import Branch, Condition, Field, Guard
from augury.rules.conditions import Test
from augury.rules.document import is_list, is_object
from augury.rules.limits import MAX_BRANCHES, MAX_FIELDS, Findings, member
from augury.rules.quantifiers import Quantifier

type Leaf = tuple[tuple[Test, ...], tuple[Quantifier, ...]]


@dataclass(frozen=True, slots=True)
class Where:
    """Where one is in a pattern.

    Attributes:
        path: JSON path in the pattern.
        scope: dotted path of the object in the event that is spoken of; empty for the event.
        depth: objects and lists around this place.
    """

    path: str = "$"
    scope: str = ""
    depth: int = 1

    def member(self, name: str, *, names: str | None = None) -> Where:
        """At a member of the object here, which speaks of the field `names` (None: the same)."""
        field = self.scope if names is None else f"{self.scope}.{names}" if self.scope else names
        return Where(member(self.path, name), field, self.depth + 1)

    def at(self, path: str) -> Where:
        """At another place of the pattern that speaks of the same object."""
        return Where(path, self.scope, self.depth + 1)


class Drafts:
    """The branches that a pattern has so far."""

    def __init__(
        self,
        fields: Sequence[Mapping[str, Leaf]] = ({},),
        guards: Sequence[tuple[Guard, ...]] = ((),),
    ) -> None:
        self.fields = fields
        self.guards = guards

    def with_field(self, path: str, leaf: Leaf) -> Drafts:
        """A field in every branch; it replaces what a branch says about that path."""
        return Drafts([{**fields, path: leaf} for fields in self.fields], self.guards)

    def with_guard(self, guard: Guard) -> Drafts:
        """A guard in every branch."""
        return Drafts(self.fields, [(*guards, guard) for guards in self.guards])

    def has(self, path: str) -> bool:
        """True if some branch says something about that path already."""
        return any(path in fields for fields in self.fields)

    def either(
        self, findings: Findings, path: str, ways: Sequence[Callable[[Drafts], Drafts]]
    ) -> Drafts:
        """Every branch goes on in each of the ways."""
        made: list[Mapping[str, Leaf]] = []
        guards: list[tuple[Guard, ...]] = []
        for way in ways:
            found = way(self)
            made += found.fields
            guards += found.guards
            if len(made) > MAX_BRANCHES:
                findings.add(path, f"`$or` to multiply to at most {MAX_BRANCHES} ways", len(made))
                return self
        return Drafts(made, guards)

    def finish(self, findings: Findings, *, by_row: bool = False) -> Condition:
        """The condition; its fields in the order in which Java sorts their paths."""
        if any(len(fields) > MAX_FIELDS for fields in self.fields):
            findings.add("$", f"at most {MAX_FIELDS} fields", max(map(len, self.fields)))
        branches = []
        for fields, guards in zip(self.fields, self.guards, strict=True):
            ordered = sorted(
                fields.items(), key=lambda entry: entry[0].encode("utf-16-be", "replace")
            )
            made = tuple(Field(path, tests, quantifiers) for path, (tests, quantifiers) in ordered)
            branches.append(Branch(made, guards, by_row=by_row))
        return tuple(branches)


def objects(findings: Findings, value: Any, path: str, *, least: int) -> list[tuple[Any, str]]:
    """The objects of a list that must hold nothing else, each with its JSON path."""
    plural = "object" if least == 1 else "objects"
    if not is_list(value) or len(value) < least:
        findings.add(path, f"a list of at least {least} {plural}", value)
        return []
    found = []
    for index, item in enumerate(value):
        if is_object(item):
            found.append((item, f"{path}[{index}]"))
        else:
            findings.add(f"{path}[{index}]", "an object", item)
    return found


def text_names(
    findings: Findings, pairs: Sequence[tuple[Any, Any]], path: str
) -> list[tuple[str, Any]]:
    """Members whose names are text, as they are in all JSON."""
    for name, _ in pairs:
        if not isinstance(name, str):
            findings.add(member(path, name), "a name that is a text", name)
    return [(name, value) for name, value in pairs if isinstance(name, str)]
