"""One SQL database, two dialects, one way to write.

Every writing transaction goes through `Database.transact`: it is BEGIN IMMEDIATE on SQLite (so two
writers queue instead of failing half-way), it is short, and it is retried as a whole when the
database says "busy", "deadlock" or "serialization failure"; so the function passed in must have no
effect outside the connection it is given. Reading goes through `Database.read`.

Engines are made after fork, by whoever needs one: nothing here is shared between processes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from augury import clock
from augury.errors import UnavailableError

_BUSY_TIMEOUT_S = 10.0
_ATTEMPTS = 12
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
# serialization failure, deadlock, lock not available, and a unique key that somebody else just took
_RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03", "23505"})
_REMOTE_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"})


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC timestamp: TIMESTAMPTZ on PostgreSQL, fixed-width RFC 3339 text on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Text on SQLite, which has no timestamps."""
        kind = sa.String(27) if dialect.name == "sqlite" else sa.DateTime(timezone=True)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Refuses naive timestamps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive timestamp; use augury.clock")
        return clock.iso(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Always aware, always UTC."""
        if value is None:
            return None
        return clock.parse(value) if isinstance(value, str) else value.astimezone(UTC)


def _is_transient(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    text = str(error.orig)
    return state in _RETRIED_SQLSTATES or "locked" in text or "busy" in text


def _is_outage(error: DBAPIError) -> bool:
    """True if another time may go better; false if this very statement is at fault."""
    too_large = str(getattr(error.orig, "sqlstate", "")).startswith("54")  # of an index row, say
    return error.connection_invalidated or (isinstance(error, OperationalError) and not too_large)


class Database:
    """Connections to the ledger's database.

    Args:
        url: SQLAlchemy URL; `sqlite:///path` or `postgresql+psycopg://...`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.dialect = sa.make_url(url).get_backend_name()
        self._engine = _sqlite_engine(url) if self.dialect == "sqlite" else _postgres_engine(url)

    @property
    def is_sqlite(self) -> bool:
        """True for SQLite, whose writers take turns."""
        return self.dialect == "sqlite"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading; one consistent snapshot on both dialects."""
        try:
            with self._engine.connect() as connection:
                begin = "BEGIN" if self.is_sqlite else _SNAPSHOT
                connection.exec_driver_sql(begin)
                yield connection
        except OperationalError as error:
            raise UnavailableError(
                f"database {self._shown_url} did not answer: {error.orig}"
            ) from error

    def transact[T](self, work: Callable[[sa.Connection], T]) -> T:
        """Runs `work` in one writing transaction, all or nothing; retried whole when busy.

        Raises:
            UnavailableError: the database cannot be reached, or stayed busy.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(work)
            except DBAPIError as error:
                # a unique key that is still taken on the last attempt is no race, it is a fault
                last = attempt == _ATTEMPTS - 1 and isinstance(error, IntegrityError)
                if last or not _is_transient(error):
                    if _is_outage(error):
                        raise UnavailableError(
                            f"database {self._shown_url} did not answer: {error.orig}"
                        ) from error
                    raise
                clock.sleep_s(random.uniform(0.002, 0.02) * (attempt + 1))
        raise UnavailableError(f"database {self._shown_url} stayed busy for {_ATTEMPTS} attempts")

    def _once[T](self, work: Callable[[sa.Connection], T]) -> T:
        with self._engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                value = work(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return value

    def insert(self, table: sa.Table) -> Any:
        """The dialect's own INSERT, which knows `on_conflict_do_nothing` and `..._do_update`."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def insert_new(
        self,
        connection: sa.Connection,
        table: sa.Table,
        rows: Sequence[dict[str, Any]],
        *returning: sa.Column[Any],
    ) -> list[sa.Row[Any]]:
        """Inserts rows, skipping any that meet a unique constraint; sort them to avoid deadlock.

        Returns:
            `returning` of exactly the rows that this call inserted, in no promised order.
        """
        if not rows:
            return []
        statement = self.insert(table).on_conflict_do_nothing()
        return list(connection.execute(statement.returning(*returning), rows).all())

    def lock_rows(self, select: sa.Select[Any], *, skip_locked: bool = False) -> sa.Select[Any]:
        """Adds FOR UPDATE where it exists; on SQLite the writer already holds the only lock."""
        return select if self.is_sqlite else select.with_for_update(skip_locked=skip_locked)

    def close(self) -> None:
        """Closes all connections of this process."""
        self._engine.dispose()

    @property
    def _shown_url(self) -> str:
        return sa.make_url(self.url).render_as_string(hide_password=True)


def _json_dumps(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _sqlite_engine(url: str) -> sa.Engine:
    path = sa.make_url(url).database
    if not path or path == ":memory:":
        raise UnavailableError("SQLite needs a file: several processes share the ledger")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _refuse_network_file_system(Path(path))
    engine = sa.create_engine(
        url,
        json_serializer=_json_dumps,
        json_deserializer=json.loads,
        connect_args={
            "timeout": _BUSY_TIMEOUT_S,
            "check_same_thread": False,
            "isolation_level": None,
        },
        pool_size=8,
        max_overflow=32,
    )
    sa.event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _postgres_engine(url: str) -> sa.Engine:
    return sa.create_engine(
        url,
        json_serializer=_json_dumps,
        json_deserializer=json.loads,
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=32,
        connect_args={"connect_timeout": 5},
    )


def _refuse_network_file_system(path: Path) -> None:
    """SQLite's WAL needs shared memory, which network file systems do not give."""
    import psutil

    mounts = sorted(psutil.disk_partitions(all=True), key=lambda mount: -len(mount.mountpoint))
    home = str(path.parent.resolve())
    for mount in mounts:
        if home == mount.mountpoint or home.startswith(mount.mountpoint.rstrip("/") + "/"):
            if mount.fstype in _REMOTE_FILE_SYSTEMS:
                raise UnavailableError(
                    f"{home} is on a network file system ({mount.fstype}), on which SQLite loses "
                    "data; choose a local AUGURY_HOME or set AUGURY_DATABASE_URL to PostgreSQL"
                )
            return
