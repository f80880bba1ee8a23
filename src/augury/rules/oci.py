"""The dialect `oci`: the conditions of OCI Events.

`{"eventType": "com.x" | ["com.x", "com.y"], "data": {...}}`: every field named must be there and
be one of the values listed; a `*` in a text stands for anything; `{}` is met by every event.
`eventType` also means the `type` of a CloudEvent, for that is what it became in version 1.0. The
condition may be given as JSON text, as OCI's API takes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from augury.rules import quantities
from augury.rules.branches import Condition
from augury.rules.conditions import EqualsConstant, EqualsNumber, EqualsText, Test, Wildcard
from augury.rules.document import is_list, is_number, is_object, members
from augury.rules.drafts import Drafts, Leaf, Where, text_names
from augury.rules.limits import MAX_DEPTH, MAX_STARS, Findings

DIALECT = "oci"


def read(pattern: Any) -> Condition:
    """Reads a condition.

    Raises:
        PatternError: with every fault.
    """
    findings = Findings()
    drafts = Drafts()
    if is_object(pattern):
        drafts = _object(findings, drafts, pattern, Where())
    else:
        findings.add("$", "an object", pattern)
    condition = drafts.finish(findings)
    findings.check(DIALECT)
    return condition


def _object(findings: Findings, drafts: Drafts, found: Any, where: Where) -> Drafts:
    if where.depth > MAX_DEPTH:
        findings.add(where.path, f"at most {MAX_DEPTH} levels", found)
        return drafts
    for name, value in text_names(findings, members(found), where.path):
        here = where.member(name, names=name)
        if is_object(value):
            drafts = _object(findings, drafts, value, here)
            continue
        leaf = _leaf(findings, value, here.path)
        if here.scope == "eventType":
            drafts = _event_type(findings, drafts, leaf, here.path)
        else:
            drafts = drafts.with_field(here.scope, leaf)
    return drafts


def _event_type(findings: Findings, drafts: Drafts, leaf: Leaf, path: str) -> Drafts:
    def way(name: str) -> Callable[[Drafts], Drafts]:
        return lambda so_far: so_far.with_field(name, leaf)

    return drafts.either(findings, path, [way("type"), way("eventType")])


def _leaf(findings: Findings, value: Any, path: str) -> Leaf:
    values = list(value) if is_list(value) else [value]
    if not values:
        findings.add(path, "at least one value", value)
    tests: list[Test] = []
    for index, item in enumerate(values):
        where = f"{path}[{index}]" if is_list(value) else path
        findings.count_test(where)
        tests += _value(findings, item, where)
    return tuple(tests), ()


def _value(findings: Findings, value: Any, path: str) -> list[Test]:
    if isinstance(value, str):
        return [_text(findings, value, path)]
    if value is None or isinstance(value, bool):
        return [EqualsConstant(value)]
    if is_number(value):
        return [EqualsNumber(quantities.canonical(value))]
    findings.add(path, "a text, number, true, false or null", value)
    return []


def _text(findings: Findings, text: str, path: str) -> Test:
    parts = tuple(re.split(r"\*+", text))
    if len(parts) == 1:
        return EqualsText(text)
    findings.count_search(path)
    if len(parts) - 1 > MAX_STARS:
        findings.add(path, f"at most {MAX_STARS} stars", text)
    return Wildcard(parts)
