"""Waking Celery workers, over whatever broker kombu speaks. Imports kombu, not Celery."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from augury.errors import UnavailableError
from augury.execution.messages import transport_options, wake_message
from augury.settings import Settings

if TYPE_CHECKING:
    import kombu

_CONNECT_S = 5.0


class CeleryExecutor:
    """Sends wake-ups to Celery's queues; see `Executor`.

    One connection, made when first used (and again after a fork or an error), used by one thread at
    a time.

    Args:
        settings: say where the broker is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: kombu.Connection | None = None
        self._producer: Any = None
        self._pid = 0

    def wake(self, queue: str, count: int = 1) -> None:
        """See `Executor.wake`."""

        def send() -> None:
            for _ in range(count):
                body, headers, properties = wake_message(queue)
                self._producer.publish(
                    body,
                    exchange="",
                    routing_key=queue,
                    serializer="json",
                    headers=headers,
                    delivery_mode=1,
                    **properties,
                )

        self._connected(send)

    def depth(self, queue: str) -> int:
        """See `Executor.depth`."""
        return self._connected(lambda: self._messages(queue))

    def _messages(self, queue: str) -> int:
        # declared as workers declare it: kombu cannot look (passively) at keys with a prefix
        declared = self._producer.channel.queue_declare(
            queue=queue, durable=True, exclusive=False, auto_delete=False
        )
        return int(declared.message_count)

    def close(self) -> None:
        """See `Executor.close`."""
        with self._lock:
            self._disconnect()

    def _connected[T](self, do: Callable[[], T]) -> T:
        """Runs it on the connection; a second time on a new one if the old one was broken."""
        with self._lock:
            was_open = self._connect()
            try:
                return do()
            except self._errors() as error:
                self._disconnect()
                if not was_open:
                    raise self._unavailable(error) from error
            self._connect()
            try:
                return do()
            except self._errors() as error:
                self._disconnect()
                raise self._unavailable(error) from error

    def _connect(self) -> bool:
        """True if there was a connection already."""
        import kombu

        if self._connection is not None and self._pid == os.getpid():
            return True
        self._pid = os.getpid()
        connection = kombu.Connection(
            self._settings.effective_broker_url,
            transport_options=transport_options(self._settings),
            connect_timeout=_CONNECT_S,
        )
        self._connection = connection
        try:
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_S)
            self._producer = kombu.Producer(connection.channel())
        except self._errors() as error:
            self._disconnect()
            raise self._unavailable(error) from error
        return False

    def _errors(self) -> tuple[type[Exception], ...]:
        from kombu.exceptions import OperationalError

        assert self._connection is not None  # only asked while there is one
        found = (*self._connection.connection_errors, *self._connection.channel_errors)
        return (*found, OperationalError, OSError)

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None and self._pid == os.getpid():
            try:
                connection.release()
            except (OSError, RuntimeError):  # it was broken: nothing to be closed in order
                return

    def _unavailable(self, error: Exception) -> UnavailableError:
        shown = self._settings.effective_broker_url.rpartition("@")[2]
        return UnavailableError(f"broker {shown} did not answer: {error}")
