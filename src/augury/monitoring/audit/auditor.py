"""One audit from beginning to end: the cut, each family of checks, the report.

Nothing is written, nothing is locked, and everything is paged, so an audit may run at any time
beside a working system. It counts nothing that a counter says: events are matched again, stream
and ledger are compared entry by entry, rows are taken from the files themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.bus.port import Bus, BusStatus
from augury.monitoring.audit.archive_checks import (
    FILE_CHECKS,
    RANGE_CHECKS,
    archive_files,
    archive_ranges,
    archived_until,
)
from augury.monitoring.audit.artifacts import (
    ARTIFACT_CHECKS,
    JOB_ARTIFACT_CHECKS,
    artifact_pages,
    job_artifact_pages,
)
from augury.monitoring.audit.balance import Balance
from augury.monitoring.audit.check import Check, Progress, Tally
from augury.monitoring.audit.effect_checks import (
    EFFECT_CHECKS,
    OUTCOME_CHECKS,
    examine_effects,
)
from augury.monitoring.audit.event_checks import EVENT_CHECKS
from augury.monitoring.audit.event_pages import event_pages
from augury.monitoring.audit.facts import (
    DELETION_CHECKS,
    OBJECT_CHECKS,
    TICK_CHECKS,
    deletion_pages,
    object_pages,
    tick_pages,
)
from augury.monitoring.audit.group_checks import GROUP_CHECKS, GROUPS_COUNTED, Groups
from augury.monitoring.audit.in_flight import in_flight
from augury.monitoring.audit.incidents import open_incidents
from augury.monitoring.audit.leases import HOLDER_CHECKS, LEASE_CHECKS, LeaseWatch, holders
from augury.monitoring.audit.outbox_checks import OUTBOX_CHECKS, outbox_pages
from augury.monitoring.audit.output_checks import OUTPUT_CHECKS, STORE_CHECK, UNCOMMITTED_CHECKS
from augury.monitoring.audit.output_pass import examine_outputs
from augury.monitoring.audit.references import COUNTED, REFERENCE_CHECKS, References
from augury.monitoring.audit.replay_checks import (
    REPLAY_CHECKS,
    REPLAYED_CHECKS,
    replays_and_epochs,
)
from augury.monitoring.audit.report import AuditReport, Cut, InFlight
from augury.monitoring.audit.run_checks import RUN_CHECKS
from augury.monitoring.audit.run_pages import run_pages
from augury.monitoring.audit.stream import (
    COUNT_CHECKS,
    STREAM_CHECKS,
    count_stream,
    stream_pages,
)
from augury.monitoring.audit.tick_checks import STATE_CHECKS
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import (
    archives,
    dead_letters,
    effects,
    events,
    model_versions,
    outbox,
    runs,
    ticks,
)

_OPEN = "OPEN"

_DEEP_CHECKS: tuple[Check[Any], ...] = (
    *FILE_CHECKS,
    *ARTIFACT_CHECKS,
    *JOB_ARTIFACT_CHECKS,
    STORE_CHECK,
    *OUTPUT_CHECKS,
    *UNCOMMITTED_CHECKS,
)
CHECKS: tuple[Check[Any], ...] = (
    *STREAM_CHECKS,
    *COUNT_CHECKS,
    *EVENT_CHECKS,
    *OUTCOME_CHECKS,
    *EFFECT_CHECKS,
    *REPLAYED_CHECKS,
    *REPLAY_CHECKS,
    *REFERENCE_CHECKS,
    *RANGE_CHECKS,
    *GROUP_CHECKS,
    *OUTBOX_CHECKS,
    *TICK_CHECKS,
    *STATE_CHECKS,
    *OBJECT_CHECKS,
    *DELETION_CHECKS,
    *RUN_CHECKS,
    *HOLDER_CHECKS,
    *LEASE_CHECKS,
    *_DEEP_CHECKS,
)
_DEEP = frozenset(check.name for check in _DEEP_CHECKS)


def _silent(_stage: str, _done: int, _total: int | None) -> None:
    """Progress that nobody watches."""


def audit(
    database: Database,
    bus: Bus,
    settings: Settings,
    *,
    deep: bool = True,
    on_progress: Progress | None = None,
) -> AuditReport:
    """Compares the ledger with the evidence; changes nothing.

    Args:
        database: the ledger.
        bus: its stream.
        settings: how long things may take before they count as stuck; how stores are reached.
        deep: also read outputs and inputs: every byte of every part of every run.
        on_progress: called now and then with the stage, how many of its subjects are done, and how
            many there are (None: not known).

    Raises:
        UnavailableError: database or bus did not answer; a store that does not is a violation.
    """
    return _Audit(database, bus, settings, on_progress or _silent).run(deep=deep)


class _Audit:
    """The state of one audit; `run` calls the families in an order that finds evidence fresh."""

    def __init__(
        self, database: Database, bus: Bus, settings: Settings, on_progress: Progress
    ) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._on_progress = on_progress
        self._began_s = clock.monotonic_s()
        self._balance = Balance()
        self._now = clock.utc_now()
        window = timedelta(days=settings.duplicate_window_days)
        self._keys_since: datetime = self._now - window + timedelta(days=1)
        self._grace = timedelta(seconds=4 * settings.lease_timeout_s + 10 * settings.sweep_s)
        self._status: BusStatus = bus.status()
        self._incarnation = bus.incarnation()

    def run(self, *, deep: bool) -> AuditReport:
        self._tally = Tally(check.name for check in CHECKS if deep or check.name not in _DEEP)
        watch = LeaseWatch(self._database, now=self._now, grace=self._grace)
        with self._database.read() as connection:
            position = connection.scalar(sa.select(sa.func.max(events.c.position))) or 0
            flying = in_flight(connection, self._status, self._now)
        self._stream()
        self._events(position)
        self._effects()
        self._references(position)
        self._groups()
        self._outbox()
        self._facts()
        self._runs()
        self._ranges()
        if deep:
            self._archives()
            self._artifacts()
            self._outputs()
        self._leases(watch)
        return self._report(position, flying, deep=deep)

    def _stream(self) -> None:
        total, done = self._status.length, 0
        for page in stream_pages(self._database, self._bus, num_entries=total):
            self._tally.run(STREAM_CHECKS, page, len(page.settled))
            done += page.num_entries
            self._on_progress("stream", done, total)
        if self._incarnation is not None:
            named = self._tally.num_violations["stream_entry"]
            count = count_stream(self._database, self._status, self._incarnation, named=named)
            if self._bus.incarnation() == self._incarnation:  # otherwise it was lost just now
                self._tally.run(COUNT_CHECKS, count, self._status.num_added)

    def _events(self, position: int) -> None:
        total, done = self._count(events, events.c.position <= position), 0
        pages = event_pages(self._database, until=position, keys_since=self._keys_since)
        for page in pages:
            self._tally.run((*EVENT_CHECKS, *OUTCOME_CHECKS), page, len(page.events))
            self._tally.run(REPLAYED_CHECKS, page, len(page.events) if page.replays else 0)
            self._balance.add(page)
            done += len(page.events)
            self._on_progress("events", done, total)

    def _effects(self) -> None:
        total = self._count(effects)
        found = examine_effects(self._database, before=self._now - self._grace)
        self._tally.run(EFFECT_CHECKS, found, total)
        if total:
            self._on_progress("effects", total, total)

    def _references(self, position: int) -> None:
        for done, check in enumerate(REFERENCE_CHECKS):
            self._on_progress("references", done, len(REFERENCE_CHECKS))
            with self._database.read() as connection:
                first = connection.scalar(sa.select(sa.func.min(events.c.position))) or 0
                oldest = max(first, archived_until(connection) + 1)
                counted = sa.select(sa.func.count()).select_from(COUNTED[check.name])
                num_rows = connection.scalar(counted) or 0
                seen = References(connection, oldest, position)
                self._tally.run((check,), seen, num_rows)

    def _groups(self) -> None:
        patience = self._grace + timedelta(seconds=self._status.oldest_age_s)
        for done, check in enumerate(GROUP_CHECKS):
            self._on_progress("groups", done, len(GROUP_CHECKS))
            num_rows = self._count(GROUPS_COUNTED[check.name])
            with self._database.read() as connection:
                self._tally.run((check,), Groups(connection, self._now - patience), num_rows)

    def _outbox(self) -> None:
        patience_s = 2 * self._settings.resend_s + self._status.oldest_age_s
        grace = timedelta(seconds=patience_s)
        total, done = self._count(outbox), 0
        for page in outbox_pages(self._database, now=self._now, grace=grace):
            self._tally.run(OUTBOX_CHECKS, page, len(page.rows))
            done += len(page.rows)
            self._on_progress("outbox", done, total)

    def _facts(self) -> None:
        until, since = self._now, self._keys_since
        database = self._database
        for stage, checks, pages in (
            ("ticks", TICK_CHECKS, tick_pages(database, until=until, since=since)),
            ("objects", OBJECT_CHECKS, object_pages(database, until=until, since=since)),
            ("deletions", DELETION_CHECKS, deletion_pages(database, until=until, since=since)),
        ):
            done = 0
            for page in pages:
                self._tally.run(checks, page, len(page.facts))
                done += len(page.facts)
                self._on_progress(stage, done, None)
        num_ticks = self._count(ticks)
        with self._database.read() as connection:
            self._tally.run(STATE_CHECKS, connection, num_ticks)

    def _runs(self) -> None:
        total, done = self._count(runs), 0
        pages = run_pages(
            self._database, now=self._now, grace=self._grace, keys_since=self._keys_since
        )
        for page in pages:
            self._tally.run(RUN_CHECKS, page, len(page.runs))
            done += len(page.runs)
            self._on_progress("runs", done, total)

    def _ranges(self) -> None:
        replayed = replays_and_epochs(self._database, keys_since=self._keys_since)
        self._tally.run(REPLAY_CHECKS, replayed, len(replayed.replays))
        ranges = archive_ranges(self._database)
        self._tally.run(RANGE_CHECKS, ranges, len(ranges.rows))

    def _archives(self) -> None:
        total = self._count(archives)
        for done, file in enumerate(archive_files(self._database, self._settings), 1):
            self._tally.run(FILE_CHECKS, file, len(file.events))
            self._on_progress("archive", done, total)

    def _artifacts(self) -> None:
        total = self._count(model_versions)
        for done, page in enumerate(artifact_pages(self._database, self._settings), 1):
            self._tally.run(ARTIFACT_CHECKS, page, len(page.rows))
            self._on_progress("models", done, total)
        for job_page in job_artifact_pages(self._database, self._settings):
            self._tally.run(JOB_ARTIFACT_CHECKS, job_page, len(job_page.rows))

    def _outputs(self) -> None:
        total, done = self._count(runs), 0
        for num_runs, looked in examine_outputs(self._database, self._settings, self._now):
            self._tally.merge(looked)
            done += num_runs
            self._on_progress("outputs", done, total)

    def _leases(self, watch: LeaseWatch) -> None:
        self._on_progress("leases", 0, len(watch.first))
        held = holders(self._database)
        self._tally.run(HOLDER_CHECKS, held, len(held.leased))
        # a worker that died just now has its leases expired within this
        patience_s = 2 * (self._settings.lease_timeout_s + self._settings.sweep_s)
        self._tally.run(LEASE_CHECKS, watch.finish(patience_s), len(watch.first))
        self._on_progress("leases", len(watch.first), len(watch.first))

    def _count(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        with self._database.read() as connection:
            select = sa.select(sa.func.count()).select_from(table).where(*where)
            return connection.scalar(select) or 0

    def _report(self, position: int, flying: Sequence[InFlight], *, deep: bool) -> AuditReport:
        with self._database.read() as connection:
            incidents = tuple(open_incidents(connection))
        tally = self._tally
        return AuditReport(
            cut=Cut(position=position, taken_at=self._now, incarnation=self._incarnation),
            deep=deep,
            checked=dict(tally.checked),
            violations=tuple(tally.violations),
            num_violations=dict(tally.num_violations),
            unknown=tuple(tally.unknown),
            num_unknown=dict(tally.num_unknown),
            in_flight=tuple(flying),
            incidents=incidents,
            rules=tuple(self._balance.rules()),
            dead_letters_open=self._count(dead_letters, dead_letters.c.state == _OPEN),
            seconds=round(clock.monotonic_s() - self._began_s, 3),
            ok=not tally.num_violations and not incidents,
        )
