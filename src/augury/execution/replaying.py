"""Carrying replays on, a little at each sweep: live work must not wait for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from augury import clock
from augury.errors import AuguryError, UnavailableError
from augury.jobs.executor import Executor
from augury.routing.history import History
from augury.routing.replay import Replay, carry_on, note_error, running_replays
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
# of one sweep; the rest of it belongs to leases and wake-ups
_BUDGET_S = 0.3


class Replaying:
    """Carries on whatever replay is not done. Any number may run: each step happens once.

    Args:
        database: the ledger.
        executor: whom to wake when runs were accepted.
        settings: for access to the archive.
    """

    def __init__(self, database: Database, executor: Executor, settings: Settings) -> None:
        self._database = database
        self._executor = executor
        self._history = History(database, settings)

    def sweep(self) -> None:
        """Takes steps of all running replays in turn until the budget is spent; at least one each.

        Raises:
            UnavailableError: the database did not answer.
        """
        with self._database.read() as connection:
            running = running_replays(connection)
        until_s = clock.monotonic_s() + _BUDGET_S
        while running:
            running = [replay for replay in running if self._step(replay)]
            if clock.monotonic_s() >= until_s:
                return
            with self._database.read() as connection:
                left = {replay.id for replay in running}
                running = [each for each in running_replays(connection) if each.id in left]

    def _step(self, replay: Replay) -> bool:
        """One page; False if there is no use in another one now."""
        try:
            started = carry_on(self._database, self._history, replay)
        except UnavailableError:
            raise
        except AuguryError as error:
            message = str(error)
            self._database.transact(lambda c: note_error(c, replay.id, message))
            fields = {"action": "replay_waits", "replay_id": replay.id}
            _log.warning("replay waits: %s", error, extra=fields)
            return False
        self._wake(started or {})
        return started is not None

    def _wake(self, started: Mapping[str, int]) -> None:
        for queue, count in sorted(started.items()):
            try:
                self._executor.wake(queue, count)
            except UnavailableError as error:
                _log.info("woken by a later sweep: %s", error, extra={"action": "wake_failed"})
