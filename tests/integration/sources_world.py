"""A ledger, a bus, sources and schedules, and what was announced, for the tests of sources."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from augury import clock
from augury.bus.redis_bus import RedisBus
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.settings import Settings
from augury.sources.runner import Sources
from augury.sources.spec import ScheduleSpec, SourceSpec
from augury.sources.store import apply_schedule, apply_source, delete_source
from augury.sources.watcher import ObjectWatcher
from augury.storage import tables
from augury.storage.database import Database


class SourcesWorld:
    """One ledger and one bus, on which nobody routes."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)

    def source(self, uri: Path | str, name: str = "landing", **fields: Any) -> Resource:
        spec = SourceSpec(uri=str(uri), **fields)
        resource, _ = self.database.transact(lambda c: apply_source(self.database, c, name, spec))
        return resource

    def drop_source(self, name: str = "landing") -> None:
        self.database.transact(lambda c: delete_source(self.database, c, name))

    def schedule(self, name: str = "nightly", **fields: Any) -> Resource:
        spec = ScheduleSpec(**fields)
        resource, _ = self.database.transact(lambda c: apply_schedule(self.database, c, name, spec))
        return resource

    def resource(self, kind: Kind, name: str) -> Resource:
        with self.database.read() as connection:
            return store.get(connection, kind, name)

    def watcher(self, source: Resource | None = None) -> ObjectWatcher:
        source = source or self.resource(Kind.SOURCE, "landing")
        return ObjectWatcher(self.database, self.bus, self.settings, source)

    def rows(self, table: sa.Table) -> list[sa.Row[Any]]:
        with self.database.read() as connection:
            return list(connection.execute(sa.select(table).order_by(*table.primary_key.columns)))

    def states(self) -> dict[str, str]:
        """State of each key that a source has on record."""
        return {row.key: row.state for row in self.rows(tables.source_objects)}

    def emitted(self, prefix: str = "augury.object.") -> list[dict[str, Any]]:
        """Every event of ours in the outbox, where they stay because nobody routes; in order."""
        with self.database.read() as connection:
            bodies = connection.scalars(
                sa.select(tables.outbox.c.body).order_by(tables.outbox.c.id)
            )
            decoded = [msgspec.json.decode(body) for body in bodies]
        return [event for event in decoded if event["type"].startswith(prefix)]

    def told(self) -> list[tuple[str, str]]:
        """(what, key) of every object event, in order."""
        return [
            (event["type"].rpartition(".")[2], event["data"]["key"]) for event in self.emitted()
        ]

    def on_bus(self, prefix: str = "augury.object.") -> list[dict[str, Any]]:
        """Every event in the stream."""
        entries = self.bus.entries("", 100_000)
        decoded = [msgspec.json.decode(entry.body) for entry in entries]
        return [event for event in decoded if event["type"].startswith(prefix)]

    @contextmanager
    def running(self, **changes: Any) -> Iterator[Sources]:
        """Sources at work in a thread."""
        sources = Sources(self.database, self.bus, self.settings.model_copy(update=changes))
        stop = threading.Event()
        thread = threading.Thread(target=sources.run, args=(stop,))
        thread.start()
        try:
            yield sources
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive(), "sources did not stop"


def wait_until(holds: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits for a condition; fails with its source if it never holds."""
    deadline = clock.monotonic_s() + timeout_s
    while not holds():
        assert clock.monotonic_s() < deadline, "it never came true"
        clock.sleep_s(0.01)


def parquet(path: Path, num_rows: int = 3) -> Path:
    """Writes a Parquet file beside its place and moves it there, as a careful producer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent.parent / f"{path.name}.beside"
    pq.write_table(pa.table({"x": list(range(num_rows))}), beside)
    return beside.rename(path)
