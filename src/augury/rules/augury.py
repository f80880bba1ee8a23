"""The dialect `augury`: EventBridge's operators without their surprises, and more of them.

An object of the pattern says what fields hold, and `$and`, `$or`, `$not` combine such objects. A
list says what a field's value may be: values and operators (`operators.py`), one of which must
hold. docs/patterns.md is the full description.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from augury.rules.branches import Condition, Guard
from augury.rules.conditions import Test
from augury.rules.document import is_list, is_object, members
from augury.rules.drafts import Drafts, Leaf, Where, objects, text_names
from augury.rules.limits import MAX_DEPTH, Findings, member
from augury.rules.operators import read_item
from augury.rules.quantifiers import Quantifier

DIALECT = "augury"
_WORDS = ("$and", "$or", "$not")


def read(pattern: Any) -> Condition:
    """Reads a pattern.

    Raises:
        PatternError: with every fault.
    """
    findings = Findings()
    condition: Condition = ()
    if is_object(pattern):
        condition = _object(findings, Drafts(), pattern, Where()).finish(findings)
    else:
        findings.add("$", "an object", pattern)
    findings.check(DIALECT)
    return condition


def _object(findings: Findings, drafts: Drafts, found: Any, where: Where) -> Drafts:
    """Adds what an object of the pattern says about the object of the event at `where`."""
    if not len(found) or where.depth > MAX_DEPTH:
        findings.add(where.path, f"at least one field, on at most {MAX_DEPTH} levels", found)
        return drafts
    seen: set[str] = set()
    for name, value in text_names(findings, members(found), where.path):
        if name in seen:
            findings.add(member(where.path, name), "each name once in an object", name)
        seen.add(name)
        if name in _WORDS:
            drafts = _word(findings, drafts, name, value, where.member(name))
        else:
            target = _field_name(findings, name, where)
            drafts = _field(findings, drafts, value, where.member(name, names=target))
    return drafts


def _field_name(findings: Findings, name: str, where: Where) -> str:
    path = member(where.path, name)
    if name.startswith("$$"):
        name = name[1:]
    elif name.startswith("$"):
        findings.add(path, f"a field or one of {', '.join(_WORDS)} ('$$x' for a field '$x')", name)
    if not all(name.split(".")):
        findings.add(path, "a name with text before, between and after its dots", name)
    return name


def _field(findings: Findings, drafts: Drafts, value: Any, where: Where) -> Drafts:
    if is_object(value):
        return _object(findings, drafts, value, where)
    if not is_list(value) or not len(value):
        findings.add(where.path, "an object, or a list of values and operators", value)
        return drafts
    if drafts.has(where.scope):
        asked = "each field once; use `$and` to ask twice of one field"
        findings.add(where.path, asked, where.scope)
    return drafts.with_field(where.scope, _leaf(findings, value, where.path))


def _leaf(findings: Findings, values: Sequence[Any], path: str) -> Leaf:
    tests: list[Test] = []
    quantifiers: list[Quantifier] = []
    for index, value in enumerate(values):
        for item in read_item(findings, value, f"{path}[{index}]"):
            if isinstance(item, Test):
                tests.append(item)
            else:
                quantifiers.append(item)
    return tuple(tests), tuple(quantifiers)


# --- $and, $or, $not -----------------------------------------------------------------------------


def _word(findings: Findings, drafts: Drafts, name: str, value: Any, where: Where) -> Drafts:
    if name == "$not" and not is_object(value):
        findings.add(where.path, "an object", value)
        return drafts
    listed = [value] if name == "$not" else value
    parts = objects(findings, listed, where.path, least=1)
    if name == "$or":
        ways = [_way(findings, found, where.at(path)) for found, path in parts]
        return drafts.either(findings, where.path, ways)
    for found, path in parts:
        # it stands on its own: elements of arrays are chosen for it alone
        place = Where(where.path if name == "$not" else path, "", where.depth + 1)
        condition = _object(findings, Drafts(), found, place).finish(findings)
        drafts = drafts.with_guard(Guard(where.scope, condition, wanted=name == "$and"))
    return drafts


def _way(findings: Findings, found: Any, where: Where) -> Callable[[Drafts], Drafts]:
    return lambda drafts: _object(findings, drafts, found, where)
