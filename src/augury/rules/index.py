"""Many patterns, one walk over the event.

The paths that rules mention form a tree. Each branch of a rule hangs on one of its fields only, the
one that the fewest others hang on; so what an event costs follows from what it holds and meets, not
from the number of rules. What is found there is either sure (nothing else was asked) or has to be
verified: cheaply if the event is plain, else by `evaluate.py`, which knows about arrays of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from augury.rules import evaluate
from augury.rules.branches import Branch, Condition, Field
from augury.rules.conditions import Duration as DurationTest
from augury.rules.conditions import (
    EqualsNumber,
    Every,
    InDigits,
    InRange,
    Neither,
    Size,
    Test,
    Written,
)
from augury.rules.document import plain_document
from augury.rules.finders import Finder, kind_of
from augury.rules.postings import Entry, Hits, Posting
from augury.rules.quantifiers import (
    MISSING,
    Age,
    AllOf,
    Exists,
    NoneOf,
    Quantifier,
    flat,
    read_leaf,
)

_TEXT_KINDS = ("text", "prefix", "suffix", "fold", "wildcard", "network", "digits", "scan")
_NUMBER_KINDS = ("number", "range", "double_range", "digits", "scan")
_CONSTANT_KINDS = ("constant", "scan")
_BLURRED_KINDS = frozenset({"double_range", "digits"})


class PathIndex:
    """All tests at one path."""

    def __init__(self) -> None:
        self._finders: dict[str, Finder] = {}
        self._postings: dict[Test, Posting] = {}
        self.quantified: dict[Quantifier, Posting] = {}
        self.text_finders: tuple[Finder, ...] = ()
        self.number_finders: tuple[Finder, ...] = ()
        self.constant_finders: tuple[Finder, ...] = ()
        # what a test decides here may depend on digits that a double does not keep
        self.blurs = False

    def __bool__(self) -> bool:
        return bool(self._postings or self.quantified)

    def load(self, test: Test | Quantifier) -> int:
        """How many entries hang on a test."""
        postings: Mapping[Any, Posting] = (
            self._postings if isinstance(test, Test) else self.quantified
        )
        return len(postings.get(test, ()))

    def add(self, item: Test | Quantifier, entry: Entry) -> None:
        """Hangs an entry on a test."""
        if isinstance(item, Quantifier):
            # also what is sure: it is so in plain events only
            self.quantified.setdefault(item, Posting()).maybe[entry] = None
            self.blurs = self.blurs or is_numeric(item)
            return
        posting = self._postings.get(item)
        if posting is None:
            posting = self._postings[item] = self._finder(item).posting(item)
        posting.add(entry)

    def discard(self, item: Test | Quantifier, entry: Entry) -> None:
        """Takes an entry off, and forgets a test on which nothing hangs any more."""
        postings: dict[Any, Posting] = self._postings if isinstance(item, Test) else self.quantified
        posting = postings.get(item)
        if posting is None:
            return
        posting.discard(entry)
        if not posting:
            del postings[item]
            if isinstance(item, Test):
                self._finder(item).discard(item)

    def _finder(self, test: Test) -> Finder:
        kind, make = kind_of(test)
        if kind not in self._finders:
            self._finders[kind] = make()
            self.text_finders = self._of(_TEXT_KINDS)
            self.number_finders = self._of(_NUMBER_KINDS)
            self.constant_finders = self._of(_CONSTANT_KINDS)
        blurring = kind in _BLURRED_KINDS or (kind == "scan" and is_numeric(test))
        self.blurs = self.blurs or blurring
        return self._finders[kind]

    def _of(self, kinds: Iterable[str]) -> tuple[Finder, ...]:
        return tuple(self._finders[kind] for kind in kinds if kind in self._finders)

    def scalar(self, value: Any, hits: Hits) -> None:
        """Takes what hangs on the tests that a scalar meets."""
        if value.__class__ is str:
            for finder in self.text_finders:
                finder.find(value, hits)
        elif value is None or value.__class__ is bool:
            for finder in self.constant_finders:
                finder.find(value, hits)
        else:
            if self.blurs and not hits.exact and value.__class__ is float:
                hits.blurred = True
            for finder in self.number_finders:
                finder.find(value, hits)

    def whole(self, value: Any, hits: Hits, event: Mapping[str, Any]) -> None:
        """Takes what hangs on quantifiers; if the event is not plain, all of it, to be verified."""
        leaf = read_leaf(value, event)
        for quantifier, posting in self.quantified.items():
            if not hits.plain:
                hits.maybe += posting.maybe
            elif quantifier.holds(leaf):
                for entry in posting.maybe:
                    if entry.sure:
                        hits.rules.add(entry.rule_id)
                    else:
                        hits.maybe.append(entry)


def is_numeric(item: Test | Quantifier) -> bool:
    """True if the item may tell apart two numbers that one double stands for."""
    if isinstance(item, Every | Neither | NoneOf | AllOf):
        return any(map(is_numeric, item.tests))
    if isinstance(item, Written):
        return False
    return isinstance(item, EqualsNumber | InRange | InDigits | Size | DurationTest)


class IndexNode:
    """One step of the paths that rules mention.

    Attributes:
        children: next steps, by name.
        keys: the same, and None for names with dots that mean a path below.
        index: tests at this very path.
    """

    __slots__ = ("children", "entries", "index", "keys")

    def __init__(self) -> None:
        self.children: dict[str, IndexNode] = {}
        self.keys: dict[str, IndexNode | None] = {}
        self.entries: tuple[tuple[str, IndexNode | None], ...] = ()
        self.index = PathIndex()

    def add(self, names: tuple[str, ...]) -> IndexNode:
        """The node at the end of a path, made if need be."""
        node, above = self, [self]
        for depth, name in enumerate(names):
            if name not in node.children:
                node.children[name] = IndexNode()
                node._learn(name, node.children[name])
                for distance, other in enumerate(above[:-1]):
                    other._learn(".".join(names[distance : depth + 1]), None)
            node = node.children[name]
            above.append(node)
        return node

    def _learn(self, key: str, child: IndexNode | None) -> None:
        self.keys.setdefault(key, child)
        self.entries = tuple(self.keys.items())


class Index:
    """Rules, indexed. Not safe for changing in one thread while another matches."""

    def __init__(self) -> None:
        self._rules: dict[str, list[tuple[Entry, Field | None]]] = {}
        self._always: dict[Entry, None] = {}
        self._mentions: Counter[str] = Counter()
        self._by_path: dict[str, PathIndex] = {}
        self.root = IndexNode()
        self.version = 0  # moves when the set of mentioned paths does

    def __len__(self) -> int:
        return len(self._rules)

    def __contains__(self, rule_id: str) -> bool:
        return rule_id in self._rules

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

    def _cost(self, item: Field) -> tuple[int, int]:
        """What it costs to hang one more entry on a field; less is better."""
        if item.quantifiers:
            return 2 if Exists(wanted=False) in item.quantifiers else 1, 0
        index = self._by_path.get(item.path)
        return 0, max(map(index.load, item.tests)) if index is not None and item.tests else 0

    def _mention(self, path: str) -> None:
        self._mentions[path] += 1
        if path not in self._by_path:
            self._by_path[path] = self.root.add(tuple(path.split("."))).index
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
        for path, index in self._by_path.items():
            self.root.add(tuple(path.split("."))).index = index

    # --- matching ---------------------------------------------------------------------------------

    def match(self, event: dict[str, Any], *, exact: bool = True) -> set[str] | None:
        """Ids of the rules that match.

        Args:
            event: decoded.
            exact: numbers are as the event wrote them; if not, they were rounded to doubles.

        Returns:
            None if the answer depends on a number that was rounded.
        """
        hits = Hits(exact=exact)
        walk(self.root, event, hits, event)
        if hits.foreign:
            return self.match(plain_document(event), exact=exact)
        if hits.dotted:
            hits = Hits(exact=exact)
            hits.plain = False
            walk(self.root, _all_taken_apart(self.root, event), hits, event)
        for entry in self._always:
            hits.maybe.append(entry)
        if hits.maybe:
            self._verify(event, hits)
        return None if hits.blurred else hits.rules

    def _verify(self, event: dict[str, Any], hits: Hits) -> None:
        rules = hits.rules
        for entry in hits.maybe:
            if entry.rule_id in rules:
                continue
            if entry.numeric and not hits.exact:
                hits.blurred = True
                return
            if hits.plain and not entry.branch.guards:
                met = _meets_plainly(entry, event)
            else:
                met = evaluate.meets_branch(entry.branch, event)
            if met:
                rules.add(entry.rule_id)


def walk(node: IndexNode, found: dict[str, Any], hits: Hits, event: dict[str, Any]) -> None:
    """Takes all postings that an object's members meet, and those of their members."""
    keys = node.keys
    if len(found) <= len(keys):
        for key, value in found.items():
            if key in keys:
                _visit(keys[key], value, hits, event)
    else:
        for key, child in node.entries:
            value = found.get(key, MISSING)
            if value is not MISSING:
                _visit(child, value, hits, event)


