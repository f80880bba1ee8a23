"""A ledger, a bus and rules for the routing tests, and the laws that must hold in the end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa

from augury.bus.redis_bus import RedisBus
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.router import Router
from augury.rules.spec import RuleSpec
from augury.rules.store import apply_rule, delete_rule
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database

_numbers = itertools.count()


class WakeUps:
    """An executor that only counts."""

    def __init__(self) -> None:
        self.woken: Counter[str] = Counter()

    def wake(self, queue: str, count: int = 1) -> None:
        self.woken[queue] += count

    def depth(self, queue: str) -> int:
        return self.woken[queue]


class Crash(BaseException):
    """Like kill -9 as far as the code under test is concerned: nothing catches it."""


@contextmanager
def crash_at_statement(database: Database, number: int) -> Iterator[list[str]]:
    """Raises `Crash` before the `number`-th SQL statement (from 0); gives what was executed."""
    executed: list[str] = []

    def before(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if len(executed) == number:
            raise Crash(statement)
        executed.append(statement)

    engine = database._engine
    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield executed
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


class World:
    """One ledger and one bus."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.bus = RedisBus(settings.effective_redis_url, namespace=settings.namespace)
        self.executor = WakeUps()

    def router(self, **changes: Any) -> Router:
        settings = self.settings.model_copy(update={"router_claim_idle_s": 30.0, **changes})
        return Router(self.database, self.bus, self.executor, settings)

    def heir(self) -> Router:
        """A router that takes over at once whatever another one left."""
        return self.router(router_claim_idle_s=0.0001)

    def job(self, name: str = "score", **spec: Any) -> None:
        full = {"model": "m@champion", "output": "file:///out/", **spec}
        self.database.transact(lambda c: store.put(self.database, c, Kind.JOB, name, full))

    def rule(
        self,
        name: str,
        pattern: Mapping[str, Any],
        actions: Sequence[Mapping[str, Any]] = ({"start_run": {"job": "score"}},),
        **fields: Any,
    ) -> str:
        spec = RuleSpec(pattern=dict(pattern), actions=[dict(a) for a in actions], **fields)
        resource, _ = self.database.transact(lambda c: apply_rule(self.database, c, name, spec))
        rule_id: str = resource.id
        return rule_id

    def drop_rule(self, name: str) -> None:
        self.database.transact(lambda c: delete_rule(self.database, c, name))

    def publish(self, *documents: Mapping[str, Any]) -> list[str]:
        return self.bus.publish([msgspec.json.encode(document) for document in documents])

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[sa.Row[Any]]:
        with self.database.read() as connection:
            order = list(table.primary_key.columns)
            return list(connection.execute(sa.select(table).where(*where).order_by(*order)))

    def buried(self) -> list[sa.Row[Any]]:
        """Dead letters of the stream; actions that failed have theirs, too."""
        return self.rows(tables.dead_letters, tables.dead_letters.c.kind == "entry")

    def outcomes(self) -> list[tuple[str, str, str, str | None]]:
        """(event id, action, state, reason) of every outcome, sorted."""
        joined = sa.select(
            tables.events.c.event_id,
            tables.outcomes.c.action,
            tables.outcomes.c.state,
            tables.outcomes.c.reason,
        ).join(tables.events, tables.events.c.position == tables.outcomes.c.position)
        with self.database.read() as connection:
            return sorted(tuple(row) for row in connection.execute(joined))

    def drain(self, router: Router | None = None) -> int:
        """Routes until nothing is left, what routing itself publishes included."""
        router = router or self.heir()
        settled = 0
        while True:
            step = router.step(0.0)
            settled += step
            status = self.bus.status()
            if not step and not status.pending and not status.lag:
                return settled

    def drain_steps(self, count: int) -> None:
        """A few steps of one router, whatever is left."""
        routes = self.router()
        for _ in range(count):
            routes.step(0.0)

    def check_laws(self) -> None:
        """Every event decided once under each matched rule; every run has its one outcome."""
        per_position: dict[int, list[Any]] = {}
        for outcome in self.rows(tables.outcomes):
            per_position.setdefault(outcome.position, []).append(outcome)
        events = self.rows(tables.events)
        for event in events:
            decided = [outcome.rule_id for outcome in per_position.pop(event.position, [])]
            assert sorted(set(decided)) == event.matched
        assert per_position == {}, "outcomes of no event"
        self._check_keys(events)
        self._check_runs()
        assert self.bus.status().pending == 0

    def _check_keys(self, events: list[Any]) -> None:
        firsts = [(event.source, event.event_id) for event in events if event.duplicate_of is None]
        assert sorted(firsts) == sorted(set(firsts)), "two first events with one (source, id)"
        assert sorted(firsts) == sorted(
            (key.source, key.event_id) for key in self.rows(tables.event_keys)
        )
        in_ledger = {(event.incarnation, event.entry_id) for event in events}
        buried = {(d.incarnation, d.entry_id) for d in self.buried()}
        assert in_ledger & buried == set(), "routed and buried"

    def _check_runs(self) -> None:
        started = {o.run_id: o.id for o in self.rows(tables.outcomes) if o.state == "STARTED"}
        runs = {run.id: run.outcome_id for run in self.rows(tables.runs)}
        assert runs == started
        plans = [item.run_id for item in self.rows(tables.work)]
        assert sorted(plans) == sorted(runs)
        objects = [o.occurrence for o in self.rows(tables.outcomes) if o.state == "STARTED"]
        assert len(self.rows(tables.object_claims)) == sum(
            occurrence.startswith("object:") for occurrence in objects
        )


def event(event_type: str = "acme.thing", *, id: str = "", **data: Any) -> dict[str, Any]:  # noqa: A002
    """A published event; with a new id if none is given."""
    return {
        "specversion": "1.0",
        "source": "/test",
        "id": id or f"e{next(_numbers)}",
        "type": event_type,
        "data": data,
    }


def dropped(key: str, tag: str = "t1", **attributes: Any) -> dict[str, Any]:
    """The event of a file that landed."""
    uri = f"file:///in/{key}"
    data = {"uri": uri, "key": key, "tag": tag, "identity": f"{uri}#{tag}", "size_bytes": 1}
    return {**event("augury.object.created", **data), **attributes}
