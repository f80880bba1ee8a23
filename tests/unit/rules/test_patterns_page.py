"""docs/patterns.md says how patterns work; here its examples prove it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from augury.errors import PatternError
from augury.rules import Matcher, compile_pattern, limits
from augury.rules.operators import OPERATORS

PAGE = (Path(__file__).parents[3] / "docs" / "patterns.md").read_text()


def _blocks(kind: str) -> list[Any]:
    found = re.findall(rf"^```json {kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [json.loads(block) for block in found]


EXAMPLES = _blocks("example")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 24


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: json.dumps(e["pattern"])[:60])
def test_an_example_is_true(example: dict[str, Any]) -> None:
    pattern = compile_pattern(example["pattern"], dialect=example.get("dialect", "augury"))
    matcher = Matcher({"rule": pattern})
    for event in example["matches"]:
        assert pattern.matches(event), event
        assert matcher.match(json.dumps(event).encode()) == {"rule"}, event
    for event in example["differs"]:
        assert not pattern.matches(event), event
        assert matcher.match(json.dumps(event).encode()) == set(), event


@pytest.mark.parametrize("fault", _blocks("fault"))
def test_faults_are_as_described(fault: dict[str, Any]) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(fault["pattern"])
    assert [found.path for found in caught.value.faults] == fault["paths"]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_is_described(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_the_limits_are_the_real_ones() -> None:
    for name in (
        "DEPTH",
        "BRANCHES",
        "FIELDS",
        "TESTS",
        "SEARCHES",
        "STARS",
        "REGEX_CHARS",
        "TEXT_CHARS",
    ):
        assert f"| {getattr(limits, f'MAX_{name}'):,}" in PAGE, name