def _visit(child: IndexNode | None, value: Any, hits: Hits, event: dict[str, Any]) -> None:
    if child is None:
        hits.dotted = True
        return
    index = child.index
    kind = value.__class__
    if kind is str:
        for finder in index.text_finders:
            finder.find(value, hits)
    elif kind is dict:
        if child.children:
            walk(child, value, hits, event)
    elif kind is list:
        _visit_list(child, value, hits, event)
    elif value is None or isinstance(value, bool | int | float | Decimal):
        index.scalar(value, hits)
    else:
        hits.foreign = True
    if index.quantified:
        index.whole(value, hits, event)


def _visit_list(child: IndexNode, values: list[Any], hits: Hits, event: dict[str, Any]) -> None:
    index = child.index
    for value in values:
        kind = value.__class__
        if kind is dict:
            hits.plain = False
            walk(child, value, hits, event)
        elif kind is list:
            hits.plain = False
            _visit_list(child, value, hits, event)
        elif value is None or isinstance(value, str | bool | int | float | Decimal):
            index.scalar(value, hits)
        else:
            hits.foreign = True


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


def _meets_plainly(entry: Entry, event: dict[str, Any]) -> bool:
    """As `evaluate.meets_branch`, for an event in which every path leads to at most one value."""
    by_row = entry.branch.by_row
    for item, names in zip(entry.branch.fields, entry.names, strict=True):
        value: Any = event
        for name in names:
            value = value.get(name, MISSING) if value.__class__ is dict else MISSING
        if not (_rows_meet(item, value) if by_row else evaluate.field_meets(item, value, event)):
            return False
    return True


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
    odd = any(not name for each in names for name in each)
    alone = access is not None and len(branch.fields) == 1 and not branch.guards and not odd
    sure = alone and not (branch.by_row and branch.fields[0].quantifiers)
    return Entry(rule_id, branch, names, sure, numeric=not sure and _looks_at_numbers(branch))


def _looks_at_numbers(branch: Branch) -> bool:
    return any(is_numeric(item) for each in branch.fields for item in each.items) or any(
        _looks_at_numbers(other) for guard in branch.guards for other in guard.condition
    )
