"""Tables for people and programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from augury.cli.output import example, print_fields, print_json, print_list, print_table, shown


def test_values_as_people_read_them() -> None:
    at = datetime(2026, 11, 25, 7, 11, 51, 999, UTC)
    assert shown(at) == "2026-11-25T07:11:51Z"
    assert [shown(value) for value in (None, "", 0, True, False, "a\nb")] == [
        "-", "-", "0", "yes", "no", "a b",
    ]  # fmt: skip
    assert shown(1234.5) == "1,234.5"
    assert shown([{"a": 1}]) == '[{"a":1}]'


def test_plain_columns_are_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 200
    print_table(["name", "count"], [["a", 5], [long, 1000]], right=["count"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "count"]
    assert lines[1] == f"a{' ' * 199}      5"
    assert lines[2] == f"{long}   1000"


def test_terminal_gets_a_drawn_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(["state"], [["FAILED"], ["[bold]"]])
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "[bold]" in out  # what users wrote is no markup


def test_nothing_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [], empty="no rules")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no rules\n")


def test_json_is_one_line_or_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 1, 1, tzinfo=UTC), "rows": (1,)})
    print_json({"a": {"b": 1}}, indent=True)
    out = capsys.readouterr().out
    first, rest = out.split("\n", 1)
    assert msgspec.json.decode(first) == {"at": "2026-01-01T00:00:00.000000Z", "rows": [1]}
    assert len(rest.splitlines()) > 1


@pytest.mark.parametrize("as_json", [True, False])
def test_lists_in_both_forms(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    items: list[dict[str, Any]] = [{"name": "a"}, {"name": "b"}]
    print_list(items, {"name": lambda item: item["name"]}, as_json=as_json, view=lambda item: item)
    out = capsys.readouterr().out
    assert (msgspec.json.decode(out) == items) if as_json else (out.split() == ["name", "a", "b"])


def test_fields_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"a": 1, "long": None})
    assert capsys.readouterr().out == "a     1\nlong  -\n"
    assert example("augury up").endswith("  augury up")
