"""A small healthy system to audit, and ways to break exactly one thing in it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from routing_world import World, dropped, event

from augury.monitoring.audit import AuditReport, audit
from augury.settings import Settings
from augury.storage.database import Database

LANDED = {"type": ["augury.object.created"]}
# nothing in these tests takes long, and a lease that nobody holds is waited for
QUICK = {"lease_timeout_s": 0.2, "sweep_s": 0.05}


class AuditWorld(World):
    """A ledger with events of every outcome, all routed by the real router."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(database, settings.model_copy(update=QUICK))

    def fill(self) -> None:
        """Events that match one rule, two actions, another rule's version, nothing; duplicates."""
        self.job()
        twice = [{"start_run": {"job": "score"}}, {"name": "again", "start_run": {"job": "score"}}]
        self.rule("landing", LANDED, twice)
        self.publish(event(id="nobody wants me"), dropped("a"), dropped("a"))
        self.drain()
        self.rule("things", {"type": ["acme.thing"], "data": {"n": [1]}})
        thing = event(id="thing", n=1)
        self.publish(thing, thing, {**thing, "data": {"n": 1, "m": 2}}, dropped("b"))
        self.drain()
        self.rule("landing", {**LANDED, "source": ["/test"]})
        self.rule("no job", {"type": ["acme.other"]}, [{"start_run": {"job": "missing"}}])
        self.publish(dropped("c"), event("acme.other"))
        self.bus.publish([b"{not json"])
        self.drain()

    def audit(self, *, deep: bool = False, **changes: Any) -> AuditReport:
        settings = self.settings.model_copy(update=changes)
        return audit(self.database, self.bus, settings, deep=deep)

    def change(self, *statements: sa.Executable) -> None:
        """Does to the ledger what no code of ours does."""

        def work(connection: sa.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        self.database.transact(work)

    def broken(self, *, deep: bool = False, **changes: Any) -> set[str]:
        """Names of the checks that found something."""
        report = self.audit(deep=deep, **changes)
        assert report.ok == (not report.violations and not report.incidents)
        return {violation.check for violation in report.violations}
