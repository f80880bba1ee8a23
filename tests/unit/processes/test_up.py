"""What `up` decides before it starts anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from augury.errors import ConflictError, UnavailableError
from augury.processes.main import listen
from augury.processes.supervisor import how_it_ended
from augury.processes.up import READY_FILE, home_lock, read_ready, settings_environment, specs
from augury.settings import Settings


def test_children_of_an_embedded_engine(settings: Settings) -> None:
    found = specs(settings, workers=2, listen_fd=3, ready_fd=4)
    assert [spec.name for spec in found] == [
        "valkey", "api", "router", "worker-1", "sources", "relay", "sweeper", "dispatcher",
        "worker-2",
    ]  # fmt: skip
    stops = sorted(found, key=lambda spec: spec.phase)
    assert [spec.name for spec in stops] == [
        "sources", "api", "router", "worker-1", "worker-2", "dispatcher", "sweeper", "relay",
        "valkey",
    ]  # fmt: skip


def test_a_given_bus_is_not_started(settings: Settings) -> None:
    given = settings.model_copy(update={"redis_url": "redis://elsewhere"})
    names = [spec.name for spec in specs(given, workers=0, listen_fd=3, ready_fd=4)]
    assert names == ["api", "router", "sources", "relay", "sweeper", "dispatcher"]


def test_child_reads_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Settings(home=Path("here"), namespace="n", log_json=True, drain_s=2.5, port=0)
    for name, value in settings_environment(mine).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    theirs = Settings()
    assert theirs == mine.model_copy(update={"home": tmp_path / "here"})
    assert theirs.effective_redis_url == mine.effective_redis_url


def test_second_holder_of_a_home_is_told_of_the_first(tmp_path: Path) -> None:
    (tmp_path / READY_FILE).write_text('{"url": "http://127.0.0.1:1"}')
    with home_lock(tmp_path):
        script = (
            "import sys; from pathlib import Path; from augury.processes.up import home_lock\n"
            "with home_lock(Path(sys.argv[1])): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            check=False,
            capture_output=True,
            text=True,
        )
    assert second.returncode == 1
    assert f"(process {os.getpid()}) at http://127.0.0.1:1" in second.stderr
    assert str(tmp_path) in second.stderr


def test_home_is_free_again_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with home_lock(tmp_path):
            pass
    with home_lock(tmp_path), pytest.raises(ConflictError), home_lock(tmp_path):
        pass


def test_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)


def test_ready_file_that_is_half_written_is_none(tmp_path: Path) -> None:
    assert read_ready(tmp_path) is None
    (tmp_path / READY_FILE).write_text('{"pid": ')
    assert read_ready(tmp_path) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit code 0"), (-15, "signal 15 (SIGTERM)"), (-34, "signal 34"), (3, "exit code 3")],
)
def test_how_it_ended(code: int, text: str) -> None:
    assert how_it_ended(code).startswith(text)
