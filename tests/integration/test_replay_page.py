"""docs/replay.md shows commands and their output; here they are run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Cli, command_line

from augury.settings import Settings
from augury.storage.database import Database

PAGE = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
FILES = re.findall(r"^```file (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def cli(
    settings: Settings,
    sqlite_database: Database,
    bus_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    wired = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    with command_line(wired, tmp_path, monkeypatch, capsys) as found:
        for name, text in FILES:
            found.write(name, text)
        yield found


def test_the_commands_say_what_the_page_says(cli: Cli) -> None:
    assert CONSOLES
    for block in CONSOLES:
        first, *expected = block.splitlines()
        assert first.startswith("$ augury ")
        said = cli.run(*shlex.split(first)[2:])
        assert (said.out + said.err).splitlines() == expected
