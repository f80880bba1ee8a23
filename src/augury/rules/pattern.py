"""Patterns: which events a rule is about (first version: one pattern at a time)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from augury.errors import Fault, PatternError

type _Test = Callable[[Any], bool]
type _Rows = list[tuple[Any, dict[int, int]]]

MISSING = object()


class Pattern:
    """A compiled pattern."""

    def __init__(self, branches: list[dict[str, list[_Test]]]) -> None:
        self._branches = branches

    def matches(self, event: Mapping[str, Any]) -> bool:
        """True if the event is one of those that the pattern describes."""
        rows: dict[str, _Rows] = {}
        _flatten(event, "", {}, rows, iter(range(1 << 30)))
        return any(_consistent(list(branch.items()), rows, {}) for branch in self._branches)


class Matcher:
    """Many patterns over one event."""

    def __init__(self, rules: Mapping[str, Any] | None = None, *, dialect: str = "augury") -> None:
        self._dialect = dialect
        self._patterns: dict[str, Pattern] = {}
        for rule_id, pattern in (rules or {}).items():
            self.add(rule_id, pattern)

    def add(self, rule_id: str, pattern: Any) -> None:
        """Adds a rule, replacing what `rule_id` stood for."""
        compiled = (
            pattern
            if isinstance(pattern, Pattern)
            else compile_pattern(pattern, dialect=self._dialect)
        )
        self._patterns[rule_id] = compiled

    def remove(self, rule_id: str) -> None:
        """Removes a rule; one that is not there is fine."""
        self._patterns.pop(rule_id, None)

    def match(self, event: bytes | Mapping[str, Any]) -> set[str]:
        """Ids of the rules that match."""
        document = event if isinstance(event, Mapping) else msgspec.json.decode(event)
        return {rule_id for rule_id, pattern in self._patterns.items() if pattern.matches(document)}


def compile_pattern(
    pattern: str | bytes | Mapping[str, Any] | Sequence[Any], *, dialect: str = "augury"
) -> Pattern:
    """Compiles a pattern.

    Raises:
        PatternError: with every fault.
    """
    faults: list[Fault] = []
    if isinstance(pattern, str | bytes):
        try:
            pattern = msgspec.json.decode(pattern)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PatternError(f"not a pattern: not JSON: {error}") from error
    branches: list[dict[str, list[_Test]]] = [{}]
    if isinstance(pattern, Mapping):
        branches = _object(pattern, "", "$", branches, faults)
    else:
        faults.append(_fault("$", "expected an object", pattern))
    if faults:
        raise PatternError("not a pattern", faults=faults)
    return Pattern(branches)


def _fault(path: str, expected: str, found: object) -> Fault:
    return Fault(path=path, message=f"{expected}, found {found!r:.80}")


def _object(
    pattern: Mapping[str, Any],
    prefix: str,
    where: str,
    branches: list[dict[str, list[_Test]]],
    faults: list[Fault],
) -> list[dict[str, list[_Test]]]:
    if not pattern:
        faults.append(_fault(where, "expected at least one field", pattern))
    for name, value in pattern.items():
        path, at = f"{prefix}{name}", f"{where}.{name}"
        if name == "$or":
            branches = _alternatives(value, prefix, at, branches, faults)
        elif isinstance(value, Mapping):
            branches = _object(value, f"{path}.", at, branches, faults)
        elif isinstance(value, list) and value:
            tests = [_test(item, f"{at}[{i}]", faults) for i, item in enumerate(value)]
            branches = [{**branch, path: tests} for branch in branches]
        else:
            faults.append(_fault(at, "expected an object or a non-empty list", value))
    return branches


def _alternatives(
    value: Any,
    prefix: str,
    where: str,
    branches: list[dict[str, list[_Test]]],
    faults: list[Fault],
) -> list[dict[str, list[_Test]]]:
    if not isinstance(value, list) or len(value) < 2:
        faults.append(_fault(where, "expected a list of at least two objects", value))
        return branches
    found: list[dict[str, list[_Test]]] = []
    for i, item in enumerate(value):
        if isinstance(item, Mapping):
            found += _object(item, prefix, f"{where}[{i}]", branches, faults)
        else:
            faults.append(_fault(f"{where}[{i}]", "expected an object", item))
    return found


def _test(item: Any, where: str, faults: list[Fault]) -> _Test:
    if item is None or isinstance(item, str | bool | int | float):
        return _equals(item)
    if not isinstance(item, Mapping) or len(item) != 1:
        faults.append(_fault(where, "expected a value or an object with one operator", item))
        return bool
    ((name, operand),) = item.items()
    make = _OPERATORS.get(name)
    if make is None:
        known = ", ".join(sorted(_OPERATORS))
        faults.append(_fault(f"{where}.{name}", f"expected one of {known}", name))
        return bool
    return make(operand, f"{where}.{name}", faults)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(expected: Any) -> _Test:
    if _is_number(expected):
        return lambda value: _is_number(value) and value == expected
    return lambda value: type(value) is type(expected) and value == expected


def _text(operand: Any, where: str, faults: list[Fault]) -> str:
    if not isinstance(operand, str) or not operand:
        faults.append(_fault(where, "expected a non-empty string", operand))
        return "x"
    return operand


def _prefix(operand: Any, where: str, faults: list[Fault]) -> _Test:
    text = _text(operand, where, faults)
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(operand: Any, where: str, faults: list[Fault]) -> _Test:
    text = _text(operand, where, faults)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _ignore_case(operand: Any, where: str, faults: list[Fault]) -> _Test:
    text = _text(operand, where, faults).lower()
    return lambda value: isinstance(value, str) and value.lower() == text


def _exists(operand: Any, where: str, faults: list[Fault]) -> _Test:
    if not isinstance(operand, bool):
        faults.append(_fault(where, "expected true or false", operand))
    return (lambda value: value is not MISSING) if operand else (lambda value: value is MISSING)


def _anything_but(operand: Any, where: str, faults: list[Fault]) -> _Test:
    if isinstance(operand, Mapping):
        inner = _test(operand, where, faults)
        return lambda value: value is not MISSING and not inner(value)
    values = operand if isinstance(operand, list) else [operand]
    if not values or not all(isinstance(v, str) or _is_number(v) for v in values):
        faults.append(_fault(where, "expected a string, a number or a list of them", operand))
        return bool
    tests = [_equals(value) for value in values]
    return lambda value: value is not MISSING and not any(test(value) for test in tests)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _numeric(operand: Any, where: str, faults: list[Fault]) -> _Test:
    pairs = (
        list(zip(operand[::2], operand[1::2], strict=False)) if isinstance(operand, list) else []
    )
    valid = bool(pairs) and len(operand) in (2, 4)
    if not valid or not all(op in _COMPARE and _is_number(v) for op, v in pairs):
        faults.append(_fault(where, 'expected a list such as [">", 0, "<=", 5]', operand))
        return bool
    return lambda value: _is_number(value) and all(_COMPARE[op](value, v) for op, v in pairs)


_OPERATORS: dict[str, Callable[[Any, str, list[Fault]], _Test]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _ignore_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
}


def _flatten(
    value: Any, path: str, membership: dict[int, int], rows: dict[str, _Rows], ids: Iterator[int]
) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(item, f"{path}.{name}" if path else name, membership, rows, ids)
    elif isinstance(value, list):
        array = next(ids)
        for index, item in enumerate(value):
            nested = isinstance(item, Mapping | list)
            inside = {**membership, array: index} if nested else membership
            _flatten(item, path, inside, rows, ids)
    else:
        rows.setdefault(path, []).append((value, membership))


def _consistent(
    fields: list[tuple[str, list[_Test]]], rows: dict[str, _Rows], chosen: dict[int, int]
) -> bool:
    if not fields:
        return True
    (path, tests), *rest = fields
    for value, membership in rows.get(path, [(MISSING, {})]):
        agrees = all(chosen.get(array, index) == index for array, index in membership.items())
        found = agrees and any(test(value) for test in tests)
        if found and _consistent(rest, rows, {**chosen, **membership}):
            return True
    return False
