"""Finding the tests that a value meets, without asking each of them.

A posting is what hangs on a test: the rules that match if it is met, and the entries that then have
to be looked at. A finder holds the tests of one kind at one path, and takes the postings of those
that a value meets. Texts and numbers are looked up; prefixes and suffixes are found by bisection,
for of all the prefixes of a value the longest is the last one before it in sorted order, or a
prefix of that; ranges cut the numbers into slots. What has no better way is asked one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, override

from augury.rules import quantities
from augury.rules.addresses import address_or_none, packed_or_none
from augury.rules.conditions import (
    Affix,
    EqualsConstant,
    EqualsNumber,
    EqualsText,
    FoldedText,
    InDigits,
    InNetwork,
    InRange,
    Neither,
    Regex,
    Test,
    Wildcard,
)
from augury.rules.postings import Finder, Hits, Posting, SortedTexts
from augury.rules.ranges import RangeFinder, is_plain
from augury.rules.regexes import Searches, whole
from augury.rules.texts import wildcard_matches

_FEW_RULES = 256  # of which what is left may be kept for each text that excludes some
_MANY_WILDCARDS = 16  # with one text in common, from which on RE2 is faster than asking each


class _Keyed(Finder):
    """Tests that are met by exactly one value."""

    def __init__(self, key: Callable[[Any], Any]) -> None:
        self._key = key
        self._postings: dict[Any, Posting] = {}

    @override
    def posting(self, test: Any) -> Posting:
        return self._postings.setdefault(self._key(test), Posting())

    @override
    def discard(self, test: Any) -> None:
        self._postings.pop(self._key(test), None)


class TextFinder(_Keyed):
    """Equal texts."""

    def __init__(self) -> None:
        super().__init__(lambda test: test.text)

    @override
    def find(self, value: str, hits: Hits) -> None:
        posting = self._postings.get(value)
        if posting is not None:
            hits.take(posting)


class ConstantFinder(_Keyed):
    """true, false and null."""

    def __init__(self) -> None:
        super().__init__(lambda test: repr(test.constant))

    @override
    def find(self, value: bool | None, hits: Hits) -> None:
        posting = self._postings.get(repr(value))
        if posting is not None:
            hits.take(posting)


class NumberFinder(_Keyed):
    """Equal numbers."""

    def __init__(self) -> None:
        super().__init__(lambda test: test.number)
        self._near: set[float] = set()  # doubles next to a number that no double is

    @override
    def posting(self, test: EqualsNumber) -> Posting:
        if isinstance(test.number, Decimal):
            self._near.add(float(test.number))
        return super().posting(test)

    @override
    def find(self, value: Any, hits: Hits) -> None:
        posting = self._postings.get(value if is_plain(value) else quantities.canonical(value))
        if posting is not None:
            hits.take(posting)
            hits.blurred = hits.blurred or (value.__class__ is float and not hits.exact)
        elif value in self._near and value.__class__ is float and not hits.exact:
            hits.blurred = True


class AffixFinder(Finder):
    """Prefixes, or suffixes (kept backwards)."""

    def __init__(self, *, at_end: bool) -> None:
        self._at_end = at_end
        self._sorted = SortedTexts()

    def _key(self, test: Affix) -> str:
        return test.text[::-1] if self._at_end else test.text

    @override
    def posting(self, test: Affix) -> Posting:
        found: Posting = self._sorted.get_or_add(self._key(test), Posting)
        return found

    @override
    def discard(self, test: Affix) -> None:
        self._sorted.discard(self._key(test))

    @override
    def find(self, value: str, hits: Hits) -> None:
        for posting in self._sorted.beginnings(value[::-1] if self._at_end else value):
            hits.take(posting)


class ScanFinder(Finder):
    """Tests that are asked one by one."""

    def __init__(self) -> None:
        self._postings: dict[Test, Posting] = {}

    @override
    def posting(self, test: Test) -> Posting:
        return self._postings.setdefault(test, Posting())

    @override
    def discard(self, test: Test) -> None:
        self._postings.pop(test, None)

    @override
    def find(self, value: Any, hits: Hits) -> None:
        for test, posting in self._postings.items():
            if test.check(value):
                hits.take(posting)


class FoldFinder(ScanFinder):
    """Texts without case: those in ASCII are looked up, if the value is ASCII as well."""

    def __init__(self) -> None:
        super().__init__()
        self._equal: dict[str, Posting] = {}
        self._prefixes = SortedTexts()
        self._suffixes = SortedTexts()
        # may be met by ASCII nevertheless: the Kelvin sign in lower case is a k
        self._beyond_ascii: dict[Any, Posting] = {}

    @override
    def posting(self, test: Any) -> Posting:
        posting = super().posting(test)
        plain = test.folded.plain
        if plain is None:
            self._beyond_ascii[test] = posting
        elif test.kind == "equal":
            self._equal[plain] = posting
        else:
            place = self._prefixes if test.kind == "prefix" else self._suffixes
            place.get_or_add(plain if test.kind == "prefix" else plain[::-1], lambda: posting)
        return posting

    @override
    def discard(self, test: Any) -> None:
        super().discard(test)
        self._beyond_ascii.pop(test, None)
        plain = test.folded.plain
        if plain is not None and test.kind == "equal":
            self._equal.pop(plain, None)
        elif plain is not None:
            place = self._prefixes if test.kind == "prefix" else self._suffixes
            place.discard(plain if test.kind == "prefix" else plain[::-1])

    @override
    def find(self, value: str, hits: Hits) -> None:
        if not value.isascii():
            super().find(value, hits)
            return
        lower = value.lower()
        posting = self._equal.get(lower)
        if posting is not None:
            hits.take(posting)
        if self._prefixes.postings:
            for posting in self._prefixes.beginnings(lower):
                hits.take(posting)
        if self._suffixes.postings:
            for posting in self._suffixes.beginnings(lower[::-1]):
                hits.take(posting)
        for test, posting in self._beyond_ascii.items():
            if test.check(value):
                hits.take(posting)


class _Wildcards:
    """Wildcards that have one text in common; searched for together if there are many."""

    def __init__(self) -> None:
        self.postings: dict[Wildcard, Posting] = {}
        self.searches: Searches[Wildcard] | None = None

    def find(self, value: str, hits: Hits) -> None:
        tests: Iterable[Wildcard] = self.postings
        if len(self.postings) > _MANY_WILDCARDS:
            if self.searches is None:
                self.searches = Searches({whole(test.parts): test for test in tests})
            tests = self.searches.found(value)
        for test in tests:
            if wildcard_matches(test.parts, value):
                hits.take(self.postings[test])


class WildcardFinder(Finder):
    """Wildcards, by the text before the first star, or else by the one after the last."""

    def __init__(self) -> None:
        self._by_start = SortedTexts()
        self._by_end = SortedTexts()

    def _place(self, test: Wildcard) -> tuple[SortedTexts, str]:
        if test.parts[0] or not test.parts[-1]:
            return self._by_start, test.parts[0]
        return self._by_end, test.parts[-1][::-1]

    @override
    def posting(self, test: Wildcard) -> Posting:
        place, key = self._place(test)
        group: _Wildcards = place.get_or_add(key, _Wildcards)
        group.searches = None
        return group.postings.setdefault(test, Posting())

    @override
    def discard(self, test: Wildcard) -> None:
        place, key = self._place(test)
        group: _Wildcards = place.postings[key]
        del group.postings[test]
        group.searches = None
        if not group.postings:
            place.discard(key)

    @override
    def find(self, value: str, hits: Hits) -> None:
        for group in self._by_start.beginnings(value):
            group.find(value, hits)
        if self._by_end.postings:
            for group in self._by_end.beginnings(value[::-1]):
                group.find(value, hits)


class NetworkFinder(Finder):
    """Networks, by family and number of fixed bits."""

    def __init__(self) -> None:
        self._by_size: dict[tuple[int, int], dict[int, Posting]] = {}

    def _place(self, test: InNetwork) -> tuple[tuple[int, int], int]:
        network = test.network
        free = network.max_prefixlen - network.prefixlen
        return (network.version, free), int(network.network_address) >> free

    @override
    def posting(self, test: InNetwork) -> Posting:
        size, key = self._place(test)
        return self._by_size.setdefault(size, {}).setdefault(key, Posting())

    @override
    def discard(self, test: InNetwork) -> None:
        size, key = self._place(test)
        group = self._by_size.get(size, {})
        group.pop(key, None)
        if not group:
            self._by_size.pop(size, None)

    @override
    def find(self, value: str, hits: Hits) -> None:
        address = address_or_none(value)
        if address is None:
            return
        number = int(address)
        for (version, free), group in self._by_size.items():
            if version == address.version and number >> free in group:
                hits.take(group[number >> free])


class DigitsFinder(ScanFinder):
    """EventBridge's networks: the value is read once for all of them."""

    @override
    def find(self, value: Any, hits: Hits) -> None:
        if not isinstance(value, str):
            super().find(value, hits)
            return
        packed = packed_or_none(value)
        if packed is not None:
            digits = packed.hex().upper()
            for test, posting in self._postings.items():
                if test.digits.holds(digits):  # type: ignore[attr-defined]
                    hits.take(posting)


