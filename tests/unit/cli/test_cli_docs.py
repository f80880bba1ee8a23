"""docs/cli.md names every command, and nothing that is none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from augury.cli.app import app

_PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if not children or path in {("audit",), ("sources",)}:
        yield " ".join(path)
    for name, child in children.items():
        yield from _leaves(child, (*path, name))


def _documented() -> set[str]:
    found: set[str] = set()
    for line in _PAGE.splitlines():
        if not line.startswith("| `augury "):
            continue
        cell = line.split("|")[1]
        first, *others = re.findall(r"`([^`]+)`", cell)
        words = [word for word in first.split()[1:] if word.islower() and "=" not in word]
        path = [word for word in words if not word.startswith("-")]
        found.add(" ".join(path))
        found |= {f"{path[0]} {other}" for other in others}
    return found


def test_every_command_is_documented() -> None:
    assert _documented() == set(_leaves(typer.main.get_command(app)))


def test_exit_codes_are_documented() -> None:
    assert re.findall(r"^\| (\d+) \|", _PAGE, re.MULTILINE) == ["0", "1", "2", "3", "4", "130"]
