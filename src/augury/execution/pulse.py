"""A worker's heartbeat, in a process of its own.

A thread of the worker would stand still whenever native code or a long unpickling keeps Python's
lock, and a worker that computes would be taken for dead. So a tiny child moves the counter: it
imports nothing but a database driver, holds one connection, and needs some 12 MB and no time. Its
end follows from the worker's: its standard input is a pipe that only the worker holds open, and a
worker that is stopped (SIGSTOP, a debugger) is not alive either, so then the child pauses too.

This file is both: `Pulse` for the worker, and the child's program, which runs this file by its path
and therefore must not import anything of Augury.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

_SLOWEST_S = 5.0
_UPDATE = "UPDATE workers SET heartbeat = heartbeat + 1, stopped_at = NULL WHERE id = {}"
_FROZEN = frozenset("tTXZ")


class Pulse:
    """The beating of one worker.

    Args:
        database_url: SQLAlchemy URL of the ledger.
        worker_id: whose counter to move; it must be registered.
        every_s: seconds between two beats.
    """

    def __init__(self, database_url: str, worker_id: str, every_s: float) -> None:
        self._address = _address(database_url)
        self._order = {
            "database": self._address,
            "worker_id": worker_id,
            "every_s": every_s,
            "parent": os.getpid(),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Beats from now on; call it again to start a child anew that has died."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        command = [sys.executable, "-I", *self._without_site(), __file__]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._order).encode() + b"\n")
        self._process = process

    def _without_site(self) -> list[str]:
        """SQLite's driver is Python's own: no need to look for packages."""
        return ["-S"] if self._address.startswith("/") else []

    @property
    def pid(self) -> int | None:
        """Process id of the child."""
        return self._process.pid if self._process is not None else None

    def stop(self) -> None:
        """Stops beating; returns when no further beat can come. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_SLOWEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(database_url: str) -> str:
    """An absolute path for SQLite, a libpq URI for PostgreSQL."""
    import sqlalchemy as sa

    url = sa.make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").absolute())
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


# --- the child ------------------------------------------------------------------------------------


def _beat_sqlite(path: str, worker_id: str) -> Any:
    import sqlite3

    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    # a heartbeat that a crash of the machine forgets is no loss: no need to wait for the disk
    connection.execute("PRAGMA synchronous=NORMAL")
    return lambda: connection.execute(_UPDATE.format("?"), (worker_id,))


def _beat_postgres(address: str, worker_id: str) -> Any:
    import psycopg

    connection = psycopg.connect(address, autocommit=True, connect_timeout=5)
    statement = _UPDATE.format("%s").encode()
    return lambda: connection.execute(statement, (worker_id,))


def _is_frozen(parent: int) -> bool:
    """True if the worker exists and does nothing, so far as the system tells."""
    try:
        text = Path(f"/proc/{parent}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] in _FROZEN


def main() -> None:
    """Beats until the worker closes the pipe, by its will or by its death."""
    order = json.loads(sys.stdin.buffer.readline())
    connect = _beat_sqlite if order["database"].startswith("/") else _beat_postgres
    beat = None
    while True:
        if not _is_frozen(order["parent"]):
            try:
                beat = beat or connect(order["database"], order["worker_id"])
                beat()
            except Exception:  # whatever ails the database: the next beat tries anew
                beat = None
        ready, _, _ = select.select([sys.stdin], [], [], order["every_s"])
        if ready:
            return


if __name__ == "__main__":
    main()