class ButFinder(ScanFinder):
    """Texts that must not be: nearly all of these tests are met by nearly every value."""

    def __init__(self) -> None:
        super().__init__()
        self._by_text: dict[str, dict[Test, None]] = {}  # the tests that exclude it
        self._all: Posting | None = None
        self._without: dict[str, Posting] = {}  # what is left of `_all` for a text
        self._num_postings: Counter[str] = Counter()  # by rule

    @override
    def posting(self, test: Test) -> Posting:
        for text in _excluded(test):
            self._by_text.setdefault(text, {})[test] = None
        return super().posting(test)

    @override
    def discard(self, test: Test) -> None:
        for text in _excluded(test):
            tests = self._by_text.get(text, {})
            tests.pop(test, None)
            if not tests:
                self._by_text.pop(text, None)
        super().discard(test)

    @override
    def changed(self) -> None:
        self._all = None
        self._without.clear()

    @override
    def find(self, value: Any, hits: Hits) -> None:
        everything = self._all
        if everything is None:
            everything = self._gather()
        if value.__class__ is str and value in self._by_text:
            left = self._without.get(value)
            hits.take(self._leave_out(value, everything) if left is None else left)
        else:
            hits.take(everything)

    def _gather(self) -> Posting:
        postings = self._postings.values()
        self._num_postings = Counter(rule_id for each in postings for rule_id in each.sure)
        entries = {entry: None for each in postings for entry in each.maybe}
        self._all = Posting(set(self._num_postings), entries)
        return self._all

    def _leave_out(self, text: str, everything: Posting) -> Posting:
        excluding = [self._postings[test] for test in self._by_text[text]]
        out = Counter(rule_id for posting in excluding for rule_id in posting.sure)
        # a rule is out if each of its postings is; entries are verified anyway
        gone = {rule_id for rule_id, count in out.items() if count == self._num_postings[rule_id]}
        left = Posting(everything.sure - gone, everything.maybe)
        if len(everything) <= _FEW_RULES:
            self._without[text] = left
        return left


