"""Fixtures that several files of this folder need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Cli, command_line

from augury.settings import Settings
from augury.storage.database import Database


@pytest.fixture
def cli(
    settings: Settings,
    sqlite_database: Database,
    bus_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """The command line in an empty folder, over a ledger and a bus of the test's own."""
    wired = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    folder = tmp_path / "work"
    folder.mkdir()
    with command_line(wired, folder, monkeypatch, capsys) as found:
        yield found
