"""Rules as somebody holds them in a file and asks about before (or without) applying them.

A file may be a whole document of `augury apply`, the fields of one rule, or just a pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.errors import Fault, InvalidError
from augury.resources.documents import SECTIONS, Entry, parse_document, parse_entry, refusal
from augury.rules.pattern import Pattern, compile_pattern

if TYPE_CHECKING:
    from augury.rules.spec import RuleSpec

_SECTION = "rules"


@dataclass(frozen=True, kw_only=True)
class RuleFile:
    """One rule of a file.

    Attributes:
        name: as the document names it; the file's name if the file holds one rule alone.
        pattern: compiled.
        spec: the whole rule; None if the file holds nothing but a pattern.
    """

    name: str
    pattern: Pattern
    spec: RuleSpec | None


def read_rule_file(text: str | bytes, *, origin: str, rule: str | None = None) -> RuleFile:
    """Reads one rule.

    Args:
        text: YAML or JSON.
        origin: name of the file, for messages.
        rule: which one, if the document holds several.

    Raises:
        InvalidError: it cannot be read, holds no rule or several, or the rule is none; every
            fault is named.
    """
    fields = parse_entry(text, section="", name="")
    if fields.fields.keys() & set(SECTIONS):
        return _read(_chosen(parse_document(text, origin=origin), origin, rule), origin)
    if "pattern" in fields.fields:
        name = str(fields.fields.get("name") or origin)
        inner = {key: value for key, value in fields.fields.items() if key != "name"}
        return _read(Entry(section="", name=name, fields=inner, lines=fields.lines), origin)
    return RuleFile(name=origin, pattern=compile_pattern(fields.fields), spec=None)


def _chosen(entries: Sequence[Entry], origin: str, rule: str | None) -> Entry:
    rules = [entry for entry in entries if entry.section == _SECTION]
    found = [entry for entry in rules if rule in (None, entry.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(entry.name for entry in rules) or "no rule"
    asked = "one rule" if rule is None else f"a rule named {rule!r}"
    hint = "; say which with --rule" if len(found) > 1 else ""
    raise refusal(origin, [Fault(path=_SECTION, message=f"expected {asked}, found {names}{hint}")])


def _read(entry: Entry, origin: str) -> RuleFile:
    from augury.actions.spec import parse_actions
    from augury.resources.documents import validated
    from augury.rules.spec import RuleSpec

    if "actions" not in entry.fields:
        return RuleFile(name=entry.name, pattern=_compiled(entry.fields), spec=None)
    faults: list[Fault] = []
    spec = validated(entry, RuleSpec, faults)
    if spec is None:
        raise refusal(origin, faults)
    pattern = _compiled(entry.fields)
    parse_actions(spec.actions)
    return RuleFile(name=entry.name, pattern=pattern, spec=spec)


def _compiled(fields: Mapping[str, Any]) -> Pattern:
    pattern, dialect = fields.get("pattern"), fields.get("dialect", "augury")
    if not isinstance(pattern, dict | list) or not isinstance(dialect, str):
        raise InvalidError(f"expected a `pattern` (an object or a list), found {pattern!r:.80}")
    return compile_pattern(pattern, dialect=dialect)
