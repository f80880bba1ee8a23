"""A bounded queue between two threads that either of them may end.

`queue.Queue` cannot tell a waiting thread that the other side is gone (before Python 3.13), and a
pipeline whose middle fails must not leave its ends waiting for ever. Here the sender `close`s, with
an error if that is why, and the receiver `leave`s; both wake whoever waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition

WAIT_S = 0.1


class LeftError(Exception):
    """The receiver has left: nobody wants what is being sent. Only ever seen by the pipeline."""


class Channel[T]:
    """From one thread to another, in order, with back pressure.

    Args:
        size: items that may wait before `send` blocks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._closed = False
        self._left = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def send(self, item: T, check: Callable[[], None] = lambda: None) -> None:
        """Sends; waits for room, calling `check` every `WAIT_S` meanwhile (it may raise).

        Raises:
            LeftError: the receiver left without an error.
            BaseException: the error with which the receiver left.
        """
        while not self._try_send(item):
            check()

    def _try_send(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._left or len(self._items) < self._size, WAIT_S)
            if self._left:
                raise self._error or LeftError
            if len(self._items) >= self._size:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def receive(self, check: Callable[[], None] = lambda: None) -> Iterator[T]:
        """What is sent, in order, until the sender closes; calls `check` while waiting.

        Raises:
            BaseException: the error with which the sender closed, after the items before it.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._closed, WAIT_S)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._closed:
                    if self._error is not None:
                        raise self._error
                    return
                else:
                    item = None
            if item is not None:
                yield item
            else:
                check()

    def close(self, error: BaseException | None = None) -> None:
        """The sender sends no more. Closing again changes nothing."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, self._error or error
            self._changed.notify_all()

    def leave(self, error: BaseException | None = None) -> None:
        """The receiver takes no more; what waits is dropped. Leaving again changes nothing."""
        with self._changed:
            if not self._left:
                self._left, self._error = True, self._error or error
            self._items.clear()
            self._changed.notify_all()

    def raise_if_left(self) -> None:
        """Raises the error with which the receiver left, if it did."""
        with self._changed:
            if self._left and self._error is not None:
                raise self._error
