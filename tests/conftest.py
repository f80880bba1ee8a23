"""Fixtures for every test: real services, each test with its own corner of them.

| fixture | gives |
|---|---|
| `settings` | `Settings` with its own home and namespace; starts nothing |
| `valkey` | the session's Valkey server (real process, unix socket, AOF always) |
| `bus_url` | its URL; keys are told apart by `settings.namespace` |
| `every_bus_url` | the test runs twice: on that Valkey, and on the Redis at 127.0.0.1:6379 |
| `redis_url` | the Redis at 127.0.0.1:6379 alone |
| `own_valkey` | a server of this test's own: start, stop, kill, restart, FLUSHALL as you like |
| `database` | the test runs twice: migrated SQLite file, migrated PostgreSQL database of its own |
| `sqlite_database` | only the SQLite one |
| `live_settings` | `settings` wired to `database` and a bus: SQLite+Valkey, PostgreSQL+Redis |
| `s3_server` | URL of a real S3 protocol server (moto), session-wide; make your own bucket |

A service that does not answer skips the test at home and fails it under `CI=true`.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.migrations import migrate

_IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}  # noqa: TID251 - the tests' own reader
_POSTGRES = os.environ.get(  # noqa: TID251 - the tests' own reader
    "TEST_POSTGRES_URL", "postgresql+psycopg://root@127.0.0.1:5432"
)
_REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")  # noqa: TID251
_numbers = itertools.count()

for _name in [name for name in os.environ if name.startswith("AUGURY_")]:  # noqa: TID251
    del os.environ[_name]  # noqa: TID251 - what a developer has set must not reach the tests


def _unique(prefix: str) -> str:
    return f"{prefix}{os.getpid()}_{next(_numbers)}"


def _absent(service: str) -> None:
    if _IN_CI:
        pytest.fail(f"CI has no {service}, which it must have")
    pytest.skip(f"{service} does not answer")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a test configures (a role in this process does) must not deafen the next one."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home and a namespace of this test's own; no service is started."""
    return Settings(home=tmp_path / "home", namespace=_unique("t"), port=0)


# --- Valkey and Redis -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _socket_dir() -> Iterator[Path]:
    # pytest's own temporary folders are too deep for a socket path
    folder = Path(tempfile.mkdtemp(prefix="augury-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey(_socket_dir: Path) -> Iterator[ValkeyServer]:
    """One server for the session. Do not stop, flush or configure it: use `own_valkey`."""
    folder = _socket_dir / "shared"
    server = ValkeyServer(folder / "data", folder / "valkey.sock")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(_socket_dir: Path) -> Iterator[ValkeyServer]:
    """A server of this test's own, started. `kill()` then `start()` restarts it on its AOF."""
    folder = _socket_dir / _unique("own")
    server = ValkeyServer(folder / "data", folder / "valkey.sock")
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bus_url(valkey: ValkeyServer) -> str:
    """URL of the session's Valkey."""
    return valkey.url


@pytest.fixture(params=["valkey", "redis"])
def every_bus_url(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """URL of each kind of server we support; keys under `settings.namespace` are removed after."""
    if request.param == "valkey":
        yield request.getfixturevalue("bus_url")
        return
    yield request.getfixturevalue("redis_url")


@pytest.fixture
def redis_url(settings: Settings) -> Iterator[str]:
    """URL of the machine's Redis; keys under `settings.namespace` are removed after the test."""
    if not _answers("127.0.0.1", 6379):
        _absent("Redis at 127.0.0.1:6379")
    yield _REDIS
    _forget(_REDIS, settings.namespace)


def _forget(url: str, namespace: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{namespace}*", count=1000):
            client.delete(key)


# --- databases ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


def _admin(statement: str) -> None:
    import psycopg

    dsn = _POSTGRES.replace("+psycopg", "")
    with psycopg.connect(f"{dsn}/postgres", autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def _postgres_template() -> Iterator[str]:
    if not _answers("127.0.0.1", 5432):
        _absent("PostgreSQL at 127.0.0.1:5432")
    name = _unique("augury_template_")
    _admin(f"CREATE DATABASE {name}")
    database = Database(f"{_POSTGRES}/{name}")
    migrate(database)
    database.close()
    yield name
    _admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def sqlite_database(tmp_path: Path, _sqlite_template: Path) -> Iterator[Database]:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "augury.db"
    shutil.copyfile(_sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def postgres_database(_postgres_template: str) -> Iterator[Database]:
    """A migrated PostgreSQL database of this test's own."""
    name = _unique("augury_test_")
    _admin(f"CREATE DATABASE {name} TEMPLATE {_postgres_template}")
    database = Database(f"{_POSTGRES}/{name}")
    yield database
    database.close()
    _admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database of this test's own; the test runs once per dialect."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.fixture
def live_settings(
    request: pytest.FixtureRequest, database: Database, settings: Settings
) -> Iterator[Settings]:
    """`settings` that name `database` and a bus: SQLite with Valkey, PostgreSQL with Redis."""
    use_redis = not database.is_sqlite and _answers("127.0.0.1", 6379)
    url = _REDIS if use_redis else request.getfixturevalue("bus_url")
    yield settings.model_copy(update={"database_url": database.url, "redis_url": url})
    if use_redis:
        _forget(url, settings.namespace)


# --- S3 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of moto's server, a real S3 over HTTP; any key id and secret are accepted."""
    # a process of its own: in a thread it would share this interpreter with what it serves
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [shutil.which("moto_server", path=_bin_dir()) or "moto_server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _bin_dir() -> str:
    import sys

    return str(Path(sys.executable).parent)


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    from augury import clock

    deadline = clock.monotonic_s() + 60
    while not _answers("127.0.0.1", port):
        if process.poll() is not None or clock.monotonic_s() > deadline:
            pytest.fail("moto's S3 server did not start")
        clock.sleep_s(0.05)
