"""What hangs on a test, and what an event has met so far."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from augury.rules.branches import Branch


@dataclass(eq=False, slots=True)
class Entry:
    """One branch of one rule, as it hangs on postings.

    Attributes:
        sure: nothing but the posting's test is asked for.
        simple: in a plain event, each field can be looked up by its names.
        numeric: some test of the branch depends on how exactly a number was read.
    """

    rule_id: str
    branch: Branch
    names: tuple[tuple[str, ...], ...]
    sure: bool
    simple: bool
    numeric: bool


@dataclass(slots=True)
class Posting:
    """Rules and entries of one test."""

    sure: set[str] = field(default_factory=set)
    maybe: dict[Entry, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sure) + len(self.maybe)

    def add(self, entry: Entry) -> None:
        """Hangs an entry here."""
        if entry.sure:
            self.sure.add(entry.rule_id)
        else:
            self.maybe[entry] = None

    def discard(self, entry: Entry) -> None:
        """Takes an entry off."""
        self.sure.discard(entry.rule_id)
        self.maybe.pop(entry, None)


class Hits:
    """What one event has met so far.

    Attributes:
        rules: ids of rules that match for sure.
        maybe: entries that have to be verified; may repeat.
        plain: no array of objects or of arrays was met at a path that some rule mentions.
        exact: numbers are as exact as the event wrote them.
        blurred: the answer depends on a number that was not read exactly.
        dotted: the event has a key with dots that means a path.
        foreign: the event has mappings or sequences that are not dicts and lists.
    """

    # one is made for every event: what is nearly always so costs nothing as a class attribute
    plain = True
    blurred = False
    dotted = False
    foreign = False

    def __init__(self, exact: bool) -> None:
        self.rules: set[str] = set()
        self.maybe: list[Entry] = []
        self.exact = exact

    def take(self, posting: Posting) -> None:
        """A test was met."""
        if posting.sure:
            self.rules |= posting.sure
        if posting.maybe:
            self.maybe += posting.maybe


class Finder:
    """Tests of one kind at one path."""

    def posting(self, test: Any) -> Posting:
        """The posting of a test, made if need be."""
        raise NotImplementedError

    def discard(self, test: Any) -> None:
        """Forgets a test."""
        raise NotImplementedError

    def find(self, value: Any, hits: Hits) -> None:
        """Takes the postings of all tests that the value meets."""
        raise NotImplementedError

    def changed(self) -> None:
        """Something was hung on a posting, or taken off."""


class SortedTexts:
    """Texts in order, of which all that begin a given text are found."""

    def __init__(self) -> None:
        self.postings: dict[str, Any] = {}
        self._texts: list[str] = []
        self._chains: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {}
        self._sizes: list[int] | None = None

    def get_or_add(self, text: str, make: Callable[[], Any]) -> Any:
        """What hangs on a text, made if need be."""
        if text not in self.postings:
            self.postings[text] = make()
            insort(self._texts, text)
            self._forget()
        return self.postings[text]

    def discard(self, text: str) -> None:
        """Forgets a text."""
        if self.postings.pop(text, None) is not None:
            del self._texts[bisect_left(self._texts, text)]
            self._forget()

    def _forget(self) -> None:
        self._chains.clear()
        self._sizes = None

    def beginnings(self, value: str) -> Sequence[Any]:
        """What hangs on the texts that begin `value`, the shortest first."""
        index = bisect_right(self._texts, value)
        if not index:
            return ()
        last = self._texts[index - 1]
        texts, hanging = self._chains.get(last) or self._chain(last)
        if value.startswith(last):
            return hanging
        if not value.startswith(texts[0]):
            return ()
        return [item for text, item in zip(texts, hanging, strict=True) if value.startswith(text)]

    def _chain(self, text: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """The texts that begin this one, itself included, and what hangs on them."""
        if self._sizes is None:
            self._sizes = sorted({len(other) for other in self._texts})
        begins = (text[:size] for size in self._sizes if size <= len(text))
        texts = tuple(part for part in begins if part in self.postings)
        chain = texts, tuple(self.postings[part] for part in texts)
        self._chains[text] = chain
        return chain
