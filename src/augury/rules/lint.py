"""What is allowed in a pattern and yet most often a mistake; said when a rule is applied.

Nothing here refuses a rule: it warns. Without a sample of events it sees what no event can meet,
what costs much, and numbers written as texts. With one it also sees fields that no event has, and
values that are nearly right. Pure over pattern and sample.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from augury.events.catalog import EventType
from augury.rules.branches import Condition, Field
from augury.rules.conditions import Contains, EqualsText, Regex, Test, Wildcard
from augury.rules.evaluate import field_meets
from augury.rules.limits import shown
from augury.rules.near_misses import near_misses
from augury.rules.pattern import Pattern
from augury.rules.quantifiers import MISSING, AllOf, NoneOf, flat
from augury.rules.satisfiable import TEXTS, all_tests, contradiction

MANY_SEARCHES = 20
MANY_STARS = 4
_OWN_TYPE = "augury."
_NARROWING = ("type", "source")  # by these a rule chooses the kind of events it is about
_LITERAL = re.compile(r"(\^?)((?:[A-Za-z0-9 _/:=,@#%&~!\"'<>;-]|\\[./_-])+)(\$?)\Z")


@dataclass(frozen=True, kw_only=True)
class LintWarning:
    """One thing that is most often a mistake.

    Attributes:
        kind: `never-matches`, `matches-everything`, `unknown-type`, `never-seen`, `near-miss`,
            `number-as-string` or `cost`.
        path: dotted path of the field; empty for the whole pattern.
        message: what it is, and what to do.
    """

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def lint(pattern: Pattern, sample: Sequence[Mapping[str, Any]] = ()) -> list[LintWarning]:
    """Warnings, the gravest first; each about one field at most once.

    Args:
        pattern: of any dialect.
        sample: events as they were accepted lately, decoded; none: only the pattern is looked at.
    """
    condition = pattern.condition
    reason = contradiction(condition)
    if reason is not None:
        return [_warning("never-matches", "", f"no event can ever match: {reason}")]
    found: dict[tuple[str, str], LintWarning] = {}
    for warning in (
        *_everything(condition),
        *_unknown_types(condition),
        *_against_sample(condition, sample),
        *_numbers(condition, sample),
        *_costs(condition),
    ):
        found.setdefault((warning.kind, warning.path), warning)
    told = {warning.path for warning in found.values() if warning.kind == "near-miss"}
    return [w for w in found.values() if w.kind != "number-as-string" or w.path not in told]


def _warning(kind: str, path: str, message: str) -> LintWarning:
    return LintWarning(kind=kind, path=path, message=message)


def _everything(condition: Condition) -> Iterator[LintWarning]:
    if any(not branch.fields and not branch.guards for branch in condition):
        message = "every event matches, Augury's own among them; ask for a `type` at least"
        yield _warning("matches-everything", "", message)


# --- Augury's own types ---------------------------------------------------------------------------


def _unknown_types(condition: Condition) -> Iterator[LintWarning]:
    known = sorted(EventType)
    for field in _fields(condition):
        for test in field.tests if field.path == "type" else ():
            if not isinstance(test, EqualsText) or not test.text.startswith(_OWN_TYPE):
                continue
            if test.text not in known:
                close = difflib.get_close_matches(test.text, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else " (docs/events.md lists all)"
                message = f"Augury emits no events of type {test.text!r}{hint}"
                yield _warning("unknown-type", "type", message)


# --- what the sample says -------------------------------------------------------------------------


def _against_sample(
    condition: Condition, sample: Sequence[Mapping[str, Any]]
) -> Iterator[LintWarning]:
    for branch in condition if sample else ():
        asked = [item for item in branch.fields if item.path in _NARROWING]
        near = [event for event in sample if _all_met(asked, event)]
        if asked and not near:
            yield from _no_such_event(asked, sample)
        else:
            for item in branch.fields:
                yield from _of_field(item, near)


def _all_met(fields: Sequence[Field], event: Mapping[str, Any]) -> bool:
    return all(field_meets(item, event.get(item.path, MISSING), event) for item in fields)


def _no_such_event(
    asked: Sequence[Field], sample: Sequence[Mapping[str, Any]]
) -> Iterator[LintWarning]:
    for item in asked:
        if not any(_all_met([item], event) for event in sample):
            yield from _of_field(item, sample)
            return
    names = " and ".join(f"`{item.path}`" for item in asked)
    message = f"none of the last {len(sample)} events has the {names} that are asked for together"
    yield _warning("never-seen", "", message)


def _of_field(item: Field, sample: Sequence[Mapping[str, Any]]) -> Iterator[LintWarning]:
    if not sample or field_meets(item, MISSING, {}):  # absence is enough
        return
    seen = [(event, values) for event in sample if (values := _values(event, item.path))]
    if any(field_meets(item, value, event) for event, values in seen for value in values):
        return
    missed = _nearest(item, seen or [(event, [MISSING]) for event in sample])
    if missed is not None:
        yield _warning("near-miss", item.path, f"none of the last {len(sample)} events of this "
                       f"kind has such a value; {missed}")  # fmt: skip
    elif not seen:
        message = f"none of the last {len(sample)} events of this kind has this field"
        yield _warning("never-seen", item.path, message)


def _nearest(item: Field, seen: Sequence[tuple[Mapping[str, Any], Sequence[Any]]]) -> str | None:
    for event, values in seen:
        for value in values:
            for miss in near_misses(item, item.path, value, event):
                return f"{shown(miss.found)} at `{miss.path}` is close: {miss.message}"
    return None


def _values(event: Mapping[str, Any], path: str) -> list[Any]:
    """What an event holds at a dotted path, through arrays and names with dots."""
    if not path:
        return [event]
    names = path.split(".")
    return [
        value
        for item in flat(event)
        if isinstance(item, Mapping)
        for size in range(1, len(names) + 1)
        if (key := ".".join(names[:size])) in item
        for value in _inner(item[key], names[size:])
    ]


def _inner(value: Any, rest: Sequence[str]) -> list[Any]:
    return _values(value, ".".join(rest)) if rest else [value]


# --- numbers written as texts ---------------------------------------------------------------------


def _numbers(condition: Condition, sample: Sequence[Mapping[str, Any]]) -> Iterator[LintWarning]:
    for field in _fields(condition):
        if field.path in TEXTS:
            continue
        for test in all_tests(field.tests):
            if not isinstance(test, EqualsText) or not _spells_a_value(test.text):
                continue
            if any(other.check(msgspec.json.decode(test.text)) for other in field.tests):
                continue
            if not any(isinstance(v, str) for e in sample for v in _values(e, field.path)):
                message = (
                    f'"{test.text}" is a text and does not match the value {test.text}; '
                    "write it without quotes, or both"
                )
                yield _warning("number-as-string", field.path, message)


def _spells_a_value(text: str) -> bool:
    if text in ("true", "false", "null"):
        return True
    return re.fullmatch(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?", text) is not None


# --- cost -----------------------------------------------------------------------------------------


def _costs(condition: Condition) -> Iterator[LintWarning]:
    searches = 0
    for field in _fields(condition):
        for test in all_tests(_tests_of(field)):
            searches += isinstance(test, Wildcard | Regex | Contains)
            message = _cheaper(test)
            if message is not None:
                yield _warning("cost", field.path, message)
    if searches > MANY_SEARCHES:
        message = (
            f"{searches} wildcards and searches look through values for every event that has "
            "these fields; ask for a `type`, a prefix or exact values instead where you can"
        )
        yield _warning("cost", "", message)


def _tests_of(field: Field) -> list[Test]:
    inner = [q for q in field.quantifiers if isinstance(q, NoneOf | AllOf)]
    return [*field.tests, *(test for quantifier in inner for test in quantifier.tests)]


def _cheaper(test: Test) -> str | None:
    """What asks the same for less, or why it costs much."""
    if isinstance(test, Wildcard):
        return _cheaper_wildcard(test.parts)
    if not isinstance(test, Regex):
        return None
    if test.expression.startswith((".*", "^.*")) and len(test.expression.lstrip("^")) > 2:
        return f"the `.*` at the beginning of regex {test.expression!r} does nothing but cost"
    literal = _LITERAL.match(test.expression)
    if literal is None:
        return None
    text = literal[2].replace("\\", "")
    operator = {"^": "prefix", "$": "suffix", "^$": "equals", "": "contains"}[
        literal[1] + literal[3]
    ]
    instead = f'"{text}"' if operator == "equals" else f'{{"{operator}": "{text}"}}'
    return f"regex {test.expression!r} asks for a fixed text: {instead} does the same for less"


def _cheaper_wildcard(parts: Sequence[str]) -> str | None:
    if len(parts) - 1 >= MANY_STARS:
        text = "*".join(parts)
        return f"wildcard {text!r} has {len(parts) - 1} stars, each of which is a search"
    return None


def _fields(condition: Condition) -> Iterator[Field]:
    """All fields, those of guards among them; of those the path is within the guard's object."""
    for branch in condition:
        yield from branch.fields
        for guard in branch.guards:
            for field in _fields(guard.condition):
                path = f"{guard.scope}.{field.path}" if guard.scope else field.path
                yield Field(path, field.tests, field.quantifiers)
