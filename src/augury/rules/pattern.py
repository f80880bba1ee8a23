"""Patterns: which events a rule is about.

The language is described in docs/patterns.md. Every dialect is read into the same compiled form
(`branches.py`); what that form means is said in `evaluate.py`, and `index.py` finds the patterns
that an event meets without asking each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from augury.errors import InvalidError, PatternError
from augury.rules.branches import Condition
from augury.rules.document import read_pattern
from augury.rules.evaluate import meets
from augury.rules.limits import MAX_DEPTH, fault, is_too_deep

DIALECTS = ("augury", "eventbridge", "oci", "cloudevents")


class Pattern:
    """A compiled pattern.

    Attributes:
        dialect: the dialect in which it was written.
        condition: its compiled form.
    """

    __slots__ = ("condition", "dialect")

    def __init__(self, condition: Condition, dialect: str) -> None:
        self.condition = condition
        self.dialect = dialect

    def matches(self, event: Mapping[str, Any]) -> bool:
        """True if the event is one of those that the pattern describes.

        For many patterns over many events, a `Matcher` does the same in less time.
        """
        return meets(self.condition, event)


def compile_pattern(
    pattern: str | bytes | Mapping[str, Any] | Sequence[Any], *, dialect: str = "augury"
) -> Pattern:
    """Compiles a pattern; pure, and the same pattern always gives the same decisions.

    Args:
        pattern: JSON text or what it decodes to. Text keeps what decoding may lose: numbers that
            no double holds, and repeated names.
        dialect: one of `DIALECTS`.

    Raises:
        PatternError: with every fault.
        InvalidError: no such dialect.
    """
    if dialect not in DIALECTS:
        raise InvalidError(f"expected a dialect out of {', '.join(DIALECTS)}, found {dialect!r}")
    decoded = _decoded(pattern, dialect)
    if is_too_deep(decoded):
        raise _refusal(dialect, f"at most {MAX_DEPTH} levels of objects and lists", "more")
    # a dialect is imported when it is first used: most rules need only one
    module = import_module(f"augury.rules.{dialect}")
    return Pattern(module.read(decoded), dialect)


def _decoded(pattern: Any, dialect: str) -> Any:
    if not isinstance(pattern, str | bytes):
        return pattern
    try:
        return read_pattern(pattern, to_the_end=dialect != "eventbridge")
    except ValueError as error:
        raise _refusal(dialect, f"JSON ({error})", pattern) from error


def _refusal(dialect: str, allowed: str, found: object) -> PatternError:
    return PatternError(f"not a pattern in dialect {dialect}", faults=[fault("$", allowed, found)])
