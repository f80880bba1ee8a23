"""The schema's versions, applied in order by whichever process comes first.

Every process calls `migrate` when it opens the database; the lock of the writing transaction (and
an advisory lock on PostgreSQL) makes exactly one of them do the work. A migration is a function of
the connection, appended to `MIGRATIONS` and never changed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from augury.errors import ConflictError
from augury.storage.database import Database
from augury.storage.tables import meta, metadata

_ADVISORY_LOCK = 62_788_479


def _create_all(connection: sa.Connection) -> None:
    metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_create_all,)


def migrate(database: Database) -> None:
    """Brings the schema to this program's version; does nothing if it is there.

    Raises:
        ConflictError: the database was made by a newer Augury.
    """
    if schema_version(database) == len(MIGRATIONS):
        return
    database.transact(lambda connection: _apply(database, connection))


def schema_version(database: Database) -> int:
    """How many migrations the database has seen; 0 for an empty one.

    Raises:
        ConflictError: the database was made by a newer Augury.
    """
    with database.read() as connection:
        if not sa.inspect(connection).has_table(meta.name):
            return 0
        found = connection.scalar(sa.select(meta.c.value).where(meta.c.key == "schema_version"))
    version = int(found or 0)
    if version > len(MIGRATIONS):
        raise ConflictError(
            f"the database has schema version {version}, this Augury knows {len(MIGRATIONS)}; "
            "upgrade Augury"
        )
    return version


def _apply(database: Database, connection: sa.Connection) -> None:
    if not database.is_sqlite:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    done = 0
    if sa.inspect(connection).has_table(meta.name):
        done = int(
            connection.scalar(sa.select(meta.c.value).where(meta.c.key == "schema_version")) or 0
        )
    for migration in MIGRATIONS[done:]:
        migration(connection)
    connection.execute(sa.delete(meta).where(meta.c.key == "schema_version"))
    connection.execute(sa.insert(meta).values(key="schema_version", value=str(len(MIGRATIONS))))
