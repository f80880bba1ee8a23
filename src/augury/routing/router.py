"""The router: from the stream into the ledger.

One step takes a batch of deliveries, lets the active rules decide (pure), writes everything in one
transaction (`commit.py`), and only then acknowledges, wakes workers and sends what the transaction
put into the outbox. Between two batches it lets the grouper look at what it has appended to groups
(`grouper.py`). Dying between any two of these costs nothing but time: what is not committed
is delivered again, what is committed is known and only acknowledged, work waits in the database
for the sweeper, events in the outbox for the relay.

Two kinds of failure are told apart. If the database or the bus does not answer, nothing is wrong
with the events: the router keeps its batch and tries again for ever. Any other error is something
about one of the events: the batch is divided until that one is alone, and after five attempts it
becomes a dead letter, while its neighbours are routed. A ruleset that cannot be loaded is the
first kind, for no event is to blame.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace

from augury import clock, ids
from augury.bus import relay
from augury.bus.port import Bus, Delivery
from augury.errors import UnavailableError
from augury.jobs.executor import Executor
from augury.routing.arrivals import Arrival, Unreadable, read_deliveries
from augury.routing.commit import Routed, RulesetMovedError, commit_batch
from augury.routing.dead_letters import Burial, bury
from augury.routing.decisions import ActiveRules
from augury.routing.grouper import Grouper
from augury.routing.incidents import note_incarnation, note_missing
from augury.routing.waking import wake
from augury.rules.ruleset import active_version, load_ruleset
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
_READ_S = 0.5
_TIDY_S = 2.0
_ATTEMPTS_ALONE = 5
_ATTEMPT_PAUSE_S = 0.02
_RELOADS = 20
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 2.0
# handed out this often, alone since the third time, and never acknowledged: it kills its reader
_LETHAL_DELIVERIES = 25


class Router:
    """One router; any number may work on one stream.

    Args:
        database: the ledger.
        bus: what to route from.
        executor: whom to wake when runs were accepted.
        settings: batch size and patience.
        consumer: this router's name in the group; must be no other's. None: a new one.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        executor: Executor,
        settings: Settings,
        *,
        consumer: str | None = None,
    ) -> None:
        self.consumer = consumer or f"{socket.gethostname()}-{ids.new_id('router')}"
        self._database = database
        self._bus = bus
        self._executor = executor
        self._settings = settings
        self._rules: ActiveRules | None = None
        self._incarnation: str | None = None
        self._held: list[Delivery] = []  # taken, but not yet settled when something was down
        self._next_claim_s = 0.0
        self._next_tidy_s = 0.0
        self._grouper = Grouper(database, bus, executor, settings)

    def run(self, stop: threading.Event) -> None:
        """Routes until `stop` is set; the batch in hand is finished first."""
        failures = 0
        while not stop.is_set():
            try:
                self.step(0.0 if self._grouper.has_more else _READ_S)
                self._grouper.step()
                self._tidy_when_due()
                failures = 0
            except UnavailableError as error:
                failures += 1
                _log.warning("router waits: %s", error, extra={"action": "router_waits"})
                pause_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2**failures)
                clock.sleep_s(pause_s, until=stop)
        self._retire()

    def step(self, block_s: float = 0.0) -> int:
        """Takes one batch, new or left behind by a dead router, and settles it.

        Args:
            block_s: seconds to wait for a first delivery.

        Returns:
            Number of deliveries settled: routed, known already, or buried.

        Raises:
            UnavailableError: the bus or the database did not answer; the next step goes on with
                the same batch.
        """
        if not self._held:
            self._held = self._take(block_s)
        settled = len(self._held)
        if settled:
            self._settle(self._held)
            self._held = []
        return settled

    def tidy(self) -> None:
        """Notes a lost bus even if nothing arrives, and trims what every group has routed."""
        self._incarnation = note_incarnation(self._database, self._bus)
        self._bus.trim()

    def _tidy_when_due(self) -> None:
        if clock.monotonic_s() >= self._next_tidy_s:
            self._next_tidy_s = clock.monotonic_s() + _TIDY_S
            self.tidy()

    def _retire(self) -> None:
        try:
            self._bus.retire(self.consumer)
        except UnavailableError:
            _log.info("bus gone before the router", extra={"action": "router_stopped"})

    # --- taking -----------------------------------------------------------------------------------

    def _take(self, block_s: float) -> list[Delivery]:
        if clock.monotonic_s() >= self._next_claim_s:
            claimed = self._claim()
            if claimed:  # there may be more: ask again before reading
                return claimed
            self._next_claim_s = clock.monotonic_s() + self._settings.router_claim_idle_s / 2
        count = self._settings.router_batch
        return self._bus.read(self.consumer, count=count, block_s=block_s)

    def _claim(self) -> list[Delivery]:
        claimed, missing = self._bus.claim_stale(
            self.consumer,
            idle_s=self._settings.router_claim_idle_s,
            count=self._settings.router_batch,
        )
        if missing:
            incarnation = note_incarnation(self._database, self._bus) or ""
            note_missing(self._database, incarnation, missing)
            self._bus.ack(missing)
        return claimed

    # --- settling ---------------------------------------------------------------------------------

    def _settle(self, deliveries: Sequence[Delivery]) -> None:
        if any(delivery.incarnation != self._incarnation for delivery in deliveries):
            self._incarnation = note_incarnation(self._database, self._bus)
        arrivals, unreadable = read_deliveries(deliveries)
        if unreadable:
            self._bury([_unreadable(item) for item in unreadable])
        if len(arrivals) == 1 and arrivals[0].delivery.attempt >= _LETHAL_DELIVERIES:
            attempt = arrivals[0].delivery.attempt
            self._bury([_burial(arrivals[0], f"handed out {attempt} times, never acknowledged")])
        elif arrivals:
            self._route(arrivals)

    def _route(self, arrivals: Sequence[Arrival]) -> None:
        try:
            routed = self._commit(arrivals)
        except UnavailableError:
            raise
        except Exception as error:  # whatever it is, it must not stop the other events
            self._divide(arrivals, error)
        else:
            self._follow_up(arrivals, routed)

    def _divide(self, arrivals: Sequence[Arrival], error: Exception) -> None:
        if len(arrivals) == 1:
            self._insist(arrivals[0], error)
            return
        _log.warning(
            "routing %d events failed, dividing them: %r",
            len(arrivals),
            error,
            extra={"action": "router_divides"},
        )
        middle = len(arrivals) // 2
        self._route(arrivals[:middle])
        self._route(arrivals[middle:])

    def _insist(self, arrival: Arrival, error: Exception) -> None:
        """Tries one event alone until it is routed or has failed five times in all."""
        for attempt in range(1, _ATTEMPTS_ALONE):
            clock.sleep_s(_ATTEMPT_PAUSE_S * attempt)
            try:
                routed = self._commit([arrival])
            except UnavailableError:
                raise
            except Exception as again:
                error = again
            else:
                self._follow_up([arrival], routed)
                return
        reason = f"routing failed: {type(error).__name__}: {error}"
        self._bury([_burial(arrival, reason, attempts=_ATTEMPTS_ALONE)])

    def _bury(self, burials: Sequence[Burial]) -> None:
        bury(self._database, burials)
        self._bus.ack([burial.delivery.entry_id for burial in burials])

    def _commit(self, arrivals: Sequence[Arrival]) -> Routed:
        """Decides and writes; decides again as long as the rules move in between."""
        for _ in range(_RELOADS):
            rules = self._rules or self._load_rules()
            decisions = rules.decide(arrivals)
            try:
                return self._database.transact(
                    lambda connection: commit_batch(
                        self._database,
                        connection,
                        decisions,  # noqa: B023 - used before the next turn
                        rules.version,  # noqa: B023
                    )
                )
            except RulesetMovedError:
                self._rules = None
        raise UnavailableError(f"the rules changed {_RELOADS} times while one batch was decided")

    def _load_rules(self) -> ActiveRules:
        try:
            with self._database.read() as connection:
                rules = ActiveRules(load_ruleset(connection, active_version(connection)))
        except UnavailableError:
            raise
        except Exception as error:
            raise UnavailableError(f"the rules cannot be loaded: {error!r}") from error
        self._rules = rules
        return rules

    # --- after the commit: every one of these may fail or never happen ----------------------------

    def _follow_up(self, arrivals: Sequence[Arrival], routed: Routed) -> None:
        wake(self._executor, routed.started)
        if routed.reused:
            bury(self._database, [_reused(arrival) for arrival in routed.reused])
        self._bus.ack([arrival.delivery.entry_id for arrival in arrivals])
        if routed.started:
            relay.flush(self._database, self._bus, resend_s=self._settings.resend_s)
        if routed.num_known:
            _log.info(
                "%d deliveries were routed before",
                routed.num_known,
                extra={"action": "known_deliveries"},
            )


def _unreadable(item: Unreadable) -> Burial:
    return Burial(delivery=item.delivery, reason=item.reason)


def _burial(arrival: Arrival, reason: str, attempts: int = 0) -> Burial:
    return Burial(
        delivery=arrival.delivery, reason=reason, attempts=attempts, event_key=arrival.key
    )


def _reused(arrival: Arrival) -> Burial:
    """The ledger has another event under this entry id; so this one gets a life of its own."""
    life = f"{arrival.delivery.incarnation[:40]}~{arrival.content_digest[:20]}"
    return Burial(
        delivery=replace(arrival.delivery, incarnation=life),
        reason="the bus gave the id of an entry that was routed before to this other event",
    )
