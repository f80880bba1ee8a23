"""Checks as data, and the tally that they fill.

A check is a name, a function over one page of evidence, and the advice for whoever meets its
violation. The page is read in one snapshot of the database, so whatever a check compares within it
belongs to one instant: a running system gives no false alarm. Evidence from outside the database
(stream, objects) is read in the order that makes the same true, or a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from augury.errors import UnavailableError
from augury.monitoring.audit.report import Unknown, Violation

LISTED_PER_CHECK = 100

type Progress = Callable[[str, int, int | None], None]


class Finding(NamedTuple):
    """A violation before it has a name: subject, what was expected, what was found."""

    subject: str
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Check[Page]:
    """One invariant.

    Attributes:
        name: what the report and docs/audit.md call it.
        examine: yields a finding for each subject of the page that breaks the invariant.
        advice: what to do about it.
    """

    name: str
    examine: Callable[[Page], Iterable[Finding]]
    advice: str


class Tally:
    """What has been looked at and found so far; memory is bounded however much is wrong."""

    def __init__(self, names: Iterable[str]) -> None:
        self.checked: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.num_violations: Counter[str] = Counter()
        self.num_unknown: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.unknown: list[Unknown] = []

    def run[Page](self, checks: Sequence[Check[Page]], page: Page, num_subjects: int) -> None:
        """Lets every check look at a page of `num_subjects`."""
        for check in checks:
            self.checked[check.name] += num_subjects
            self.add(check, check.examine(page))

    def add[Page](self, check: Check[Page], findings: Iterable[Finding]) -> None:
        """Records what a check found; beyond `LISTED_PER_CHECK` only the number."""
        for finding in _guarded(findings):
            self.num_violations[check.name] += 1
            if self.num_violations[check.name] <= LISTED_PER_CHECK:
                self.violations.append(
                    Violation(check=check.name, advice=check.advice, **finding._asdict())
                )

    def merge(self, other: Tally) -> None:
        """Adds what another tally has counted and listed."""
        _extend(self.violations, other.violations)
        _extend(self.unknown, other.unknown)
        self.checked.update(other.checked)
        self.num_violations.update(other.num_violations)
        self.num_unknown.update(other.num_unknown)

    def lose(self, name: str, subject: str, reason: str) -> None:
        """Records that evidence is gone."""
        self.num_unknown[name] += 1
        if self.num_unknown[name] <= LISTED_PER_CHECK:
            self.unknown.append(Unknown(check=name, subject=subject, reason=reason))


def _extend[T: (Violation, Unknown)](listed: list[T], more: Sequence[T]) -> None:
    """Appends what the list may still hold of each check."""
    counts = Counter(found.check for found in listed) if more else Counter()
    for found in more:
        counts[found.check] += 1
        if counts[found.check] <= LISTED_PER_CHECK:
            listed.append(found)


def _guarded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Evidence so broken that a check fails on it is a finding, and stops no other check."""
    try:
        yield from findings
    except UnavailableError:
        raise
    except Exception as error:
        yield Finding("evidence", "evidence that can be read", f"{type(error).__name__}: {error}")


def differences(expected: Mapping[str, object], found: Mapping[Any, object]) -> tuple[str, str]:
    """Both sides as `name=value, ...`, only where they differ; two empty texts if nowhere."""
    names = [name for name, value in expected.items() if found.get(name) != value]
    if not names:
        return "", ""
    return (
        ", ".join(f"{name}={shown(expected[name])}" for name in names),
        ", ".join(f"{name}={shown(found.get(name))}" for name in names),
    )


def shown(value: object) -> str:
    """A value for people, not longer than a line."""
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
