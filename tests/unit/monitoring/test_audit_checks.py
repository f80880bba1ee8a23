"""The audit's own values: every check documented, findings bounded, reports plain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from augury.errors import UnavailableError
from augury.monitoring.audit import CHECKS
from augury.monitoring.audit.check import LISTED_PER_CHECK, Check, Finding, Tally, differences

_PAGE = Path(__file__).parents[3] / "docs" / "audit.md"


def _sections() -> dict[str, str]:
    found = re.split(r"^### ([a-z_]+)$", _PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_says_what_a_violation_means(check: Check[object]) -> None:
    text = _sections()[check.name]
    assert re.search(r"\bA\s+violation", text)
    assert check.advice


def test_the_page_has_no_check_that_is_none() -> None:
    assert set(_sections()) == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def _check(name: str = "odd") -> Check[list[int]]:
    def examine(page: list[int]) -> Iterator[Finding]:
        for number in page:
            if number % 2:
                yield Finding(f"number {number}", "even", "odd")

    return Check(name=name, examine=examine, advice="add one")


def test_a_tally_counts_everything_and_lists_some() -> None:
    tally = Tally(["odd", "other"])
    tally.run([_check()], list(range(1000)), 1000)
    assert tally.checked == {"odd": 1000, "other": 0}
    assert tally.num_violations == {"odd": 500}
    assert len(tally.violations) == LISTED_PER_CHECK
    first = tally.violations[0]
    assert (first.check, first.subject, first.advice) == ("odd", "number 1", "add one")
    assert str(first) == "odd: number 1: expected even, found odd"


def test_merged_tallies_are_bounded_too() -> None:
    whole = Tally(["odd"])
    for _ in range(3):
        part = Tally(())
        part.run([_check()], list(range(100)), 100)
        for number in range(60):
            part.lose("odd", f"number {number}", "gone")
        whole.merge(part)
    assert (whole.checked["odd"], whole.num_violations["odd"]) == (300, 150)
    assert whole.num_unknown["odd"] == 180
    assert (len(whole.violations), len(whole.unknown)) == (LISTED_PER_CHECK, LISTED_PER_CHECK)


def test_a_check_that_fails_on_its_evidence_is_a_finding() -> None:
    def broken(_: list[int]) -> Iterator[Finding]:
        yield Finding("first", "a", "b")
        raise KeyError("gone")

    tally = Tally(())
    tally.run([Check(name="broken", examine=broken, advice="x"), _check()], [1], 1)
    assert [(v.check, v.found) for v in tally.violations] == [
        ("broken", "b"),
        ("broken", "KeyError: 'gone'"),
        ("odd", "odd"),
    ]


def test_an_outage_is_no_finding() -> None:
    def away(_: list[int]) -> Iterator[Finding]:
        raise UnavailableError("database is away")
        yield

    with pytest.raises(UnavailableError):
        Tally(()).run([Check(name="away", examine=away, advice="x")], [], 0)


def test_differences_show_only_what_differs_and_not_too_much_of_it() -> None:
    assert differences({"a": 1, "b": None}, {"a": 1, "b": None, "c": 3}) == ("", "")
    assert differences({"a": 1, "b": "x" * 500}, {"a": 1}) == (f"b={'x' * 119}…", "b=None")
