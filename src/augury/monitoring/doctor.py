"""What is wrong with this installation, and what to change.

Each check looks at one thing and says what it found, good or bad; none of them changes anything,
and none stops the others. A check is a function in `CHECKS`.
"""

from __future__ import annotations

import difflib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any

from augury.errors import AuguryError
from augury.settings import Settings, unknown_variables

_LEAST_FREE_BYTES = 2**30
_LEAST_REDIS = (7, 0)
_LEAST_POSTGRES = 120_000
_LIBRARIES = ("celery", "redis", "sqlalchemy", "numpy", "pyarrow", "xgboost", "scikit-learn")
_LONGEST_SOCKET_PATH_BYTES = 100


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"  # as it should be
    ADVICE = "advice"  # works, and could be better or safer
    PROBLEM = "problem"  # does not work, or breaks a promise


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at.

    Attributes:
        level: how much it matters.
        subject: what was looked at: `settings`, `home`, `database`, `bus`, `broker`, `store`,
            `celery`, `versions`.
        message: what was found.
        advice: what to change; empty if nothing.
    """

    level: Level
    subject: str
    message: str
    advice: str = ""


type Celery = Mapping[str, Any] | None
type Check = Callable[[Settings, Celery], Iterator[Finding]]


def diagnose(settings: Settings, *, celery: Celery = None) -> list[Finding]:
    """Looks at everything; takes a few seconds where services do not answer.

    Args:
        settings: whose installation to look at.
        celery: Celery's effective settings; without them that check is left out.

    Returns:
        At least one finding per subject, in the order in which to read them.
    """
    found: list[Finding] = []
    for subject, check in CHECKS.items():
        found.extend(_run(subject, check, settings, celery))
    return found


def _run(subject: str, check: Check, settings: Settings, celery: Celery) -> list[Finding]:
    """A check that fails is a finding itself."""
    found: list[Finding] = []
    try:
        found.extend(check(settings, celery))
    except AuguryError as error:
        found.append(_problem(subject, error.message, "see the message"))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        found.append(_problem(subject, f"could not be looked at: {text}", "see the message"))
    return found


def _ok(subject: str, message: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, message=message)


def _advice(subject: str, message: str, advice: str) -> Finding:
    return Finding(level=Level.ADVICE, subject=subject, message=message, advice=advice)


def _problem(subject: str, message: str, advice: str) -> Finding:
    return Finding(level=Level.PROBLEM, subject=subject, message=message, advice=advice)


# --- this machine ---------------------------------------------------------------------------------


def _settings(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    known = [f"AUGURY_{name.upper()}" for name in Settings.model_fields]
    unknown = unknown_variables()
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else "remove it; docs/settings.md lists all"
        yield _advice("settings", f"{name} is set and is no setting", advice)
    if settings.heartbeat_s * 2 > settings.lease_timeout_s:
        yield _problem(
            "settings",
            f"leases expire after {settings.lease_timeout_s} s, heartbeats come every "
            f"{settings.heartbeat_s} s: one late heartbeat would cost a worker its work",
            "set AUGURY_LEASE_TIMEOUT_S to at least twice AUGURY_HEARTBEAT_S, better four times",
        )
    elif not unknown:
        yield _ok("settings", "every AUGURY_ variable is known")


def _home(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    home = settings.absolute_home
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield _problem("home", f"cannot write in {existing}: {error.strerror}", "set AUGURY_HOME")
        return
    free_bytes = shutil.disk_usage(existing).free
    shown = f"{home}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < _LEAST_FREE_BYTES:
        yield _problem("home", shown, "free some space: the bus stops when it cannot write")
    else:
        yield _ok("home", shown)
    if settings.embedded_redis:
        yield from _socket_path(settings)


def _socket_path(settings: Settings) -> Iterator[Finding]:
    path = os.fsencode(settings.runtime_dir / "valkey.sock")
    if len(path) > _LONGEST_SOCKET_PATH_BYTES:
        yield _problem(
            "home",
            f"the socket's path has {len(path)} bytes, at most {_LONGEST_SOCKET_PATH_BYTES} work",
            "set TMPDIR to a shorter folder",
        )


def _versions(_settings: Settings, _celery: Celery) -> Iterator[Finding]:
    found = [f"Python {platform.python_version()}"]
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            yield _problem("versions", f"{library} is not installed", "install augury anew")
    yield _ok("versions", ", ".join(found))


# --- services -------------------------------------------------------------------------------------


def _database(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    from augury.storage.database import Database
    from augury.storage.migrations import MIGRATIONS, schema_version

    url = settings.effective_database_url
    if not settings.database_url and not (settings.absolute_home / "augury.db").exists():
        yield _advice("database", "there is no ledger yet", "start Augury with: augury up")
        return
    database = Database(url)
    try:
        version = schema_version(database)
        yield from _database_server(database)
    finally:
        database.close()
    if version < len(MIGRATIONS):
        yield _advice(
            "database",
            f"schema version {version}, this Augury has {len(MIGRATIONS)}",
            "any process of Augury brings it up to date when it starts",
        )
    if settings.database_url.startswith("sqlite") and settings.redis_url:
        yield _advice(
            "database",
            "SQLite with a bus of its own address: all processes must be on this one host",
            "set AUGURY_DATABASE_URL to PostgreSQL before you add another host",
        )


def _database_server(database: Any) -> Iterator[Finding]:
    with database.read() as connection:
        if database.is_sqlite:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
            version = connection.exec_driver_sql("SELECT sqlite_version()").scalar()
            yield _ok("database", f"SQLite {version}, journal {mode}")
            return
        number = int(connection.exec_driver_sql("SHOW server_version_num").scalar())
        synchronous = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
    if number < _LEAST_POSTGRES:
        yield _problem("database", f"PostgreSQL {number // 10_000}", "use PostgreSQL 12 or newer")
    elif synchronous == "off":
        yield _problem(
            "database", "synchronous_commit is off: a crash loses runs", "set synchronous_commit=on"
        )
    else:
        yield _ok("database", f"PostgreSQL {number // 10_000}")


def _bus(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    from augury.bus.redis_bus import RedisBus

    facts = yield from _redis("bus", settings.effective_redis_url, settings)
    if facts is None:
        return
    bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)
    try:
        durability = bus.durability()
    finally:
        bus.close()
    if not durability.ok:
        yield _problem("bus", "what is accepted may be lost by a crash", durability.advice)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        limit = "a memory limit" if facts.get("maxmemory") else "a limit set later"
        yield _problem(
            "bus",
            f"maxmemory-policy is {policy}: under {limit} the server evicts events",
            "set maxmemory-policy noeviction",
        )


def _broker(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    if not settings.broker_url:
        yield _ok("broker", "the bus's server is the broker")
    elif settings.broker_url.startswith(("redis://", "rediss://", "unix://")):
        yield from _redis("broker", settings.broker_url, settings)
    else:
        yield _advice(
            "broker",
            f"{settings.broker_url.partition('://')[0]} is not looked at",
            "see that the broker keeps messages over a restart; a lost one only costs a delay",
        )


def _redis(subject: str, url: str, settings: Settings) -> Generator[Finding, None, Any]:
    """Looks at a server; returns the facts it tells about itself, None if it does not answer."""
    import redis

    client = redis.Redis.from_url(url, socket_timeout=3.0, socket_connect_timeout=3.0)
    try:
        facts: Any = client.info()
    except redis.RedisError as error:
        yield _unreachable(subject, url, settings, error)
        return None
    finally:
        client.close()
    name = facts.get("server_name", "redis")
    text = str(facts.get("valkey_version") or facts["redis_version"])
    version = tuple(int(part) for part in text.split(".")[:2])
    if version < _LEAST_REDIS:
        yield _problem(subject, f"{name} {text}", "use Redis 7 or newer, or Valkey")
    else:
        yield _ok(subject, f"{name} {text}")
    return facts


def _unreachable(subject: str, url: str, settings: Settings, error: Exception) -> Finding:
    if settings.embedded_redis and url == settings.effective_redis_url:
        home = settings.absolute_home
        return _advice(subject, f"Augury is not up in {home}", "start it with: augury up")
    shown = url.rpartition("@")[2]
    return _problem(subject, f"{shown} does not answer: {error}", "see that it runs, and its URL")


def _store(settings: Settings, _celery: Celery) -> Iterator[Finding]:
    from augury.storage.objects import open_store

    url = settings.effective_store_url
    next(iter(open_store(url, settings).list()), None)
    yield _ok("store", f"{url} can be listed")


# --- Celery ---------------------------------------------------------------------------------------

_SAFE: dict[str, tuple[object, str]] = {
    "task_acks_late": (True, "a message that dies with its worker is lost"),
    "task_reject_on_worker_lost": (True, "a message that dies with its worker is lost"),
    "worker_prefetch_multiplier": (1, "a busy worker holds back what idle ones could do"),
    "task_serializer": ("json", "messages could carry code"),
    "task_ignore_result": (True, "results pile up in the broker"),
    "worker_pool": ("solo", "forking after OpenMP threads have started hangs"),
}


def _celery(_settings: Settings, celery: Celery) -> Iterator[Finding]:
    if celery is None:
        return
    unsafe = 0
    for name, (safe, why) in _SAFE.items():
        found = celery.get(name)
        if found != safe:
            unsafe += 1
            yield _problem("celery", f"{name} is {found!r}: {why}", f"set {name} to {safe!r}")
    accepted = set(celery.get("accept_content") or ())
    if accepted - {"json", "application/json"}:
        unsafe += 1
        others = ", ".join(sorted(accepted - {"json", "application/json"}))
        yield _problem("celery", f"accepts {others}: messages could carry code", "accept only json")
    if not unsafe:
        yield _ok("celery", "settings are safe")


CHECKS: dict[str, Check] = {
    "settings": _settings,
    "home": _home,
    "versions": _versions,
    "database": _database,
    "bus": _bus,
    "broker": _broker,
    "store": _store,
    "celery": _celery,
}
