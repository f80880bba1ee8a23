"""Watching over one item while it is in hand.

While the worker scores, a thread looks at the ledger twice a second: has the run been canceled, has
somebody else got the item? It also reports the rows done so far. The scoring code calls `check` all
the time, which costs nothing, and raises as soon as the work is no longer wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from augury import clock
from augury.errors import LostLeaseError, UnavailableError
from augury.jobs.reports import report_progress
from augury.jobs.work import WorkItem, check_held
from augury.storage.database import Database

_log = logging.getLogger(__name__)
LOOK_S = 0.5
_PROGRESS_S = 1.0


class DrainingError(Exception):
    """The worker is asked to stop and has no more time for its item."""


class Holding:
    """One item in hand; a context manager around the work on it. Made by `Watch`.

    Args:
        database: the ledger.
        item: what is held.
        stale_s: after so many seconds without a look, `check` looks itself. A worker that was
            frozen for a while learns that way, before it does anything, that it lost its item.
        out_of_time: True if the worker must let go now.
    """

    def __init__(
        self,
        database: Database,
        item: WorkItem,
        *,
        stale_s: float,
        out_of_time: Callable[[], bool],
    ) -> None:
        self._database = database
        self._item = item
        self._stale_s = stale_s
        self._out_of_time = out_of_time
        self._lost: LostLeaseError | None = None
        self._rows_done = 0
        self._rows_told = 0
        self._told_s = self._looked_s = clock.monotonic_s()

    def on_progress(self, num_rows: int) -> None:
        """So many more rows are done; call it from one thread."""
        self._rows_done += num_rows

    def check(self) -> None:
        """Returns as long as the work is wanted.

        Raises:
            LostLeaseError: the run ends, or somebody else has the item.
            DrainingError: the worker has no more time.
        """
        if self._lost is None and clock.monotonic_s() - self._looked_s > self._stale_s:
            self.look()
        if self._lost is not None:
            raise self._lost
        if self._out_of_time():
            raise DrainingError

    def look(self) -> None:
        """Asks the ledger, and tells it of the progress.

        A database that does not answer says nothing against going on: it can lend no item either.
        """
        try:
            with suppress(UnavailableError):
                self._tell_or_look()
        except LostLeaseError as error:
            self._lost = error
        self._looked_s = clock.monotonic_s()

    def _tell_or_look(self) -> None:
        rows_done = self._rows_done
        now_s = clock.monotonic_s()
        if rows_done != self._rows_told and now_s - self._told_s >= _PROGRESS_S:
            self._database.transact(
                lambda connection: report_progress(
                    self._database, connection, self._item, rows_done
                )
            )
            self._rows_told, self._told_s = rows_done, now_s
        else:
            with self._database.read() as connection:
                check_held(connection, self._item)


class Watch:
    """The thread that looks, one for all items that a worker holds one after another.

    It never waits for the worker nor the worker for it: a look that comes too late for its item is
    fenced off like any other late report.

    Args:
        database: the ledger.
        stale_s: see `Holding`.
        out_of_time: see `Holding`.
    """

    def __init__(
        self, database: Database, *, stale_s: float, out_of_time: Callable[[], bool]
    ) -> None:
        self._database = database
        self._stale_s = stale_s
        self._out_of_time = out_of_time
        self._current: Holding | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to look, twice a second if there is something in hand."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def over(self, item: WorkItem) -> Iterator[Holding]:
        """Watches over an item for as long as the block runs."""
        holding = Holding(
            self._database, item, stale_s=self._stale_s, out_of_time=self._out_of_time
        )
        self._current = holding
        try:
            yield holding
        finally:
            self._current = None

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            holding = self._current
            if holding is None:
                continue
            try:
                holding.look()
            except Exception:  # the holder notices that nobody looked, and looks itself
                _log.exception("could not look", extra={"action": "look_failed"})
