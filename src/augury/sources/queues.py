"""Consumes a queue of another broker (RabbitMQ, Redis, SQS: whatever kombu speaks) into the bus.

At least once: a message is acknowledged after everything that it says is durable, so a crash in
between delivers it again, and then it is known (see `messages` for the ids, `intake` for
notifications). What can never be an event goes to the dead letters first. At most `prefetch`
messages are held; they are settled together, because a commit costs the same for many.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from augury import clock
from augury.bus import relay
from augury.bus.port import Bus
from augury.bus.refused import Refused, bury_messages
from augury.errors import AuguryError, InvalidError, UnavailableError
from augury.resources.store import Resource
from augury.settings import Settings, secret
from augury.sources.intake import take
from augury.sources.messages import Message, Read, read_message
from augury.sources.spec import SourceSpec
from augury.storage.database import Database

_log = logging.getLogger(__name__)
DEFAULT_PREFETCH = 100
_WAIT_S = 0.5
_GATHER_S = 0.02
_HEARTBEAT_S = 30
_CONNECT_S = 5
_FIRST_BACKOFF_S = 0.25
_LONGEST_BACKOFF_S = 30.0
_ATTEMPTS_ALONE = 3


class QueueConsumer:
    """Consumes one queue. Any number of processes may consume the same one.

    Args:
        database: the ledger.
        bus: where what is no notification goes.
        settings: largest event.
        source: of kind queue.
    """

    def __init__(self, database: Database, bus: Bus, settings: Settings, source: Resource) -> None:
        self.source = source
        self._database = database
        self._bus = bus
        self._settings = settings
        self._spec = SourceSpec.model_validate(source.spec)
        self._held: list[Any] = []
        self._connection: Any = None

    def run(self, stop: threading.Event) -> None:
        """Consumes until `stop` is set; outlives any outage of broker, bus and database."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    self.step(_WAIT_S)
                    failures = 0
                except AuguryError as error:
                    failures += 1
                    self.close()
                    self._wait_out(error, failures, stop)
        finally:
            self.close()

    def _wait_out(self, error: AuguryError, failures: int, stop: threading.Event) -> None:
        pause_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10))
        _log.warning(
            "source %s waits %.1f s: %s",
            self.source.name,
            pause_s,
            error,
            extra={"action": "source_waits", "source_id": self.source.id},
        )
        clock.sleep_s(pause_s, until=stop)

    def step(self, wait_s: float = 0.0) -> int:
        """Takes what the queue has, at most `prefetch` messages, and settles it.

        Args:
            wait_s: how long to wait for a first message.

        Returns:
            Number of messages acknowledged.

        Raises:
            UnavailableError: broker, bus or database did not answer, or the queue does not exist;
                what was not acknowledged is delivered again.
        """
        try:
            self._drain(wait_s)
            messages, self._held = self._held, []
            self._settle(messages)
        except _broker_errors(self._connection) as error:
            raise UnavailableError(f"queue {self._spec.queue!r}: {error}") from error
        return len(messages)

    def close(self) -> None:
        """Lets go of the broker; what is held and not acknowledged is delivered again."""
        connection, self._connection, self._held = self._connection, None, []
        if connection is not None:
            with suppress(Exception):  # it may be broken already, in whatever way
                connection.close()

    # --- the broker -------------------------------------------------------------------------------

    def _drain(self, wait_s: float) -> None:
        if self._connection is None:
            self._connect()
        if self._connection.supports_heartbeats:
            self._connection.heartbeat_check()
        prefetch = self._spec.prefetch or DEFAULT_PREFETCH
        timeout_s = max(wait_s, 0.001)
        with suppress(TimeoutError):
            while len(self._held) < prefetch:
                self._connection.drain_events(timeout=timeout_s)
                timeout_s = _GATHER_S

    def _connect(self) -> None:
        from kombu import Connection, Consumer, Queue

        connection = Connection(self._url(), connect_timeout=_CONNECT_S, heartbeat=_HEARTBEAT_S)
        self._connection = connection
        connection.connect()
        consumer = Consumer(
            connection.channel(),
            queues=[Queue(self._spec.queue, no_declare=True)],
            on_message=self._held_back,
            auto_declare=False,
            prefetch_count=self._spec.prefetch or DEFAULT_PREFETCH,
        )
        consumer.on_decode_error = lambda message, _error: self._held_back(message)
        consumer.consume()
        _log.info(
            "source %s consumes queue %s",
            self.source.name,
            self._spec.queue,
            extra={"action": "queue_consumed", "source_id": self.source.id},
        )

    def _held_back(self, message: Any) -> None:
        self._held.append(message)

    def _url(self) -> str:
        if self._spec.url is not None:
            return self._spec.url
        found = secret(self._spec.url_secret or "")
        if not found:
            raise UnavailableError(
                f"source {self.source.name} needs AUGURY_SECRET_{self._spec.url_secret} in the "
                "environment of `augury sources`"
            )
        return found

    # --- settling ---------------------------------------------------------------------------------

    def _settle(self, messages: Sequence[Any]) -> None:
        if not messages:
            return
        read: list[Read] = []
        refused: list[Refused] = []
        for message in messages:
            try:
                read.append(self._read(_message(message)))
            except InvalidError as error:
                refused.append(self._refused(_message(message), str(error)))
        if refused:
            self._bury(refused)
        self._keep(messages, read)
        for message in messages:
            message.ack()

    def _read(self, message: Message) -> Read:
        return read_message(
            message,
            source=self.source.name,
            provider=self._spec.provider,
            max_bytes=self._settings.max_event_bytes,
        )

    def _keep(self, messages: Sequence[Any], read: Sequence[Read]) -> None:
        """Makes durable what messages say; one that no database can hold is buried alone."""
        try:
            self._store(read)
        except UnavailableError:
            raise
        except Exception as error:  # whatever it is, it must not stop the other messages
            if len(messages) > 1:
                for message in messages:
                    self._keep_alone(message)
                return
            self._insist(messages[0], read, error)

    def _keep_alone(self, message: Any) -> None:
        with suppress(InvalidError):  # those were buried before
            self._keep([message], [self._read(_message(message))])

    def _insist(self, message: Any, read: Sequence[Read], error: Exception) -> None:
        for _ in range(1, _ATTEMPTS_ALONE):
            try:
                self._store(read)
            except UnavailableError:
                raise
            except Exception as again:
                error = again
            else:
                return
        reason = f"taking it failed {_ATTEMPTS_ALONE} times: {type(error).__name__}: {error}"
        self._bury([self._refused(_message(message), reason)])

    def _store(self, read: Sequence[Read]) -> None:
        notices = [notice for each in read for notice in each.notices]
        events = [event for each in read for event in each.events]
        if notices:
            take(self._database, self.source, self._spec, notices)
        if events:
            self._bus.publish([event.to_json() for event in events])
        if notices:
            self._flush()

    def _flush(self) -> None:
        """For latency only: what is in the outbox the relay sends anyway."""
        try:
            relay.flush(self._database, self._bus, resend_s=self._settings.resend_s)
        except UnavailableError as error:
            _log.warning("taken, but not on the bus yet: %s", error, extra={"action": "unsent"})

    def _refused(self, message: Message, reason: str) -> Refused:
        return Refused(origin=self.source.id, key=message.key, body=message.body, reason=reason)

    def _bury(self, refused: Sequence[Refused]) -> None:
        bury_messages(self._database, refused)
        for each in refused:
            _log.error(
                "message of source %s became a dead letter: %s",
                self.source.name,
                each.reason,
                extra={"action": "dead_letter", "source_id": self.source.id},
            )


def _message(message: Any) -> Message:
    body = message.body
    message_id = message.properties.get("message_id")
    return Message(
        body=body.encode() if isinstance(body, str) else bytes(body),
        content_type=str(message.content_type or ""),
        headers=message.headers or {},
        message_id=str(message_id) if message_id else None,
    )


def _broker_errors(connection: Any) -> tuple[type[BaseException], ...]:
    """What a broker's library raises when the broker does not answer, or refuses."""
    from kombu.exceptions import KombuError

    found: tuple[type[BaseException], ...] = (OSError, KombuError)
    if connection is not None:
        found += tuple(connection.connection_errors) + tuple(connection.channel_errors)
    return found
