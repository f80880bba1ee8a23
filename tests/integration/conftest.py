"""Fixtures that several files of this folder need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Cli, command_line
from effects_world import EffectsWorld, Outside

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


@pytest.fixture
def effects_world(
    sqlite_database: Database, settings: Settings, bus_url: str
) -> Iterator[EffectsWorld]:
    """A ledger on SQLite whose rules act outside."""
    wired = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    world = EffectsWorld(sqlite_database, wired)
    yield world
    world.bus.close()


@pytest.fixture(scope="module")
def _outside() -> Iterator[Outside]:
    server = Outside()
    yield server
    server.close()


@pytest.fixture
def outside(_outside: Outside) -> Outside:
    """A real HTTP server that nobody has told anything yet."""
    _outside.received.clear()
    _outside.answers.clear()
    _outside.always.clear()
    return _outside
