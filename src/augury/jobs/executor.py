"""Who is told that there is work: the port between the ledger and whatever runs workers.

A wake-up carries no work. The ledger knows what has to run; a worker that is woken claims the next
item that is ready in that queue. So a lost wake-up costs a delay (the sweeper sends another), and a
doubled one costs a look that finds nothing.
"""

from __future__ import annotations

from typing import Protocol


class Executor(Protocol):
    """Wakes workers. Safe to share among threads; connects when first used.

    Every method raises `UnavailableError` when the broker cannot be reached.
    """

    def wake(self, queue: str, count: int = 1) -> None:
        """Tells up to `count` workers of `queue` that something is ready there; never waits."""
        ...

    def depth(self, queue: str) -> int:
        """Wake-ups of `queue` that no worker has taken yet."""
        ...

    def close(self) -> None:
        """Closes the connections of this process."""
        ...
