"""docs/grouping.md says how groups come about; its examples, and the example file, prove it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from augury.jobs.states import GroupState
from augury.resources.documents import parse_document
from augury.rules import compile_pattern
from augury.rules.group_spec import KINDS, GroupSpec
from augury.rules.grouping import Member, Why, advance, policy_of
from augury.rules.membership import membership
from augury.rules.spec import RuleSpec

_ROOT = Path(__file__).parents[3]
PAGE = (_ROOT / "docs" / "grouping.md").read_text()
START = datetime(2026, 1, 1, tzinfo=UTC)


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


EXAMPLES = [yaml.safe_load(block) for block in _blocks("yaml example")]


def _lanes(spec: GroupSpec, events: dict[str, float]) -> dict[str, list[Member]]:
    lanes: dict[str, list[Member]] = {}
    for number, (key, second) in enumerate(events.items()):
        data = {"key": key, "uri": f"s3://bucket/{key}", "tag": "t"}
        joins = membership(spec, {"source": "s", "id": key, "type": "t", "data": data})
        member = Member(
            name=key,
            order=f"{number:04}",
            at=START + timedelta(seconds=second),
            subject=key,
            is_marker=joins.is_marker,
            expected=joins.expected,
        )
        lanes.setdefault(joins.key, []).append(member)
    return lanes


def test_there_is_an_example_for_each_kind() -> None:
    kinds = {GroupSpec.model_validate(example["group"]).kind for example in EXAMPLES}
    assert kinds == set(KINDS) - {"each"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: next(iter(e["group"])))
def test_an_example_is_true(example: dict[str, Any]) -> None:
    spec = GroupSpec.model_validate(example["group"])
    end = START + timedelta(seconds=max(example["events"].values()))
    closed, dropped, opened = [], [], []
    for members in _lanes(spec, example["events"]).values():
        progress = advance(policy_of(spec), None, members, end)
        for group in progress.closed:
            names = [name for name, first in progress.joined.items() if first == group.first]
            (closed.append if group.acts else dropped.extend)(names)  # type: ignore[operator]
        dropped += [name for name, ran_out in progress.passed.items() if ran_out]
        if progress.open is not None:
            first = progress.open.first
            opened += [name for name, joined in progress.joined.items() if joined == first]
    assert closed == example["groups"]
    assert dropped == example.get("dropped", [])
    assert sorted(opened) == sorted(example["open"])


@pytest.mark.parametrize(
    "text",
    [*_blocks("yaml"), (_ROOT / "examples/mini_batches/augury.yaml").read_text()],
    ids=["page", "example"],
)
def test_documents_are_accepted(text: str) -> None:
    rules = [entry for entry in parse_document(text) if entry.section == "rules"]
    assert rules
    for entry in rules:
        spec = RuleSpec.model_validate(entry.fields)
        compile_pattern(spec.pattern, dialect=spec.dialect)
        assert spec.is_grouped


def test_every_kind_and_reason_is_described() -> None:
    for name in KINDS:
        assert f"| `{name}` |" in PAGE
        if name != "each":
            fields = type(getattr(GroupSpec.model_validate(_an_example(name)), name)).model_fields
            assert all(f"`{field}`" in PAGE for field in fields)
    assert all(f"`{why}`" in PAGE for why in Why)
    assert {"DROPPED", "SHADOW"} <= set(GroupState)


def _an_example(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e["group"] for e in EXAMPLES if kind in e["group"])
    return found
