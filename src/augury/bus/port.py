"""The bus as the rest of Augury sees it: durable, at least once, in order.

An event on its way is a *delivery*: the event's bytes, an entry id that the stream gave, an attempt
number, and the incarnation of the bus that gave it. Entry ids are unique only within one
incarnation: a bus that lost its data starts a new one, and says so by that id. Whoever reads a
delivery acknowledges it after what follows from it is committed elsewhere; until then the bus
keeps it and, after some silence, gives it to somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One event on its way.

    Attributes:
        incarnation: the life of the bus in which the entry was written.
        entry_id: the stream's id, `<milliseconds>-<sequence>`; unique within the incarnation.
        body: the event as JSON, exactly as it was published.
        attempt: how often the entry has been handed out, from 1; 0 if it was only looked at.
    """

    incarnation: str
    entry_id: str
    body: bytes
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Durability:
    """Whether what `publish` accepted survives a crash of the bus.

    Attributes:
        ok: True if accepted means on disk.
        advice: what an operator should change; empty if there is nothing to change.
    """

    ok: bool
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class BusStatus:
    """How far the router is behind.

    Attributes:
        length: entries in the stream.
        pending: entries handed out and not acknowledged.
        lag: entries that were never handed out.
        oldest_age_s: seconds since the oldest of those was published, by the bus's own clock;
            0.0 if there are none.
        num_added: entries ever appended in this life of the stream, by the server's own count;
            those since trimmed or deleted are in it.
    """

    length: int
    pending: int
    lag: int
    oldest_age_s: float
    num_added: int = 0


class Bus(Protocol):
    """A durable stream of events with one group of readers.

    Every method raises `UnavailableError` when the bus cannot be reached.
    """

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        """Appends events and returns their entry ids, in order, once they are durable.

        All or none are appended. Not idempotent: after an error the entries may be in the stream,
        and publishing again makes duplicates, which the ledger suppresses by (source, id).
        """
        ...

    def read(self, consumer: str, *, count: int, block_s: float) -> list[Delivery]:
        """Up to `count` deliveries nobody had yet, oldest first; waits up to `block_s` for one."""
        ...

    def claim_stale(
        self, consumer: str, *, idle_s: float, count: int
    ) -> tuple[list[Delivery], list[str]]:
        """Takes over what others were given `idle_s` or more ago and have not acknowledged.

        An entry that was handed out suspiciously often comes alone, so that one that kills its
        reader takes no other down with it.

        Returns:
            Up to `count` deliveries, oldest first; and the ids of entries that somebody deleted
            before they were acknowledged. Those stay pending until they are acknowledged too, so
            a crash before the loss is recorded does not hide it.
        """
        ...

    def ack(self, entry_ids: Sequence[str]) -> None:
        """Says that these need no further delivery; unknown ids are ignored."""
        ...

    def trim(self) -> int:
        """Drops what every group has acknowledged; returns the number of entries dropped."""
        ...

    def incarnation(self) -> str | None:
        """The bus's present life; None if it holds no stream (never used, or wiped)."""
        ...

    def durability(self) -> Durability:
        """What *accepted* means on this server, looked at again every few seconds."""
        ...

    def status(self) -> BusStatus:
        """How far the router is behind, now."""
        ...

    def entries(self, after_id: str, count: int) -> list[Delivery]:
        """Up to `count` entries after `after_id` (exclusive; "" for all), without taking them."""
        ...

    def unsettled(self, entry_ids: Sequence[str]) -> set[str]:
        """Those of `entry_ids` that the group was not given yet, or has not acknowledged."""
        ...

    def watermark(self, due_at: datetime | None = None) -> str:
        """The entry id that the group has passed for good.

        Every entry with a smaller id is acknowledged, and none will ever be appended.

        Args:
            due_at: an instant that somebody waits for, by the bus's clock. If it is over and
                nothing is left to acknowledge, the stream is moved on to the present, so that
                time passes where nothing happens, and does not come back even if the clock does.
        """
        ...

    def retire(self, consumer: str) -> None:
        """Forgets a consumer that holds nothing; one that does keeps its deliveries."""
        ...

    def close(self) -> None:
        """Closes the connections of this process."""
        ...
