"""What a worker does about effects of kind `call`: claims one, calls its function, reports.

The database knows what has to be called, a wake-up only says that there is something. A function
runs in a thread, so that the worker can turn to something else when it takes too long or the worker
has to stop. Python cannot end a thread: a function that is late goes on while the attempt counts as
failed, which is one more reason why it must be harmless to call it twice.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from augury import clock
from augury.actions import effects, functions
from augury.actions.effects import Effect
from augury.actions.failures import DeliveryError
from augury.actions.functions import FunctionCall
from augury.errors import (
    AuguryError,
    ConflictError,
    CorruptError,
    InvalidError,
    LimitError,
    NotFoundError,
)
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
_PERMANENT = (ConflictError, CorruptError, InvalidError, LimitError, NotFoundError)
_LOOK_S = 0.1


class Calls:
    """One worker's calls; for the worker's thread.

    Args:
        database: the ledger.
        worker_id: the worker's.
        settings: say where functions are registered.
        out_of_time: True if the worker must let go now.
    """

    def __init__(
        self,
        database: Database,
        worker_id: str,
        settings: Settings,
        *,
        out_of_time: Callable[[], bool],
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._settings = settings
        self._out_of_time = out_of_time
        self._unreported: list[tuple[Effect, DeliveryError | None]] = []
        self._last_target = ""

    def is_due(self) -> bool:
        """Whether there is anything to call now."""
        with self._database.read() as connection:
            return effects.count_due_calls(connection, limit=1) > 0

    def call_next(self) -> bool:
        """Calls what is due next, each function in its turn; False if nothing is.

        Raises:
            UnavailableError: the database did not answer; `recover` before anything else.
        """
        effect = self._claim()
        if effect is None:
            return False
        self._unreported.append((effect, self._attempt(effect)))
        self._report()
        return True

    def recover(self) -> None:
        """Reports what could not be reported, and gives back what the ledger thinks is held.

        Raises:
            UnavailableError: the database does not answer.
        """
        self._report()
        with self._database.read() as connection:
            is_holding = effects.is_holding(connection, self._worker_id)
        if is_holding:
            self._database.transact(lambda connection: effects.release(connection, self._worker_id))

    def _claim(self) -> Effect | None:
        with self._database.read() as connection:
            targets = sorted(effects.due_targets(connection, calls=True))
        if not targets:
            return None
        target = next((name for name in targets if name > self._last_target), targets[0])
        self._last_target = target
        claimed = self._database.transact(
            lambda connection: effects.claim(self._database, connection, self._worker_id, target, 1)
        )
        return claimed[0] if claimed else None

    def _report(self) -> None:
        if self._unreported:
            self._database.transact(lambda connection: effects.report(connection, self._unreported))
            self._unreported = []

    def _attempt(self, effect: Effect) -> DeliveryError | None:
        ended: queue.SimpleQueue[DeliveryError | None] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: ended.put(self._call(effect)), name=effect.target, daemon=True
        ).start()
        timeout_s = effect.request["timeout_s"]
        deadline_s = clock.monotonic_s() + timeout_s
        while True:
            try:
                return ended.get(timeout=_LOOK_S)
            except queue.Empty:
                if self._out_of_time():
                    return DeliveryError("the worker had to stop before the function ended")
                if clock.monotonic_s() > deadline_s:
                    return DeliveryError(f"not ended within {timeout_s:g} s; it may be running")

    def _call(self, effect: Effect) -> DeliveryError | None:
        call = FunctionCall(
            id=effect.id,
            event=effect.request["event"],
            arguments=effect.request["arguments"],
            attempt=effect.attempts,
            rule_id=effect.rule_id,
            action=effect.action,
        )
        try:
            functions.find(effect.request["function"], self._settings.functions)(call)
        except _PERMANENT as error:
            return DeliveryError(error.message, is_permanent=True)
        except Exception as error:
            _log.exception("function failed", extra={"action": "call_failed", "effect": effect.id})
            text = error.message if isinstance(error, AuguryError) else repr(error)
            return DeliveryError(text)
        return None
