"""The paths that rules mention, as a tree, and the walk of an event through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeGuard, override

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
from augury.rules.document import Literal
from augury.rules.finders import ButFinder, excludes_texts_only, kind_of
from augury.rules.postings import Entry, Finder, Hits, Posting
from augury.rules.quantifiers import MISSING, AllOf, Exists, NoneOf, Quantifier, read_leaf

type Straight = tuple[tuple[tuple[str, tuple[str, ...]], ...], IndexNode]
_TEXT_KINDS = (
    *("text", "prefix", "suffix", "fold", "wildcard", "network", "digits", "regex", "but", "scan"),
)
_NUMBER_KINDS = ("number", "range", "double_range", "digits", "but", "scan")
_CONSTANT_KINDS = ("constant", "but", "scan")
_KINDS: dict[type, tuple[str, ...]] = {
    str: _TEXT_KINDS,
    int: _NUMBER_KINDS,
    float: _NUMBER_KINDS,
    Decimal: _NUMBER_KINDS,
    Literal: _NUMBER_KINDS,
    bool: _CONSTANT_KINDS,
    type(None): _CONSTANT_KINDS,
}
_BLURRED_KINDS = frozenset({"digits"})


type Find = Callable[[Any, Hits], None]


class IndexNode:
    """One step of the paths that rules mention, and all tests at its end.

    Attributes:
        children: next steps, by name.
        is_end: some path ends here, be it one that no posting hangs on.
        keys: the same, and `_DOTTED` for names with dots that mean a path below.
        quantified: postings of quantifiers.
        finds: what to ask about a scalar, by its type; a type that is not there is no scalar.
    """

    __slots__ = (
        "_blurs", "_buts", "_finders", "_postings", "_single",
        "children", "finds", "is_end", "keys", "quantified",
    )  # fmt: skip

    def __init__(self) -> None:
        self.children: dict[str, IndexNode] = {}
        self.is_end = False
        self.keys: dict[str, IndexNode] = {}
        self._finders: dict[str, Finder] = {}
        self._postings: dict[Test, Posting] = {}
        self.quantified: dict[Quantifier, Posting] = {}
        self._single: dict[Quantifier, Posting] = {}  # those asked one by one
        self._buts = ButFinder()  # and the others
        self.finds: dict[type, tuple[Find, ...]] = dict.fromkeys(_KINDS, ())
        # what a test decides here may depend on digits that a double does not keep
        self._blurs = False

    def plant(self, names: tuple[str, ...], end: IndexNode) -> None:
        """Puts `end` at the end of a path."""
        end.is_end = True
        node, above = self, [self]
        for depth, name in enumerate(names):
            last = depth == len(names) - 1
            if name not in node.children:
                node._learn(name, end if last else IndexNode())
                dotted = [".".join(names[start : depth + 1]) for start in range(depth)]
                for other, key in zip(above, dotted, strict=False):
                    other._learn_dotted(key)
            elif last and node.children[name] is not end:
                node._replace(name, end)
            node = node.children[name]
            above.append(node)

    def _learn(self, name: str, child: IndexNode) -> None:
        self.children[name] = self.keys[name] = child

    def _replace(self, name: str, end: IndexNode) -> None:
        """Gives an end of a path the place of a mere step, with what lies below it."""
        step = self.children[name]
        end.children, end.keys = step.children, step.keys
        self._learn(name, end)

    def _learn_dotted(self, key: str) -> None:
        self.keys.setdefault(key, _DOTTED)

    def clear(self) -> None:
        """Forgets all paths below."""
        self.children, self.keys = {}, {}

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
            posting = self.quantified.setdefault(item, Posting())
            posting.maybe[entry] = None
            if is_numeric(item):
                self._start_blurring()
            if _excludes_texts(item):
                self._buts.posting(item.neither).add(entry)
                self._buts.changed()
            else:
                self._single[item] = posting
            return
        finder = self._finder(item)
        if item not in self._postings:
            self._postings[item] = finder.posting(item)
        self._postings[item].add(entry)
        finder.changed()

    def discard(self, item: Test | Quantifier, entry: Entry) -> None:
        """Takes an entry off, and forgets a test on which nothing hangs any more."""
        postings: dict[Any, Posting] = self._postings if isinstance(item, Test) else self.quantified
        if item not in postings:
            return
        if isinstance(item, Test):
            _take_off(postings, item, entry, self._finder(item), item)
        elif _excludes_texts(item):
            self._buts.posting(item.neither).discard(entry)
            _take_off(postings, item, entry, self._buts, item.neither)
        else:
            _take_off(postings, item, entry)
            if item not in postings:
                del self._single[item]

    def _finder(self, test: Test) -> Finder:
        kind, make = kind_of(test)
        if kind not in self._finders:
            self._finders[kind] = make()
            self._arrange()
        if kind in _BLURRED_KINDS or (kind == "scan" and is_numeric(test)):
            self._start_blurring()
        return self._finders[kind]

    def _start_blurring(self) -> None:
        self._blurs = True
        self._arrange()

    def _arrange(self) -> None:
        for kind, names in _KINDS.items():
            found = tuple(self._finders[name].find for name in names if name in self._finders)
            self.finds[kind] = (self.blur, *found) if kind is float and self._blurs else found

    def blur(self, value: Any, hits: Hits) -> None:
        """Notes that a rounded number decides; the first thing to ask where that can be."""
        if not hits.exact:
            hits.blurred = True

    def whole(self, value: Any, hits: Hits, event: Mapping[str, Any]) -> None:
        """Takes what hangs on quantifiers; if the event is not plain, all of it, to be verified."""
        if not hits.plain:
            for posting in self.quantified.values():
                hits.maybe += posting.maybe
        elif value.__class__ in _KINDS:
            self._buts.find(value, hits)
            if self._single:
                self._take_single(value, hits, event)
        else:
            leaf = read_leaf(value, event)
            for quantifier, posting in self.quantified.items():
                if quantifier.holds(leaf):
                    _take_each(posting, hits)

    def _take_single(self, value: Any, hits: Hits, event: Mapping[str, Any]) -> None:
        for quantifier, posting in self._single.items():
            if quantifier.holds_scalar(value, event):
                _take_each(posting, hits)


def _excludes_texts(item: Quantifier) -> TypeGuard[NoneOf]:
    return isinstance(item, NoneOf) and excludes_texts_only(item.neither)


def _take_off(
    postings: dict[Any, Posting],
    item: Any,
    entry: Entry,
    finder: Finder | None = None,
    test: Test | None = None,
) -> None:
    postings[item].discard(entry)
    if not postings[item]:
        del postings[item]
        if finder is not None:
            finder.discard(test)
    if finder is not None:
        finder.changed()


def _take_each(posting: Posting, hits: Hits) -> None:
    for entry in posting.maybe:
        if entry.sure:
            hits.rules.add(entry.rule_id)
        else:
            hits.maybe.append(entry)


class _Dotted(IndexNode):
    """Stands for every name with dots that means a path."""

    @override
    def whole(self, value: Any, hits: Hits, event: Mapping[str, Any]) -> None:
        hits.dotted = True


_DOTTED = _Dotted()
_DOTTED.quantified[Exists(wanted=True)] = Posting()  # so that it is asked


def is_numeric(item: Test | Quantifier) -> bool:
    """True if the item may tell apart two numbers that one double stands for."""
    if isinstance(item, Every | Neither | NoneOf | AllOf):
        return any(map(is_numeric, item.tests))
    if isinstance(item, Written):
        return False
    return isinstance(item, EqualsNumber | InRange | InDigits | Size | DurationTest)


# --- walking -------------------------------------------------------------------------------------


def steps_of(names: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each name of a path, with the dotted names that would lead on from the same object."""
    return tuple(
        (name, tuple(".".join(names[at:end]) for end in range(at + 2, len(names) + 1)))
        for at, name in enumerate(names)
    )


