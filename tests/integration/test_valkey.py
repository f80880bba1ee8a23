"""The embedded Valkey server, and with it the fixtures that every other test relies on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import redis
import sqlalchemy as sa

from augury import clock
from augury.errors import ConflictError, UnavailableError
from augury.processes.valkey import ValkeyServer, is_ready, private_folder
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import meta


def test_server_keeps_its_promises(own_valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        config = client.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["port"] == "0"
    assert stat.S_IMODE(own_valkey.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(own_valkey.socket_path.parent.stat().st_mode) == 0o700


def test_killed_server_restarts_on_its_data_over_the_stale_socket(own_valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.set("kept", "yes")
    own_valkey.kill()
    assert own_valkey.socket_path.exists()
    assert not is_ready(own_valkey.socket_path)
    own_valkey.start()
    with redis.Redis.from_url(own_valkey.url) as client:
        assert client.get("kept") == b"yes"


def test_start_ends_an_orphan_on_the_same_socket(own_valkey: ValkeyServer) -> None:
    orphan = own_valkey.pid
    successor = ValkeyServer(own_valkey.data_dir, own_valkey.socket_path)
    successor.start()
    try:
        assert orphan is not None
        assert own_valkey.pid is None
        assert successor.pid not in {None, orphan}
        assert is_ready(successor.socket_path)
    finally:
        successor.stop()
    assert successor.pid is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's doing on Linux")
def test_server_ends_with_a_killed_parent(tmp_path: Path, _socket_dir: Path) -> None:
    folder = _socket_dir / "parent"
    script = (
        "import sys, time; from pathlib import Path\n"
        "from augury.processes.valkey import ValkeyServer\n"
        f"s = ValkeyServer(Path({str(tmp_path)!r}), Path({str(folder / 'v.sock')!r}))\n"
        "s.start(); print(s.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    deadline = clock.monotonic_s() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert clock.monotonic_s() < deadline
        clock.sleep_s(0.02)


def test_server_that_cannot_start_says_why(tmp_path: Path, _socket_dir: Path) -> None:
    server = ValkeyServer(tmp_path, _socket_dir / "bad" / "v.sock", fsync="sometimes")
    with pytest.raises(UnavailableError, match="sometimes"):
        server.start()


def test_long_socket_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="TMPDIR"):
        ValkeyServer(tmp_path, tmp_path / ("x" * 120) / "v.sock")


def test_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "a" / "b").chmod(0o755)
    with pytest.raises(ConflictError, match="0755"):
        private_folder(tmp_path / "a" / "b")


def test_linked_folder_is_refused(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "real")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "real")
    with pytest.raises(ConflictError):
        private_folder(tmp_path / "a" / "link")


def test_every_bus_answers(every_bus_url: str, settings: Settings) -> None:
    with redis.Redis.from_url(every_bus_url) as client:
        client.set(f"{settings.namespace}:x", "1")
        assert client.get(f"{settings.namespace}:x") == b"1"


def test_database_is_migrated_and_own(database: Database) -> None:
    def write(connection: sa.Connection) -> None:
        connection.execute(sa.insert(meta).values(key="mine", value=str(os.getpid())))

    database.transact(write)
    with database.read() as connection:
        rows = connection.execute(sa.select(meta.c.key)).scalars().all()
    assert sorted(rows) == ["mine", "schema_version"]


def test_live_settings_name_both(live_settings: Settings, database: Database) -> None:
    assert live_settings.database_url == database.url
    with redis.Redis.from_url(live_settings.effective_redis_url) as client:
        assert client.ping()


def test_s3_server_answers(s3_server: str) -> None:
    with urllib.request.urlopen(s3_server) as answer:
        assert b"ListAllMyBucketsResult" in answer.read()
