"""How much work one pattern may cause, and how what is wrong with it is said.

A pattern is input from outside. These bounds hold for every dialect; going beyond one is a fault
like any other, found when the rule is applied and never while an event is matched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from augury.errors import Fault, PatternError
from augury.rules.document import Members, inner_values

MAX_DEPTH = 100  # objects and lists within each other
MAX_BRANCHES = 1_000  # what all `$or` of one pattern multiply to
MAX_FIELDS = 256  # fields in one branch
MAX_TESTS = 20_000  # values and operators, in all branches together
MAX_SEARCHES = 200  # wildcards, `contains` and `regex` among them
MAX_STARS = 32  # `*` in one wildcard
MAX_REGEX_CHARS = 1_000
MAX_TEXT_CHARS = 16_384  # one string in a pattern
MAX_FAULTS = 100

_PLAIN_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*\Z")


@dataclass(frozen=True, kw_only=True)
class PatternFault(Fault):
    """One thing wrong with a pattern; `path` is its JSON path.

    Attributes:
        allowed: what may stand there.
        found: what does.
    """

    allowed: str
    found: Any


def fault(path: str, allowed: str, found: object) -> PatternFault:
    """Says that `path` holds `found` where only `allowed` may be."""
    found = dict(found.pairs) if isinstance(found, Members) else found
    message = f"expected {allowed}, found {shown(found)}"
    return PatternFault(path=path, message=message, allowed=allowed, found=found)


class Findings:
    """Collects faults, and counts what a pattern will cost."""

    def __init__(self) -> None:
        self.faults: list[PatternFault] = []
        self._num_tests = 0
        self._num_searches = 0

    def add(self, path: str, allowed: str, found: object) -> None:
        """Records that `path` holds `found` where only `allowed` may be."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault(path, allowed, found))

    def count_test(self, path: str) -> None:
        """Counts one value or operator."""
        self._num_tests += 1
        if self._num_tests == MAX_TESTS + 1:
            self.add(path, f"at most {MAX_TESTS:,} values and operators in one pattern", "more")

    def count_search(self, path: str) -> None:
        """Counts one operator that has to look through the value."""
        self._num_searches += 1
        if self._num_searches == MAX_SEARCHES + 1:
            self.add(path, f"at most {MAX_SEARCHES} wildcards and searches in one pattern", "more")

    def check(self, dialect: str) -> None:
        """Raises everything that was found.

        Raises:
            PatternError: something was.
        """
        if self.faults:
            raise PatternError(f"not a pattern in dialect {dialect}", faults=self.faults)


class one_fault:  # noqa: N801 - used as a statement
    """Turns a ValueError of the block into a fault."""

    def __init__(self, findings: Findings, path: str, allowed: str, found: object) -> None:
        self._findings = findings
        self._path = path
        self._allowed = allowed
        self._found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ValueError):
            self._findings.add(self._path, f"{self._allowed} ({error})", self._found)
        return error is None or isinstance(error, ValueError)


def shown(found: object) -> str:
    """A value as it may stand in a message: short, and on one line."""
    text = repr(found)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_too_deep(value: Any) -> bool:
    """True if objects and lists lie within each other more than `MAX_DEPTH` times."""
    level = [value]
    for _ in range(MAX_DEPTH + 2):
        level = [item for each in level for item in inner_values(each)]
        if not level:
            return False
    return True


def member(path: str, name: Any) -> str:
    """JSON path of a member of the object at `path`."""
    text = str(name)
    if _PLAIN_NAME.match(text):
        return f"{path}.{text}"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}['{quoted}']"
