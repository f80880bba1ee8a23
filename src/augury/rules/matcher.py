"""The matcher: which of many rules an event meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from augury.rules.decoding import UNREADABLE, make_decoders, read_whole
from augury.rules.document import plain_document
from augury.rules.index import Index
from augury.rules.pattern import Pattern, compile_pattern

type Source = Pattern | str | bytes | Mapping[str, Any] | Sequence[Any]

_BLURRED_IN_A_ROW = 8  # events whose numbers had to be read twice, before all are read exactly


class Matcher:
    """Many patterns over one event.

    What an event costs depends on what it holds and which rules it meets, hardly on how many rules
    there are. Changing the rules in one thread while another matches is not safe.

    Args:
        rules: patterns by rule id.
        dialect: of patterns that are not compiled yet.
    """

    def __init__(
        self, rules: Mapping[str, Source] | None = None, *, dialect: str = "augury"
    ) -> None:
        self._dialect = dialect
        self._index = Index()
        self._decoders_of = -1
        self._decode: Callable[[bytes], dict[str, Any]]
        self._decode_exactly: Callable[[bytes], dict[str, Any]]
        self._num_blurred = 0
        for rule_id, pattern in (rules or {}).items():
            self.add(rule_id, pattern)

    def __len__(self) -> int:
        return len(self._index)

    def add(self, rule_id: str, pattern: Source) -> None:
        """Adds a rule, replacing what `rule_id` stood for.

        Raises:
            PatternError: the pattern is not one; the matcher is as it was.
        """
        if not isinstance(pattern, Pattern):
            pattern = compile_pattern(pattern, dialect=self._dialect)
        self._index.add(rule_id, pattern.condition)

    def remove(self, rule_id: str) -> None:
        """Removes a rule; one that is not there is fine."""
        self._index.remove(rule_id)

    def match(self, event: bytes | Mapping[str, Any]) -> set[str]:
        """Ids of the rules that the event meets.

        Args:
            event: a JSON object, decoded or as bytes; bytes are faster, for only what the rules
                mention is decoded, and keep numbers that no double holds.

        Raises:
            InvalidError: bytes that are no JSON object.
        """
        if event.__class__ is not bytes and not isinstance(event, bytes):
            plain = event if event.__class__ is dict else plain_document(event)
            found = self._index.match(plain)
            assert found is not None  # nothing was rounded here
            return found
        if self._decoders_of != self._index.version:
            self._decoders_of, self._num_blurred = self._index.version, 0
            self._decode, self._decode_exactly = make_decoders(self._index.root)
        if self._num_blurred < _BLURRED_IN_A_ROW:
            try:
                fast = self._decode(event)
            except UNREADABLE:
                fast = None
            if fast.__class__ is not dict:  # no object, or something that only Python reads
                return self._index.match(read_whole(event))  # type: ignore[return-value]
            found = self._index.match(fast, exact=False)
            if found is not None:
                self._num_blurred = 0
                return found
            self._num_blurred += 1
        found = self._index.match(self._decode_exactly(event))
        assert found is not None  # everything is exact now
        return found
