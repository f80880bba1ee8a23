"""Text tests that need more than one call: ignoring case, and wildcards.

Ignoring case means: each character of the pattern stands for its lower-case and its upper-case
form (Unicode, no language), and for nothing else; the value itself is never changed. So `straße`
is met by `STRASSE`, while `strasse` is not. Wildcards are cut into the texts between the stars,
each of which is looked for once, from left to right: the time is bounded by value times pattern,
without any backtracking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Folded:
    """A text of which every character may be in either case.

    Attributes:
        plain: the lower-cased text if all of it is ASCII, which only ASCII values can meet.
        expression: for other texts, what a value must be.
    """

    plain: str | None
    expression: str

    def pattern(self, kind: Literal["equal", "prefix", "suffix"]) -> re.Pattern[str]:
        """A compiled expression for `search`: two alternatives a character, nothing nested."""
        start = "" if kind == "suffix" else r"\A"
        end = "" if kind == "prefix" else r"\Z"
        return re.compile(f"{start}{self.expression}{end}", re.DOTALL)


def fold(text: str, *, by_utf16: bool = False) -> Folded:
    """Prepares a text for comparison without case.

    Args:
        text: from the pattern.
        by_utf16: as Java reads it: a character beyond U+FFFF is two halves, each of which is
            encoded as a question mark.
    """
    if text.isascii():
        return Folded(text.lower(), "")
    return Folded(None, "".join(_either(char, by_utf16=by_utf16) for char in text))


def _either(char: str, *, by_utf16: bool) -> str:
    if by_utf16 and char > "\uffff":
        return r"\?\?"
    forms = sorted({char.lower(), char.upper()}, key=len, reverse=True)
    escaped = "|".join(re.escape(form) for form in forms)
    return f"(?:{escaped})" if len(forms) > 1 else escaped


def parse_wildcard(text: str) -> tuple[str, ...]:
    r"""The texts between the stars; one text if there is no star. `\*` and `\\` are literal.

    Raises:
        ValueError: two stars in a row, or a backslash before anything else.
    """
    parts: list[str] = []
    current, index = "", 0
    while index < len(text):
        char = text[index]
        following = text[index + 1 : index + 2]
        if char == "\\":
            if following not in ("*", "\\") or not following:
                raise ValueError(r"a backslash may only stand before '*' or another backslash")
            current, index = current + following, index + 1
        elif char == "*":
            if following == "*":
                raise ValueError("two '*' in a row; one does the same")
            parts, current = [*parts, current], ""
        else:
            current += char
        index += 1
    return (*parts, current)


def wildcard_matches(parts: tuple[str, ...], value: str) -> bool:
    """True if `value` is the parts in order, with anything at each star between them."""
    if len(parts) == 1:
        return value == parts[0]
    first, *middle, last = parts
    if len(value) < len(first) + len(last):
        return False
    if not (value.startswith(first) and value.endswith(last)):
        return False
    position, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
