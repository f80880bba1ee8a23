"""The `augury` command in this process, over a ledger and a bus of the test's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from augury.cli import main
from augury.engine import Engine
from augury.settings import Settings


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


class Cli:
    """Runs commands; `folder` is the current one."""

    def __init__(self, folder: Path, engine: Engine, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.engine = engine
        self._capture = capture

    def run(self, *arguments: str) -> Said:
        """One command, whatever its exit code."""
        self._capture.readouterr()
        code = main(arguments)
        said = self._capture.readouterr()
        return Said(code, said.out, said.err)

    def ok(self, *arguments: str) -> str:
        """One command that must succeed; returns its output."""
        said = self.run(*arguments)
        assert said.code == 0, said
        return said.out

    def json(self, *arguments: str) -> Any:
        """One command with `--json`, which must succeed; returns what it says."""
        return json.loads(self.ok(*arguments, "--json"))

    def write(self, name: str, text: str) -> str:
        """A file in the current folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name


@contextmanager
def command_line(
    settings: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capture: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """A command line whose environment says what `settings` say."""
    for name in ("home", "namespace", "redis_url", "database_url"):
        monkeypatch.setenv(f"AUGURY_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.chdir(folder)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with Engine(settings) as engine:
            yield Cli(folder, engine, capture)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
