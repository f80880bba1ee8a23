"""The dialect `cloudevents`: filters of the CloudEvents Subscriptions API 1.0.

A filter is an object with one member: `exact`, `prefix`, `suffix` (an object of attribute and
text), `all`, `any` (a list of filters) or `not` (a filter). A list of filters means all of them.
Filters speak of the event's attributes, never of its data; an attribute that is a number or a
boolean is compared as the text that CloudEvents writes for it. `sql` is refused.
"""

from __future__ import annotations

import re
from typing import Any

from augury.rules.branches import Branch, Condition, Field, Guard
from augury.rules.conditions import Affix, EqualsConstant, EqualsNumber, EqualsText, Test, Written
from augury.rules.document import is_list, is_object, members
from augury.rules.limits import MAX_DEPTH, Findings, member

DIALECT = "cloudevents"
_NAMES = ("exact", "prefix", "suffix", "all", "any", "not")
_ATTRIBUTE = re.compile(r"[a-z0-9]+\Z")


def read(pattern: Any) -> Condition:
    """Reads a filter, or a list of filters all of which must hold.

    Raises:
        PatternError: with every fault.
    """
    findings = Findings()
    if is_list(pattern):
        condition = _all(findings, pattern, "$", 1)
    else:
        condition = _filter(findings, pattern, "$", 1)
    findings.check(DIALECT)
    return condition


def _filter(findings: Findings, found: Any, path: str, depth: int) -> Condition:
    if not is_object(found) or len(found) != 1 or depth > MAX_DEPTH:
        findings.add(path, f"an object with one of {', '.join(_NAMES)}", found)
        return ()
    ((name, operand),) = members(found)
    where = member(path, name)
    if name in ("exact", "prefix", "suffix"):
        return _attributes(findings, name, operand, where)
    if name == "not":
        return _guarded(_filter(findings, operand, where, depth + 1), wanted=False)
    if name in ("all", "any"):
        read_list = _all if name == "all" else _any
        return read_list(findings, operand, where, depth + 1)
    findings.add(where, f"one of {', '.join(_NAMES)}", name)
    return ()


def _guarded(*conditions: Condition, wanted: bool = True) -> Condition:
    guards = tuple(Guard("", condition, wanted=wanted) for condition in conditions)
    return (Branch((), guards),)


def _each(findings: Findings, operand: Any, path: str, depth: int) -> list[Condition]:
    if not is_list(operand) or not len(operand):
        findings.add(path, "a list of at least one filter", operand)
        return []
    return [
        _filter(findings, item, f"{path}[{index}]", depth + 1) for index, item in enumerate(operand)
    ]


def _all(findings: Findings, operand: Any, path: str, depth: int) -> Condition:
    return _joined(_each(findings, operand, path, depth))


def _any(findings: Findings, operand: Any, path: str, depth: int) -> Condition:
    return tuple(branch for each in _each(findings, operand, path, depth) for branch in each)


def _joined(conditions: list[Condition]) -> Condition:
    """All of them; what speaks of different attributes only becomes one branch for the index."""
    fields: dict[str, Field] = {}
    guards: list[Guard] = []
    for condition in conditions:
        paths = {item.path for branch in condition for item in branch.fields}
        if len(condition) == 1 and not paths & fields.keys():
            fields |= {item.path: item for item in condition[0].fields}
            guards += condition[0].guards
        else:
            guards.append(Guard("", condition))
    return (Branch(tuple(fields[path] for path in sorted(fields)), tuple(guards)),)


def _attributes(findings: Findings, name: str, operand: Any, path: str) -> Condition:
    if not is_object(operand) or not len(operand):
        findings.add(path, "an object of at least one attribute and its text", operand)
        return ()
    conditions: list[Condition] = []
    for attribute, text in members(operand):
        where = member(path, attribute)
        findings.count_test(where)
        if not isinstance(attribute, str) or not _ATTRIBUTE.match(attribute):
            findings.add(where, "the name of an attribute: a-z and 0-9 only", attribute)
        elif attribute == "data":
            findings.add(where, "an attribute; these filters cannot see the data", attribute)
        if not isinstance(text, str) or not text:
            findings.add(where, "a text that is not empty", text)
            continue
        conditions.append((Branch((Field(str(attribute), _tests(name, text)),)),))
    return _joined(conditions)


def _tests(name: str, text: str) -> tuple[Test, ...]:
    """A text attribute itself, or the written form of one that is none."""
    if name != "exact":
        return (affix := Affix(text, name == "suffix"), Written(affix))
    if text in ("true", "false"):
        return EqualsText(text), EqualsConstant(text == "true")
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        return EqualsText(text), EqualsNumber(int(text))
    return (EqualsText(text),)
