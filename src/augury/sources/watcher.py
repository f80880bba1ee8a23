"""One object watcher: hears of changes, lists as a safety net, and announces what is complete.

Everything it knows besides the ledger's rows is a cache, and may be lost. What it has announced (or
found announced) it need not look up again while listing; what is incomplete it looks at again when
news of it come, when its quiet time is over, and at every listing.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path

from augury import clock
from augury.bus import relay
from augury.bus.port import Bus
from augury.errors import AuguryError, InvalidError, NotFoundError, UnavailableError
from augury.resources.store import Resource
from augury.settings import Settings
from augury.sources import announce
from augury.sources.complete import appears_whole, has_footer, is_parquet
from augury.sources.folder import FolderNews
from augury.sources.keys import is_announced
from augury.sources.spec import SourceSpec
from augury.storage.database import Database
from augury.storage.objects import ObjectInfo, checked_key, open_store, split_url

_log = logging.getLogger(__name__)
_BATCH = 200
_LISTED_AT_ONCE = 1000
_LONGEST_WAIT_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_TELL_AFTER_S = 1.0
_WARN_AFTER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """An incomplete object.

    Attributes:
        info: as last seen; None if only its record is known.
        since_s: monotonic time at which it was first seen like this.
        first_s: monotonic time at which it was first seen at all.
        told: True once it is on record as incomplete.
        warned: True once it was said that it takes long.
    """

    info: ObjectInfo | None
    since_s: float
    first_s: float
    told: bool = False
    warned: bool = False


class ObjectWatcher:
    """Watches the objects of one source at one version.

    Args:
        database: the ledger.
        bus: told at once of what is announced.
        settings: how often to list, how long to wait, how S3 is reached.
        source: what to watch.
    """

    def __init__(self, database: Database, bus: Bus, settings: Settings, source: Resource) -> None:
        self.source = source
        self._database = database
        self._bus = bus
        self._settings = settings
        self._spec = SourceSpec.model_validate(source.spec)
        watch = self._spec.watch
        assert watch is not None  # the runner asks only those that list
        self._watch = watch
        self._store = open_store(watch.uri, settings)
        self._whole = appears_whole(self._store)
        self._list_s = watch.list_s or settings.list_s
        self._news: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
        self._folder: FolderNews | None = None
        self._known: set[bytes] = set()
        self._left_out: set[str] = set()
        self._pending: dict[str, _Pending] | None = None
        self._list_at_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Watches until `stop` is set; outlives any outage."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    self.step(_LONGEST_WAIT_S)
                    failures = 0
                except AuguryError as error:
                    failures += 1
                    self._wait_out(error, failures, stop)
        finally:
            self.close()

    def _wait_out(self, error: AuguryError, failures: int, stop: threading.Event) -> None:
        pause_s = min(_LONGEST_BACKOFF_S, 0.5 * 2 ** min(failures, 10))
        _log.warning(
            "source %s waits %.0f s: %s",
            self.source.name,
            pause_s,
            error,
            extra={"action": "source_waits", "source_id": self.source.id},
        )
        clock.sleep_s(pause_s, until=stop)

    def step(self, wait_s: float = 0.0) -> int:
        """Listens for at most `wait_s`, then announces what is new; lists if it is time.

        Returns:
            Number of events emitted.

        Raises:
            UnavailableError: store or database did not answer; the next step begins with a
                listing.
            NotFoundError: the bucket does not exist.
        """
        self._listen()
        now_s = clock.monotonic_s()
        if now_s >= self._list_at_s:
            self._list_at_s = 0.0  # in case it fails
            emitted = self.reconcile()
            self._list_at_s = clock.monotonic_s() + self._list_s
            return emitted
        changed = self._changed(min(wait_s, self._list_at_s - now_s, self._next_due_s()))
        try:
            return self._announce([*self._heads(changed), *self._due()])
        except AuguryError:
            self._list_at_s = 0.0  # the news are used up
            raise

    def close(self) -> None:
        """Stops listening."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    # --- what there is ----------------------------------------------------------------------------

    def reconcile(self) -> int:
        """Lists everything and announces what is not announced yet.

        Returns:
            Number of events emitted.
        """
        pending = self._all_pending()
        seen: set[bytes] = set()
        unseen = set(pending)
        emitted = 0
        for listed in batched(self._store.list(), _LISTED_AT_ONCE, strict=False):
            marks = {info.key: _mark(info) for info in listed}
            seen.update(marks.values())
            unseen.difference_update(marks)
            strange = [info for info in listed if marks[info.key] not in self._known]
            emitted += self._announce(self._unknown(strange))
            emitted += self._announce(self._heads(self._changed(0.0)))
        self._known &= seen
        self._drop(unseen)
        return emitted

    def _unknown(self, found: list[ObjectInfo]) -> list[ObjectInfo]:
        """Those that are for us to announce and are not; the others need no second look."""
        left = announce.unknown(
            self._database,
            self.source.id,
            self._spec,
            [info for info in found if self._is_ours(info.key)],
        )
        self._know(set(found) - set(left))
        return left

    def _is_ours(self, key: str) -> bool:
        watch = self._watch
        if not is_announced(key, include=watch.include, exclude=watch.exclude):
            return False
        try:
            checked_key(key)
        except InvalidError as error:
            self._leave_out(key, error)
            return False
        return True

    def _leave_out(self, key: str, error: InvalidError) -> None:
        if key not in self._left_out:
            self._left_out.add(key)
            _log.warning("left out: %s", error, extra={"action": "object_left_out"})

    def _know(self, found: Iterable[ObjectInfo]) -> None:
        if not self._spec.is_told:  # else notifications change what is on record, too
            self._known.update(map(_mark, found))

    # --- what changed -----------------------------------------------------------------------------

    def _listen(self) -> None:
        """Keeps listening for news, where there are any."""
        if not self._watch.listens:
            return
        scheme, path = split_url(self._store.url)
        if scheme != "file" or (self._folder is not None and self._folder.is_current()):
            return
        self.close()
        self._folder = FolderNews(Path(path), self._news)
        self._list_at_s = 0.0  # what came before nobody told us

    def _changed(self, wait_s: float) -> set[str]:
        """Keys of which there is news; waits for some."""
        changed: set[str] = set()
        with suppress(queue.Empty):
            changed |= self._news.get(timeout=wait_s) if wait_s > 0 else self._news.get_nowait()
            while True:
                changed |= self._news.get_nowait()
        return changed

    def _heads(self, keys: Iterable[str]) -> Iterator[ObjectInfo]:
        for key in sorted(keys):
            if not self._is_ours(key):
                continue
            try:
                yield self._store.head(key)
            except NotFoundError:
                # gone; or a folder that was moved here with all that is in it
                yield from (info for info in self._store.list(key) if self._is_ours(info.key))

    # --- what is incomplete -----------------------------------------------------------------------

    def _all_pending(self) -> dict[str, _Pending]:
        """What is incomplete, those included that an earlier process had on record."""
        if self._pending is None:
            now_s = clock.monotonic_s()
            keys = announce.pending_keys(self._database, self.source.id)
            self._pending = {
                key: _Pending(info=None, since_s=now_s, first_s=now_s, told=True) for key in keys
            }
        return self._pending

    def _next_due_s(self) -> float:
        """Seconds until an incomplete object is worth another look without news of it."""
        if self._whole or not self._pending:
            return _LONGEST_WAIT_S
        now_s = clock.monotonic_s()
        return max(0.0, min(self._due_at_s(key, p) for key, p in self._pending.items()) - now_s)

    def _due_at_s(self, key: str, pending: _Pending) -> float:
        if pending.info is None:
            return float("inf")  # the listing knows
        if not is_parquet(key):
            return pending.since_s + self._settings.quiet_s
        return float("inf") if pending.told else pending.first_s + _TELL_AFTER_S

    def _due(self) -> Iterator[ObjectInfo]:
        now_s = clock.monotonic_s()
        due = [k for k, p in self._all_pending().items() if self._due_at_s(k, p) <= now_s]
        for key in due:
            try:
                yield self._store.head(key)
            except NotFoundError:
                self._drop([key])

    def _is_complete(self, info: ObjectInfo) -> bool:
        if self._whole:
            return True
        if is_parquet(info.key):
            return has_footer(self._store, info)
        quiet_s = self._settings.quiet_s
        if (clock.utc_now() - info.modified_at).total_seconds() >= quiet_s:
            return True
        pending = self._all_pending().get(info.key)
        if pending is None or pending.info != info:
            return False
        return clock.monotonic_s() - pending.since_s >= quiet_s

    def _hold(self, found: Iterable[ObjectInfo]) -> None:
        """Remembers incomplete objects; those that stay so are put on record."""
        held = self._all_pending()
        now_s = clock.monotonic_s()
        tell = []
        for info in found:
            before = held.get(info.key) or _Pending(info=info, since_s=now_s, first_s=now_s)
            since_s = before.since_s if before.info == info else now_s
            pending = replace(before, info=info, since_s=since_s)
            if not pending.told and now_s - pending.first_s >= _TELL_AFTER_S:
                tell.append(info)
                pending = replace(pending, told=True)
            held[info.key] = self._warned(pending, now_s)
        announce.record_pending(self._database, self.source.id, tell)

    def _warned(self, pending: _Pending, now_s: float) -> _Pending:
        if pending.warned or pending.info is None or now_s - pending.first_s < _WARN_AFTER_S:
            return pending
        _log.warning(
            "%s is incomplete for %.0f s: expected a readable file that ends in a Parquet footer",
            pending.info.uri,
            now_s - pending.first_s,
            extra={"action": "object_incomplete", "source_id": self.source.id},
        )
        return replace(pending, warned=True)

    def _drop(self, keys: Iterable[str]) -> None:
        """Incomplete objects that are gone."""
        held = self._all_pending()
        gone = [key for key in keys if key in held]
        announce.forget_pending(self._database, self.source.id, [k for k in gone if held[k].told])
        for key in gone:
            del held[key]

    # --- telling ----------------------------------------------------------------------------------

    def _announce(self, found: Iterable[ObjectInfo]) -> int:
        emitted = 0
        for batch in batched(found, _BATCH, strict=False):
            latest = {info.key: info for info in batch}.values()
            complete = [info for info in latest if self._is_complete(info)]
            emitted += announce.announce(self._database, self.source, self._spec, complete)
            self._settle(complete)
            self._hold(info for info in latest if info not in complete)
            self._flush()
        return emitted

    def _settle(self, complete: list[ObjectInfo]) -> None:
        self._know(complete)
        for info in complete:
            self._all_pending().pop(info.key, None)

    def _flush(self) -> None:
        """For latency only: what is in the outbox the relay sends anyway."""
        try:
            relay.flush(self._database, self._bus, resend_s=self._settings.resend_s)
        except UnavailableError as error:
            _log.warning(
                "announced, but not on the bus yet: %s", error, extra={"action": "source_unsent"}
            )


def _mark(info: ObjectInfo) -> bytes:
    """Stands for an identity in memory: 16 bytes, however long the key."""
    return hashlib.blake2b(info.identity.encode(), digest_size=16).digest()
