"""A routing world with groups: what became of the events of a rule, group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from routing_world import World

from augury import clock
from augury.jobs.runs import transition
from augury.jobs.states import RunState
from augury.monitoring.audit import audit
from augury.routing.grouper import Grouper
from augury.storage import tables

LANDED = {"type": ["augury.object.created"]}


class GroupingWorld(World):
    """Routes and groups by hand; time passes only as far as `pass_time` says."""

    def grouper(self) -> Grouper:
        return Grouper(self.database, self.bus, self.executor, self.settings)

    def settle(self) -> None:
        """Routes everything, and groups what the stream has passed."""
        self.drain()
        while True:
            started = self.grouper().group()
            if not self.drain() and not started:
                return

    def pass_time(self, seconds: float) -> None:
        """Makes everything that is in a group, or on its way, older."""
        earlier = -seconds

        def work(connection: sa.Connection) -> None:
            for table, names in (
                (tables.groups, ("opened_at", "last_at", "due_at")),
                (tables.group_members, ("accepted_at",)),
            ):
                key = next(iter(table.primary_key.columns))
                for row in connection.execute(sa.select(table)).all():
                    values = {
                        name: _moved(row._mapping[name], earlier)
                        for name in names
                        if row._mapping[name] is not None
                    }
                    here = key == row._mapping[key.name]
                    connection.execute(sa.update(table).where(here).values(**values))

        self.database.transact(work)

    def groups(self, state: str | None = None) -> list[sa.Row[Any]]:
        found = self.rows(tables.groups)
        return sorted(
            (row for row in found if state in (None, row.state)), key=lambda row: row.first_order
        )

    def contents(self) -> list[list[str]]:
        """Event ids of the members of each group, in the order of the stream."""
        joined = (
            sa.select(tables.groups.c.first_order, tables.events.c.event_id)
            .join(tables.group_members, tables.group_members.c.group_id == tables.groups.c.id)
            .join(tables.events, tables.events.c.position == tables.group_members.c.position)
            .order_by(tables.groups.c.first_order, tables.group_members.c.entry_order)
        )
        found: dict[str, list[str]] = {}
        with self.database.read() as connection:
            for first, event_id in connection.execute(joined):
                found.setdefault(first, []).append(event_id)
        return list(found.values())

    def states(self) -> dict[str, str]:
        """State of the outcome of each event that tests published."""
        return {row[0]: row[2] for row in self.outcomes() if ":" not in row[0]}

    def inputs(self) -> list[list[tuple[str, str]]]:
        """(URI, tag) of the inputs of each run, in the order of acceptance."""
        found = sorted(self.rows(tables.runs), key=lambda run: run.id)
        return [[(i["uri"], i["tag"]) for i in run.spec["input"]] for run in found]

    def finish(self, run_id: str) -> None:
        """A run that ends, as far as anybody who waits for it is concerned."""
        self.database.transact(
            lambda c: transition(
                self.database, c, run_id, RunState.FAILED, details="Ended.", reason="test"
            )
        )
        self.database.transact(
            lambda c: c.execute(
                sa.update(tables.work)
                .where(tables.work.c.run_id == run_id)
                .values(state="CANCELED", done_at=clock.utc_now())
            )
        )

    def active(self) -> list[sa.Row[Any]]:
        return self.rows(tables.runs, tables.runs.c.state == "ACCEPTED")

    def counts(self) -> Mapping[str, int]:
        return Counter(self.states().values())

    def check(self) -> None:
        """The audit holds."""
        report = audit(self.database, self.bus, self.settings, deep=False)
        assert report.violations == (), [str(found) for found in report.violations]


def _moved(instant: Any, seconds: float) -> Any:
    from datetime import timedelta

    return instant + timedelta(seconds=seconds)
