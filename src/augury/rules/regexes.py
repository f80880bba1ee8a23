"""Regular expressions by RE2: no backtracking, so a value is read once, whatever the expression.

RE2 is loaded with the first expression. Expressions are bounded in size when they are compiled;
many of them are then searched for together, as one automaton, in groups that its memory holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MAX_PROGRAM_BYTES = 1 << 17  # of one expression
_SEARCH_BYTES = 1 << 26  # of one group's automaton: a bound, not what it takes
GROUP = 32


def check_expression(expression: str) -> None:
    """Compiles an expression to see if it is one.

    Raises:
        ValueError: RE2 does not understand it, or it is too large.
    """
    import re2

    try:
        re2.compile(expression, _options(_MAX_PROGRAM_BYTES))
    except re2.error as error:
        text = error.args[0] if error.args else error
        raise ValueError(text.decode() if isinstance(text, bytes) else str(text)) from error


def _options(max_bytes: int) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = max_bytes
    return options


class Search:
    """Looks for up to `GROUP` expressions, which were checked, at once."""

    def __init__(self, expressions: Sequence[str]) -> None:
        import re2

        self._set = re2.Set.SearchSet(_options(_SEARCH_BYTES))
        for expression in expressions:
            self._set.Add(expression)
        self._set.Compile()

    def found(self, value: str) -> Sequence[int]:
        """Indexes of the expressions that are found somewhere in the value."""
        try:
            return self._set.Match(value) or ()
        except UnicodeEncodeError:  # half a surrogate pair
            return self._set.Match(value.encode("utf-8", "replace")) or ()


class Searches[T]:
    """Any number of expressions, each of which stands for something."""

    def __init__(self, expressions: Mapping[str, T]) -> None:
        pairs = list(expressions.items())
        groups = [pairs[start : start + GROUP] for start in range(0, len(pairs), GROUP)]
        self._groups = [
            (Search([text for text, _ in group]), [item for _, item in group]) for group in groups
        ]

    def found(self, value: str) -> list[T]:
        """What the expressions stand for that are found in the value."""
        return [items[index] for search, items in self._groups for index in search.found(value)]


def whole(parts: Sequence[str]) -> str:
    """The expression for a whole text that consists of the parts, with anything between them."""
    import re2

    clean = (part.encode("utf-8", "replace").decode() for part in parts)
    return r"(?s)\A" + ".*".join(re2.escape(part) for part in clean) + r"\z"