def _excluded(test: Test) -> Sequence[str]:
    assert isinstance(test, Neither)
    return [each.text for each in test.tests if isinstance(each, EqualsText)]


def excludes_texts_only(test: Test) -> bool:
    """True for what a `ButFinder` can take."""
    return isinstance(test, Neither) and all(isinstance(t, EqualsText) for t in test.tests)


class RegexFinder(ScanFinder):
    """Expressions, searched for together."""

    def __init__(self) -> None:
        super().__init__()
        self._searches: Searches[Posting] | None = None

    @override
    def posting(self, test: Test) -> Posting:
        self._searches = None
        return super().posting(test)

    @override
    def discard(self, test: Test) -> None:
        self._searches = None
        super().discard(test)

    @override
    def find(self, value: str, hits: Hits) -> None:
        if self._searches is None:
            pairs = self._postings.items()
            self._searches = Searches({t.expression: p for t, p in pairs if isinstance(t, Regex)})
        for posting in self._searches.found(value):
            hits.take(posting)


def kind_of(test: Test) -> tuple[str, Callable[[], Finder]]:
    """The kind of finder that a test belongs into, by name, and how to make one."""
    if isinstance(test, EqualsText):
        return "text", TextFinder
    if isinstance(test, EqualsConstant):
        return "constant", ConstantFinder
    if isinstance(test, EqualsNumber) and test.literal is None:
        return "number", NumberFinder
    if isinstance(test, Affix):
        return ("suffix" if test.at_end else "prefix"), lambda: AffixFinder(at_end=test.at_end)
    if isinstance(test, FoldedText):
        return "fold", FoldFinder
    return _kind_of_search(test)


def _kind_of_search(test: Test) -> tuple[str, Callable[[], Finder]]:
    if isinstance(test, InRange):
        name = "double_range" if test.doubles_only else "range"
        return name, lambda: RangeFinder(doubles_only=test.doubles_only)
    if isinstance(test, Wildcard):
        return "wildcard", WildcardFinder
    if isinstance(test, InNetwork):
        return "network", NetworkFinder
    if isinstance(test, InDigits):
        return "digits", DigitsFinder
    if excludes_texts_only(test):
        return "but", ButFinder
    return ("regex", RegexFinder) if isinstance(test, Regex) else ("scan", ScanFinder)
