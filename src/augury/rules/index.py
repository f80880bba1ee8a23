"""Many patterns, one walk over the event.

The paths that rules mention form a tree. Each branch of a rule hangs on one of its fields only, the
one that the fewest others hang on; so what an event costs follows from what it holds and meets, not
from the number of rules. What is found there is either sure (nothing else was asked) or has to be
verified: cheaply if the event is plain, else by `evaluate.py`, which knows about arrays of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from augury.rules import evaluate
from augury.rules.branches import Branch, Condition, Field
from augury.rules.conditions import (
    Affix,
    EqualsNumber,
    EqualsText,
    FoldedText,
    InRange,
    Test,
    Wildcard,
)
from augury.rules.document import plain_document
from augury.rules.nodes import IndexNode, Straight, go_straight, is_numeric, steps_of, walk
from augury.rules.postings import Entry, Hits
from augury.rules.quantifiers import (
    MISSING,
    Age,
    Exists,
    flat,
)

_FEW_PATHS = 6


class Index:
    """Rules, indexed. Not safe for changing in one thread while another matches."""

    def __init__(self) -> None:
        self._rules: dict[str, list[tuple[Entry, Field | None]]] = {}
        self._always: dict[Entry, None] = {}
        self._mentions: Counter[str] = Counter()
        self._by_path: dict[str, IndexNode] = {}
        self.root = IndexNode()
        self.version = 0  # moves when the set of mentioned paths does
        self._straight: tuple[Straight, ...] | None = None
        self._straight_of = 0

    def __len__(self) -> int:
        return len(self._rules)

    # --- changing ---------------------------------------------------------------------------------

    def add(self, rule_id: str, condition: Condition) -> None:
        """Adds a rule, replacing what the id stood for."""
        self.remove(rule_id)
        self._rules[rule_id] = [self._hang(rule_id, branch) for branch in condition]

    def remove(self, rule_id: str) -> None:
        """Removes a rule; one that is not there is fine."""
        for entry, access in self._rules.pop(rule_id, ()):
            self._always.pop(entry, None)
            if access is not None:
                for item in access.items:
                    self._by_path[access.path].discard(item, entry)
            self._forget(mentioned(entry.branch))

    def _hang(self, rule_id: str, branch: Branch) -> tuple[Entry, Field | None]:
        access = min(branch.fields, key=self._cost, default=None)
        if access is not None and Exists(wanted=False) in access.quantifiers:
            access = None
        entry = _entry(rule_id, branch, access)
        for path in mentioned(branch):
            self._mention(path)
        if access is None:
            self._always[entry] = None
        else:
            for item in access.items:
                self._by_path[access.path].add(item, entry)
        return entry, access

    def _cost(self, item: Field) -> tuple[int, int, int]:
        """What it costs to hang one more entry on a field; less is better.

        What few entries hang on is met seldom, as far as one can tell; then what is long is.
        """
        if item.quantifiers or not item.tests:
            return 2 if Exists(wanted=False) in item.quantifiers else 1, 0, 0
        node = self._by_path.get(item.path)
        load = max(map(node.load, item.tests)) if node is not None else 0
        return 0, load, -min(map(_specificity, item.tests))

    def _mention(self, path: str) -> None:
        self._mentions[path] += 1
        if path not in self._by_path:
            node = self._by_path[path] = IndexNode()
            self.root.plant(tuple(path.split(".")), node)
            self.version += 1

    def _forget(self, paths: Iterable[str]) -> None:
        gone = False
        for path in paths:
            self._mentions[path] -= 1
            if not self._mentions[path]:
                del self._mentions[path], self._by_path[path]
                gone = True
        if gone:
            self._replant()

    def _replant(self) -> None:
        """Makes the tree anew, of the paths that are still mentioned."""
        self.version += 1
        self.root = IndexNode()
        for node in self._by_path.values():
            node.clear()
        for path, node in self._by_path.items():
            self.root.plant(tuple(path.split(".")), node)

    # --- matching ---------------------------------------------------------------------------------

    def match(self, event: dict[str, Any], *, exact: bool = True) -> set[str] | None:
        """Ids of the rules that match.

        Args:
            event: decoded.
            exact: numbers are as the event wrote them; if not, they were rounded to doubles.

        Returns:
            None if the answer depends on a number that was rounded.
        """
        hits = Hits(exact)
        if self._straight_of != self.version:
            self._straighten()
        if self._straight is None or not go_straight(self._straight, event, hits):
            walk(self.root, event, hits, event)
        if hits.foreign:
            event, hits = plain_document(event), Hits(exact)
            walk(self.root, event, hits, event)
        if hits.dotted:
            hits = Hits(exact)
            hits.plain = False
            walk(self.root, _all_taken_apart(self.root, event), hits, event)
        if self._always:
            hits.maybe += self._always
        if hits.maybe:
            self._verify(event, hits)
        return None if hits.blurred else hits.rules

    def _straighten(self) -> None:
        """Notes each path by itself, if there are so few that the tree only costs time."""
        self._straight_of, self._straight = self.version, None
        if len(self._by_path) <= _FEW_PATHS:
            paths = self._by_path.items()
            self._straight = tuple((steps_of(path.split(".")), node) for path, node in paths)

    def _verify(self, event: dict[str, Any], hits: Hits) -> None:
        for entry in hits.maybe:
            if entry.rule_id in hits.rules:
                continue
            if hits.plain and entry.simple:
                met = _meets_plainly(entry, event, hits)
            elif entry.numeric and not hits.exact:
                hits.blurred = True
                return
            else:
                met = evaluate.meets_branch(entry.branch, event)
            if met:
                hits.rules.add(entry.rule_id)


def _all_taken_apart(node: IndexNode, value: Any) -> Any:
    if isinstance(value, list):
        return [_all_taken_apart(node, item) for item in value]
    if not isinstance(value, dict):
        return value
    whole = evaluate.taken_apart(node, value)
    return {
        key: _all_taken_apart(node.children[key], item) if key in node.children else item
        for key, item in whole.items()
    }


def _meets_plainly(entry: Entry, event: dict[str, Any], hits: Hits) -> bool:
    """As `evaluate.meets_branch`, for an event in which every path leads to at most one value."""
    blurred = False
    for item, names in zip(entry.branch.fields, entry.names, strict=True):
        value: Any = event
        for name in names:
            value = value.get(name, MISSING) if value.__class__ is dict else MISSING
        if entry.numeric and not hits.exact and _may_blur(item, value):
            blurred = True
        elif entry.branch.by_row:
            if not _rows_meet(item, value):
                return False
        elif not evaluate.field_meets(item, value, event):
            return False
    hits.blurred = hits.blurred or blurred
    return not blurred


def _may_blur(item: Field, value: Any) -> bool:
    """True if the field may be decided by a number that was rounded."""
    rounded = value.__class__ is float or (
        value.__class__ is list and any(each.__class__ is float for each in value)
    )
    return rounded and any(map(is_numeric, item.items))


def _rows_meet(item: Field, value: Any) -> bool:
    if value is MISSING or value.__class__ is dict:
        return Exists(wanted=False) in item.quantifiers
    scalars = [scalar for scalar in flat(value) if scalar.__class__ is not dict]
    if not scalars:
        return Exists(wanted=False) in item.quantifiers
    return any(evaluate.row_meets(item, scalar) for scalar in scalars)


def mentioned(branch: Branch, scope: str = "") -> Iterator[str]:
    """Every path that the branch and its guards look at; may repeat."""
    prefix = f"{scope}." if scope else ""
    for item in branch.fields:
        yield f"{prefix}{item.path}"
        if any(isinstance(quantifier, Age) for quantifier in item.quantifiers):
            yield "time"
    for guard in branch.guards:
        below = f"{prefix}{guard.scope}".rstrip(".")
        if below:
            yield below
        for other in guard.condition:
            yield from mentioned(other, below)


def _entry(rule_id: str, branch: Branch, access: Field | None) -> Entry:
    names = tuple(tuple(item.path.split(".")) for item in branch.fields)
    # names that are empty are found by row only, where Java's ways of cutting paths are kept
    simple = not branch.guards and all(name for each in names for name in each)
    alone = access is not None and len(branch.fields) == 1 and simple
    sure = alone and not (branch.by_row and branch.fields[0].quantifiers)
    numeric = not sure and _looks_at_numbers(branch)
    return Entry(rule_id, branch, names, sure=sure, simple=simple, numeric=numeric)


def _specificity(test: Test) -> int:
    """How many characters a value must have in common with the test."""
    if isinstance(test, EqualsText | Affix):
        return len(test.text)
    if isinstance(test, FoldedText):
        return len(test.folded.plain or test.folded.expression)
    if isinstance(test, EqualsNumber):
        return len(str(test.number))
    if isinstance(test, InRange) and test.bounds.low == test.bounds.high:
        return len(str(test.bounds.low))
    return sum(map(len, test.parts)) if isinstance(test, Wildcard) else 0


def _looks_at_numbers(branch: Branch) -> bool:
    return any(is_numeric(item) for each in branch.fields for item in each.items) or any(
        _looks_at_numbers(other) for guard in branch.guards for other in guard.condition
    )
