"""A run's log on its way into the ledger: a few chunks a second, and all of it at the end.

Lines wait at most `FLUSH_S` before they are written, so that is what the death of a worker can
cost. A database that does not answer makes lines wait; when too many wait, the program does.
"""

from __future__ import annotations

from augury import clock
from augury.errors import LostLeaseError, UnavailableError
from augury.jobs import output_log
from augury.jobs.spec import LogSettings
from augury.jobs.work import WorkItem
from augury.scripts.lines import Line, LineCutter, LogLimiter
from augury.storage.database import Database

FLUSH_S = 0.25
_FLUSH_CHARS = 512 * 2**10
_MOST_WAITING_CHARS = 8 * 2**20


class Logbook:
    """The log of one attempt. For one thread.

    Args:
        database: the ledger.
        item: the run's work item, held by this worker.
        settings: what is kept.
    """

    def __init__(self, database: Database, item: WorkItem, settings: LogSettings) -> None:
        self._database = database
        self._item = item
        self._cutters = {name: LineCutter(name) for name in ("stdout", "stderr")}
        self._limiter = LogLimiter(settings)
        self._waiting: list[Line] = []
        self._waiting_chars = 0
        self._flushed_s = clock.monotonic_s()
        self._is_lost = False

    def take(self, stream: str, data: bytes) -> None:
        """What the program has written to one of its streams."""
        at, now_s = clock.utc_now(), clock.monotonic_s()
        for line in self._cutters[stream].feed(data, at):
            self._keep(line, now_s)

    def is_full(self) -> bool:
        """True if no more lines should come before the database takes some."""
        return self._waiting_chars >= _MOST_WAITING_CHARS

    def flush_if_due(self) -> None:
        """Writes what waits, if it has waited long enough or is much."""
        waited_s = clock.monotonic_s() - self._flushed_s
        if waited_s >= FLUSH_S or (self._waiting_chars >= _FLUSH_CHARS and not self.is_full()):
            self._flush()

    def close(self) -> None:
        """Writes what is left.

        Raises:
            UnavailableError: the database does not answer; call it again.
        """
        at, now_s = clock.utc_now(), clock.monotonic_s()
        for cutter in self._cutters.values():
            for line in cutter.close(at):
                self._keep(line, now_s)
        for line in self._limiter.close(at):
            self._add(line)
        self._cutters.clear()
        self._write()

    def _keep(self, line: Line, now_s: float) -> None:
        for admitted in self._limiter.admit(line, now_s):
            self._add(admitted)

    def _add(self, line: Line) -> None:
        self._waiting.append(line)
        self._waiting_chars += len(line.text)

    def _flush(self) -> None:
        self._flushed_s = clock.monotonic_s()
        try:
            self._write()
        except UnavailableError:
            return  # the lines wait

    def _write(self) -> None:
        """One chunk. Nobody may write the log of a run that is somebody else's by now."""
        if not self._waiting:
            return
        if not self._is_lost:
            lines = [(line.at, line.stream, line.text) for line in self._waiting]
            try:
                self._database.transact(
                    lambda connection: output_log.append(connection, self._item, lines)
                )
            except LostLeaseError:
                self._is_lost = True
        self._waiting, self._waiting_chars = [], 0