def go_straight(paths: tuple[Straight, ...], event: dict[str, Any], hits: Hits) -> bool:
    """As `walk`, for a few paths; False if on one of them is something that only `walk` knows."""
    for steps, node in paths:
        value = _reach(steps, event)
        finds = node.finds.get(value.__class__)
        if finds is not None:
            for find in finds:
                find(value, hits)
        elif value is MISSING:
            continue
        elif value.__class__ is not dict:
            return False
        if node.quantified:
            node.whole(value, hits, event)
    return True


def _reach(steps: tuple[tuple[str, tuple[str, ...]], ...], event: dict[str, Any]) -> Any:
    """What lies at the end of a path; a list if something on the path is not as it mostly is."""
    value: Any = event
    for name, dotted in steps:
        if value.__class__ is not dict:
            return MISSING if value.__class__ in _KINDS else []
        for other in dotted:
            if other in value:
                return []
        value = value.get(name, MISSING)
        if value is MISSING:
            return MISSING
    return value


def walk(node: IndexNode, found: dict[str, Any], hits: Hits, event: dict[str, Any]) -> None:
    """Takes all postings that an object's members meet, and those of their members."""
    keys = node.keys
    if len(found) > len(keys):
        found = {key: found[key] for key in keys if key in found}
    for key, value in found.items():
        child = keys.get(key)
        if child is None:
            continue
        kind = value.__class__
        finds = child.finds.get(kind)
        if finds is not None:
            for find in finds:
                find(value, hits)
        elif kind is dict:
            if child.children:
                walk(child, value, hits, event)
        elif kind is list:
            _walk_list(child, value, hits, event)
        else:
            _visit_rare(child, value, hits)
        if child.quantified:
            child.whole(value, hits, event)


def _walk_list(child: IndexNode, values: list[Any], hits: Hits, event: dict[str, Any]) -> None:
    leads_on = bool(child.children)
    for value in values:
        kind = value.__class__
        if kind is dict:
            hits.plain = False
            if leads_on:
                walk(child, value, hits, event)
            continue
        finds = child.finds.get(kind)
        if finds is not None:
            for find in finds:
                find(value, hits)
        elif kind is list:
            hits.plain = False
            _walk_list(child, value, hits, event)
        else:
            _visit_rare(child, value, hits)


def _visit_rare(child: IndexNode, value: Any, hits: Hits) -> None:
    """A subclass of what JSON decodes to, or nothing that JSON could hold."""
    for kind in (str, bool, int, float, Decimal):
        if isinstance(value, kind):
            for find in child.finds[kind]:
                find(value, hits)
            return
    hits.foreign = True
