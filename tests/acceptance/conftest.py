"""`start_augury`: real installations, each in a folder of its own, with nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Augury

from augury.settings import Settings
from augury.storage.database import Database


@pytest.fixture
def start_augury(tmp_path: Path) -> Iterator[Callable[..., Augury]]:
    """Makes and starts an installation: `start_augury(workers=2, heartbeat_s="0.5")`.

    After the test every one is stopped, and a process that is left running fails the test.
    """
    started: list[Augury] = []

    def start(*, workers: int = 1, wait: bool = True, **variables: str) -> Augury:
        folder = tmp_path / f"augury-{len(started)}"
        folder.mkdir()
        started.append(Augury(folder, workers=workers, **variables))
        return started[-1].up(wait=wait)

    yield start
    left = [line for one in started for line in one.end()]
    assert left == []


@pytest.fixture(params=["embedded", "services"])
def backend(request: pytest.FixtureRequest, settings: Settings) -> dict[str, str]:
    """Variables of an installation: SQLite and its own Valkey, then PostgreSQL and Redis."""
    if request.param == "embedded":
        return {}
    database: Database = request.getfixturevalue("postgres_database")
    return {
        "database_url": database.url,
        "redis_url": request.getfixturevalue("redis_url"),
        "namespace": settings.namespace,
    }
