"""The bus on Redis Streams: Redis 7 or newer, or Valkey.

*Accepted* means on disk. Each publish is one script (all entries or none) followed, on the same
connection and in the same round trip, by WAITAOF, which answers once the append-only file holds
what this connection wrote; with `appendfsync always` that costs nothing. Servers without WAITAOF
(before 7.2) give the same promise only with `appendfsync always`; `durability` says which it is.

Nothing is retried in here: after a broken connection nobody knows whether the script ran, and only
the caller knows whether it may run again.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from augury import clock, ids
from augury.bus import scripts
from augury.bus.port import BusStatus, Delivery, Durability
from augury.errors import UnavailableError

_CONNECT_S = 5.0
_ANSWER_S = 15.0
_FSYNC_S = 5.0
_DURABILITY_S = 5.0
# from this many deliveries on, an entry is handed out alone: it may be what kills its readers
_SUSPICIOUS_DELIVERIES = 3
_FORGET_CONSUMER_S = 3600.0
_WAITAOF_SINCE = (7, 2)


def _milliseconds(duration_s: float) -> int:
    return max(1, round(duration_s * 1000))


class RedisBus:
    """One stream, `{namespace}:events`, and one group of readers on it.

    Connections are made when first used, and again after a fork. Safe to share among threads.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        namespace: prefix of all keys.
        group: name of the consumer group.
    """

    def __init__(self, url: str, *, namespace: str, group: str = "router") -> None:
        self._url = url
        self._group = group
        self._stream = f"{namespace}:events"
        self._keys = (self._stream, f"{namespace}:incarnation")
        # Any: half of the client's methods are not typed
        self._redis: Any = redis.Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_CONNECT_S,
        )
        self._waits: bool | None = None  # does the server know WAITAOF? None: not asked yet
        self._durability: tuple[float, Durability] | None = None

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        """Appends all events or none; see `Bus.publish`."""
        if not bodies:
            return []
        with self._errors():
            waits = self._server_waits()
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.eval(scripts.PUBLISH, 2, *self._keys, ids.new_id("bus"), *bodies)
            if waits:
                pipeline.execute_command("WAITAOF", 1, 0, _milliseconds(_FSYNC_S))
            answers = pipeline.execute(raise_on_error=False)
        return self._durable_ids(answers)

    def _durable_ids(self, answers: list[Any]) -> list[str]:
        entry_ids, *waited = answers
        if isinstance(entry_ids, redis.RedisError):
            # a script error is an answer: nothing was appended (out of memory, read-only replica)
            raise UnavailableError(f"bus {self._shown_url} refused the events: {entry_ids}")
        # an error instead of counts: the append-only file is off, and `durability` says so
        if waited and isinstance(waited[0], list) and waited[0][0] < 1:
            raise UnavailableError(
                f"bus {self._shown_url} did not confirm within {_FSYNC_S} s that the events are on "
                "disk; publish them again, duplicates are recognised"
            )
        return [entry_id.decode() for entry_id in entry_ids]

    def read(self, consumer: str, *, count: int, block_s: float) -> list[Delivery]:
        """New deliveries; makes the group if there is none. See `Bus.read`."""
        block = ("BLOCK", _milliseconds(min(block_s, _ANSWER_S / 2))) if block_s > 0 else ()
        command = ("XREADGROUP", "GROUP", self._group, consumer, "COUNT", count, *block)
        with self._errors():
            answer = self._in_group(
                lambda: self._redis.execute_command(*command, "STREAMS", self._stream, ">")
            )
        return [_delivery(entry_id, fields) for entry_id, fields in _entries(answer)]

    def claim_stale(
        self, consumer: str, *, idle_s: float, count: int
    ) -> tuple[list[Delivery], list[str]]:
        """What other readers left lying; see `Bus.claim_stale`."""
        idle_ms = round(idle_s * 1000)
        arguments = (self._group, consumer, idle_ms, count, _SUSPICIOUS_DELIVERIES)
        with self._errors():
            claimed, missing = self._in_group(lambda: self._script(scripts.CLAIM, *arguments))
        deliveries = [_delivery(entry_id, _pairs(flat), tries) for entry_id, flat, tries in claimed]
        return deliveries, [entry_id.decode() for entry_id in missing]

    def ack(self, entry_ids: Sequence[str]) -> None:
        """Acknowledges; see `Bus.ack`."""
        if entry_ids:
            with self._errors():
                self._redis.execute_command("XACK", self._stream, self._group, *entry_ids)

    def trim(self) -> int:
        """Drops what is no longer needed, and readers silent for an hour; see `Bus.trim`."""
        with self._errors():
            return int(self._script(scripts.TRIM, _milliseconds(_FORGET_CONSUMER_S)))

    def incarnation(self) -> str | None:
        """The present life of the bus, or None."""
        with self._errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.get(self._keys[1])
            pipeline.exists(self._stream)
            incarnation, exists = pipeline.execute()
        return incarnation.decode() if incarnation is not None and exists else None

    def durability(self) -> Durability:
        """What *accepted* means here; at most 5 s old."""
        now = clock.monotonic_s()
        if self._durability is None or now - self._durability[0] > _DURABILITY_S:
            with self._errors():
                self._durability = (now, self._look_at_durability())
        return self._durability[1]

    def status(self) -> BusStatus:
        """How far the router is behind, in one atomic look."""
        with self._errors():
            found = self._script(scripts.STATUS, self._group)
        length, pending, lag, oldest, now_ms, num_added = found
        age_s = max(0.0, (now_ms - int(oldest.split(b"-")[0])) / 1000) if oldest else 0.0
        return BusStatus(
            length=length, pending=pending, lag=lag, oldest_age_s=age_s, num_added=num_added
        )

    def entries(self, after_id: str, count: int) -> list[Delivery]:
        """Looks without taking; see `Bus.entries`."""
        start = f"({after_id}" if after_id not in {"", "0"} else "-"
        with self._errors():
            found = self._redis.execute_command("XRANGE", self._stream, start, "+", "COUNT", count)
        return [_delivery(entry_id, fields, 0) for entry_id, fields in found or ()]

    def unsettled(self, entry_ids: Sequence[str]) -> set[str]:
        """Those of `entry_ids` that still need a delivery; see `Bus.unsettled`."""
        if not entry_ids:
            return set()
        with self._errors():
            found = self._script(scripts.UNSETTLED, self._group, *entry_ids)
        return {entry_id.decode() for entry_id in found}

    def watermark(self, due_at: datetime | None = None) -> str:
        """What the group has passed for good; see `Bus.watermark`."""
        due_ms = "" if due_at is None else str(math.ceil(due_at.timestamp() * 1000))
        with self._errors():
            entry_id: bytes = self._script(scripts.WATERMARK, self._group, due_ms)
        return entry_id.decode()

    def retire(self, consumer: str) -> None:
        """Forgets a reader that holds nothing; see `Bus.retire`."""
        with self._errors():
            self._in_group(lambda: self._script(scripts.RETIRE, self._group, consumer))

    def close(self) -> None:
        """Closes all connections."""
        self._redis.close()

    def _script(self, script: str, *arguments: str | int) -> Any:
        return self._redis.eval(script, 2, *self._keys, *arguments)

    def _in_group[T](self, command: Callable[[], T]) -> T:
        """Runs a command that needs the group; a stream that lost it gets it anew, from 0."""
        try:
            return command()
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        self._script(scripts.JOIN, ids.new_id("bus"), self._group)
        return command()

    def _server_waits(self) -> bool:
        if self._waits is None:
            self._waits = _version(self._redis.info("server")) >= _WAITAOF_SINCE
        return self._waits

    def _look_at_durability(self) -> Durability:
        memory = self._redis.info("memory")
        persistence = self._redis.info("persistence")
        advice = []
        if not persistence.get("aof_enabled"):
            advice.append("set 'appendonly yes' and 'appendfsync always'")
        elif not (self._server_waits() or self._config("appendfsync") == "always"):
            advice.append("set 'appendfsync always' (or use a server from version 7.2 on)")
        if memory.get("maxmemory") and "allkeys" in memory.get("maxmemory_policy", ""):
            advice.append("set 'maxmemory-policy noeviction': the server may evict the stream")
        return Durability(ok=not advice, advice="; ".join(advice))

    def _config(self, name: str) -> str | None:
        try:
            values = self._redis.config_get(name)
        except redis.ResponseError:  # managed services forbid CONFIG: then nothing is promised
            return None
        return str(values.get(name))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the client's errors into ours, and forgets what was known about the server."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._waits = None
            self._durability = None
            raise UnavailableError(f"bus {self._shown_url} did not answer: {error}") from error

    @property
    def _shown_url(self) -> str:
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


def consumer_name() -> str:
    """A name for a reader that no other reader has or had."""
    return f"{socket.gethostname()}-{ids.new_id('r')}"


def _version(info: Any) -> tuple[int, ...]:
    text = str(info.get("redis_version", "0"))  # Valkey tells here what it is compatible with
    if info.get("server_name") == "valkey":
        text = str(info.get("valkey_version", text))
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """XREADGROUP's answer without the stream's name; entries deleted meanwhile have no fields."""
    return [(entry_id, fields) for _, found in answer or () for entry_id, fields in found if fields]


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _delivery(entry_id: bytes, fields: dict[bytes, bytes], attempt: int = 1) -> Delivery:
    return Delivery(
        incarnation=fields.get(b"i", b"").decode("utf-8", "replace")[:64],
        entry_id=entry_id.decode(),
        body=fields.get(b"e", b""),
        attempt=attempt,
    )
