"""The dispatcher: from the ledger to the outside.

One thread owns the ledger's side: in one transaction it reports what has ended and claims what is
due, target by target, as much as each target's circuit lets through. Other threads do nothing but
deliver. So a target that is dead or slow holds its own few threads and nothing else.

Any number of dispatchers may run. Each proves that it lives by a heartbeat, as workers do; the
sweeper takes from one that is lost what it held, and what wakes up late is fenced off. Killed at
any point, a dispatcher leaves effects that are delivered again under the same id: at least once.
Circuits are each dispatcher's own: what they know is cheap to learn again.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from augury import clock
from augury.actions import effects
from augury.actions.circuit import Circuit
from augury.actions.delivery import Delivery
from augury.actions.effects import Effect
from augury.actions.failures import DeliveryError
from augury.errors import UnavailableError
from augury.jobs import workers
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
_LONGEST_BACKOFF_S = 2.0
_STOPPED = "the dispatcher had to stop before an answer came"
# circuits of targets that nobody has asked for are forgotten beyond this
_MOST_CIRCUITS = 10_000

type Attempt = Callable[[Effect], DeliveryError | None]
type Result = tuple[Effect, DeliveryError | None]


class Dispatcher:
    """One dispatcher; `run` is its life, `step` one turn of it.

    Args:
        database: the ledger.
        settings: how many deliveries at once, and which networks may be reached.
        attempt: delivers one effect; None: for real.
    """

    def __init__(
        self, database: Database, settings: Settings, *, attempt: Attempt | None = None
    ) -> None:
        self.id = f"dispatcher@{socket.gethostname()}"[:50] + f":{secrets.token_hex(4)}"
        self._database = database
        self._settings = settings
        self._attempt = attempt or Delivery(settings).attempt
        self._threads = ThreadPoolExecutor(settings.dispatch_threads, "deliver")
        self._ended: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._unreported: list[Result] = []
        self._in_flight: dict[str, Effect] = {}
        self._circuits: dict[str, Circuit] = {}
        self._errors: dict[str, str] = {}
        self._is_doubtful = False

    # --- its life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes itself known.

        Raises:
            UnavailableError: the database does not answer.
        """
        self._database.transact(
            lambda connection: workers.register(
                connection,
                self.id,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                queues=[effects.DISPATCHED],
                cpus=0,
            )
        )

    def run(self, stop: threading.Event) -> None:
        """Delivers until `stop` is set; what has begun may end within `drain_s`."""
        done = threading.Event()
        pulse = threading.Thread(target=self._beat, args=(done,), name="pulse", daemon=True)
        pulse.start()
        failures = 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
                self._wait(self._settings.dispatch_s)
            except UnavailableError as error:
                failures += 1
                _log.warning("dispatcher waits: %s", error, extra={"action": "dispatcher_waits"})
                clock.sleep_s(min(_LONGEST_BACKOFF_S, 0.1 * 2 ** min(failures, 6)), until=stop)
        self.stop()
        done.set()
        pulse.join()

    def step(self) -> int:
        """One turn: reports what has ended, claims what is due, and hands it to threads.

        Returns:
            Number of effects reported and begun.

        Raises:
            UnavailableError: the database did not answer; the next turn goes on.
        """
        self._collect()
        wanted = self._wanted()
        if not (self._unreported or wanted or self._is_doubtful):
            return 0
        try:
            claimed = self._database.transact(lambda connection: self._turn(connection, wanted))
        except UnavailableError:
            self._is_doubtful = True  # it may have been committed, and claimed something
            raise
        self._is_doubtful = False
        reported, self._unreported = len(self._unreported), []
        for effect in claimed:
            self._begin(effect)
        return reported + len(claimed)

    def stop(self) -> None:
        """Waits for what has begun, `drain_s` seconds at most; what has not ended has failed."""
        deadline_s = clock.monotonic_s() + self._settings.drain_s
        while self._in_flight and (left_s := deadline_s - clock.monotonic_s()) > 0:
            self._wait(min(left_s, 0.5))
            self._collect()
        self._threads.shutdown(wait=False, cancel_futures=True)
        try:
            self._database.transact(self._farewell)
        except UnavailableError as error:
            _log.warning(
                "the sweeper will notice: %s", error, extra={"action": "dispatcher_unheard"}
            )

    def _farewell(self, connection: sa.Connection) -> None:
        cut_off = [(effect, DeliveryError(_STOPPED)) for effect in self._in_flight.values()]
        effects.report(connection, [*self._unreported, *cut_off])
        effects.release(connection, self.id)
        workers.stop(connection, self.id)

    def _beat(self, done: threading.Event) -> None:
        while not clock.sleep_s(self._settings.heartbeat_s, until=done):
            try:
                self._database.transact(lambda connection: workers.beat(connection, self.id))
            except UnavailableError as error:
                _log.info("no heartbeat: %s", error, extra={"action": "heartbeat_failed"})

    # --- one turn ---------------------------------------------------------------------------------

    def _wait(self, longest_s: float) -> None:
        """Returns when something has ended, or after `longest_s`."""
        try:
            self._end(self._ended.get(timeout=longest_s))
        except queue.Empty:
            return

    def _collect(self) -> None:
        while True:
            try:
                self._end(self._ended.get_nowait())
            except queue.Empty:
                return

    def _end(self, result: Result) -> None:
        effect, error = result
        self._unreported.append(result)
        self._in_flight.pop(effect.id, None)
        circuit = self._circuit(effect.target)
        if error is None or error.is_permanent:
            circuit.succeed()
        else:
            circuit.fail(clock.monotonic_s(), error.retry_after_s)
            self._errors[effect.target] = error.message
        if error is not None:
            _log.warning(
                "%s to %s failed: %s",
                effect.kind,
                effect.target,
                error.message,
                extra={"action": "delivery_failed", "effect": effect.id},
            )

    def _wanted(self) -> list[tuple[str, int]]:
        """Targets for which something is due, and how much of it may begin now."""
        with self._database.read() as connection:
            targets = effects.due_targets(connection)
        now_s, now = clock.monotonic_s(), clock.utc_now()
        room = self._settings.dispatch_threads - len(self._in_flight)
        wanted = []
        for target, expires_at in targets.items():
            circuit = self._circuit(target)
            count = min(room, circuit.free(now_s, self._settings.dispatch_concurrency))
            if count > 0 or (circuit.is_open and expires_at <= now):
                wanted.append((target, count))
                room -= count
        return wanted

    def _turn(self, connection: sa.Connection, wanted: Sequence[tuple[str, int]]) -> list[Effect]:
        effects.report(connection, self._unreported)
        if self._is_doubtful:
            effects.release(connection, self.id, keep=self._in_flight)
        claimed: list[Effect] = []
        for target, count in sorted(wanted):
            if self._circuit(target).is_open:
                why = self._errors.get(target, "")
                effects.give_up_expired(self._database, connection, target, why=why)
            if count:
                claimed += effects.claim(self._database, connection, self.id, target, count)
        return claimed

    def _begin(self, effect: Effect) -> None:
        self._in_flight[effect.id] = effect
        self._circuit(effect.target).begin()
        self._threads.submit(self._deliver, effect)

    def _deliver(self, effect: Effect) -> None:
        self._ended.put((effect, self._attempt(effect)))

    def _circuit(self, target: str) -> Circuit:
        if target not in self._circuits and len(self._circuits) >= _MOST_CIRCUITS:
            busy = {name: held for name, held in self._circuits.items() if held.in_flight}
            self._circuits, self._errors = busy, {}
        return self._circuits.setdefault(target, Circuit())
