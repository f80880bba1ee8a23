"""What must hold for each run: one outcome, a state that its columns bear out, work going on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from augury.jobs.states import TERMINAL, OutcomeState, RunState, WorkState
from augury.monitoring.audit.check import Check, Finding, differences, shown
from augury.monitoring.audit.run_pages import AuditedRun, RunPage, lifecycle

_PLAN = "plan"
_SHARD = "shard"
_SCRIPT = "script"
_STATES = frozenset(RunState)
_STARTED = frozenset({RunState.IN_PROGRESS, RunState.SUCCEEDED})
_MAY_HAVE_SUCCEEDED = frozenset({RunState.SUCCEEDED, RunState.DELETED})
_MOVING = frozenset({RunState.ACCEPTED, RunState.IN_PROGRESS, RunState.CANCELING})
_WAITING = (WorkState.WAITING, WorkState.READY)
_OPEN = (*_WAITING, WorkState.LEASED)


def _outcome(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        row = run.row
        if row.outcome_id is None and row.position is None:
            continue  # somebody asked for it: no event led here
        if row.outcome_state is None and 0 < (row.position or 0) <= page.archived_until:
            continue  # the outcome left with its event
        expected, found = differences(
            {
                "outcome_state": OutcomeState.STARTED,
                "outcome_run_id": row.id,
                "outcome_position": row.position,
            },
            row._mapping,
        )
        if found:
            subject = f"{run.subject}, outcome {row.outcome_id}"
            yield Finding(subject, expected, found)


def _state(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        if run.row.state not in _STATES:
            yield Finding(run.subject, "a state of a run", shown(run.row.state))
            continue
        for expected, holds in _borne_out(run.row):
            if not holds:
                found = f"time_started={run.row.time_started}, time_finished="
                found += f"{run.row.time_finished}, reason={run.row.reason}"
                yield Finding(run.subject, f"{run.row.state} {expected}", found)


def _borne_out(row: sa.Row[Any]) -> Iterator[tuple[str, bool]]:
    if row.state in TERMINAL:
        yield "with time_finished", row.time_finished is not None
    else:
        yield "without time_finished", row.time_finished is None
    if row.state in _STARTED:
        yield "with time_started", row.time_started is not None
    if row.state == RunState.FAILED:
        yield "with a reason", bool(row.reason)


def _commit(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        row = run.row
        if row.kind == _SCRIPT:
            continue
        parts = (row.has_manifest, row.manifest_digest is not None, row.time_committed is not None)
        shown_parts = "manifest={}, manifest_digest={}, time_committed={}".format(*parts)
        if any(parts) and not all(parts):
            yield Finding(run.subject, "all of a commit or nothing of it", shown_parts)
        elif row.state == RunState.SUCCEEDED and not all(parts):
            yield Finding(run.subject, "SUCCEEDED with its commit", shown_parts)
        elif all(parts) and not _may_be_committed(page, row):
            expected = "a committed run to be SUCCEEDED"
            yield Finding(run.subject, expected, f"{row.state}, committed {row.time_committed}")


def _may_be_committed(page: RunPage, row: sa.Row[Any]) -> bool:
    if row.state == RunState.IN_PROGRESS:  # until somebody has put the manifest's bytes
        return not page.overdue(row.time_committed)
    return row.state in (RunState.SUCCEEDED, RunState.DELETED)


def _work(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        shards = run.count(_SHARD)
        if run.row.kind == _SCRIPT:
            yield from _script_work(run)
        elif run.count(_PLAN) != 1:
            yield Finding(run.subject, "one plan item", f"{run.count(_PLAN)}")
        elif shards != run.row.shards_total:
            yield Finding(run.subject, f"shards_total={run.row.shards_total}", f"{shards} shards")
        elif shards and not _numbered(run, shards):
            yield Finding(run.subject, f"shards 0 to {shards - 1}", "other numbers")
        yield from _done(run)


def _script_work(run: AuditedRun) -> Iterator[Finding]:
    items = {kind: run.count(kind) for kind in (_SCRIPT, _PLAN, _SHARD)}
    if items != {_SCRIPT: 1, _PLAN: 0, _SHARD: 0}:
        found = ", ".join(f"{number} {kind}" for kind, number in items.items())
        yield Finding(run.subject, "one script item and nothing else", found)


def _script(page: RunPage) -> Iterator[Finding]:
    """How a script run ended, and what it says of its program, are one story."""
    for run in page.runs:
        row = run.row
        if row.kind != _SCRIPT:
            continue
        done = run.count(_SCRIPT, WorkState.DONE)
        found = f"exit_code={row.exit_code}, exit_signal={row.exit_signal}, "
        found += f"time_committed={row.time_committed}, {done} work DONE"
        ended_well = (row.exit_code, row.exit_signal, done) == (0, None, 1)
        if row.state == RunState.SUCCEEDED and not (ended_well and row.time_committed):
            yield Finding(run.subject, "SUCCEEDED with exit code 0 and its work done", found)
        elif row.state not in _MAY_HAVE_SUCCEEDED and (done or row.time_committed):
            yield Finding(run.subject, f"{row.state} without a success on record", found)


def _log(page: RunPage) -> Iterator[Finding]:
    """Lines of a program are numbered from 1 without a gap."""
    for run in page.runs:
        if run.log is not None and run.log != (1, run.log.last, run.log.last):
            found = f"{run.log.total} lines, numbers {run.log.first} to {run.log.last}"
            yield Finding(run.subject, "a log without a gap", found)


def _numbered(run: AuditedRun, shards: int) -> bool:
    """Numbers are unique by constraint, so their range and number tell."""
    summed = [found for (kind, _), found in run.work.items() if kind == _SHARD]
    return (min(s.first for s in summed), max(s.last for s in summed)) == (0, shards - 1)


def _done(run: AuditedRun) -> Iterator[Finding]:
    row, done = run.row, run.count(_SHARD, WorkState.DONE)
    finished = run.work.get((_SHARD, WorkState.DONE))
    if finished is not None and finished.results != finished.count:
        found = f"{finished.count - finished.results} of {finished.count} without"
        yield Finding(run.subject, "every DONE shard with its result", found)
    isolated = run.count(_SHARD, WorkState.FAILED)
    if row.state == RunState.IN_PROGRESS and isolated != row.shards_isolated:
        expected = f"shards_isolated={row.shards_isolated}"
        yield Finding(run.subject, expected, f"{isolated} shards FAILED")
    if done != row.shards_done:
        yield Finding(run.subject, f"shards_done={row.shards_done}", f"{done} shards DONE")
    elif row.state == RunState.SUCCEEDED and done != row.shards_total:
        yield Finding(run.subject, f"all {row.shards_total} shards DONE", f"{done}")


def _stuck(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        row = run.row
        if row.state not in _MOVING or row.has_manifest:
            continue
        if any(run.count(kind, *_OPEN) for kind in (_PLAN, _SHARD, _SCRIPT)):
            continue
        times = [summed.last_done_at for summed in run.work.values()]
        known = [at for at in (row.time_accepted, row.time_started, *times) if at is not None]
        if page.overdue(max(known)):
            found = f"{row.state} without open work since {max(known)}"
            yield Finding(run.subject, "open work, or an end", found)


def _open_work(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        if run.row.state not in TERMINAL:
            continue
        waiting = sum(run.count(kind, *_WAITING) for kind in (_PLAN, _SHARD, _SCRIPT))
        leased = sum(run.count(kind, WorkState.LEASED) for kind in (_PLAN, _SHARD, _SCRIPT))
        if waiting or (leased and page.overdue(run.row.time_finished)):
            found = f"{waiting} items waiting, {leased} leased"
            yield Finding(run.subject, f"{run.row.state} without open work", found)


def _rows(page: RunPage) -> Iterator[Finding]:
    """Law 2, in the ledger's own words."""
    for run in page.runs:
        row = run.row
        accounted = row.rows_predicted + row.rows_rejected + row.rows_filtered
        if row.time_committed is not None and row.rows_in != accounted:
            found = (
                f"{row.rows_predicted} predicted + {row.rows_rejected} rejected + "
                f"{row.rows_filtered} filtered = {accounted}"
            )
            yield Finding(run.subject, f"{row.rows_in} rows accounted for", found)


def _event(page: RunPage) -> Iterator[Finding]:
    for run in page.runs:
        if run.row.time_accepted < page.keys_since:
            continue
        for state, event_id in lifecycle(run.row).items():
            if state not in run.announced:
                expected = f"its event {event_id} in the ledger or the outbox"
                yield Finding(run.subject, expected, "in neither")


_RESTORE = (
    "the ledger was changed by something other than Augury, or is damaged: compare with a backup, "
    "and report a bug if nobody touched it"
)
_LOGS = "read the run's log (`augury runs logs RUN`), and report a bug"

RUN_CHECKS: tuple[Check[RunPage], ...] = (
    Check(
        name="run_outcome",
        examine=_outcome,
        advice="this run was started by no decision that the ledger knows: see who made it; if it "
        "scored what another run scored too, delete it (`augury runs delete`)",
    ),
    Check(name="run_state", examine=_state, advice=_RESTORE),
    Check(
        name="run_commit",
        examine=_commit,
        advice="commit and state contradict each other: if the run is still IN_PROGRESS, see that "
        "the sweeper runs (`augury doctor`); otherwise do not trust its output",
    ),
    Check(name="run_work", examine=_work, advice=_LOGS),
    Check(
        name="run_script",
        examine=_script,
        advice="the run's state and the end of its program contradict each other: do not trust "
        "this run, read its log (`augury runs logs RUN`) and start it again",
    ),
    Check(
        name="run_log",
        examine=_log,
        advice="lines of this run's program are gone or doubled: the ledger was changed, or is "
        "damaged; do not rely on this log",
    ),
    Check(
        name="run_stuck",
        examine=_stuck,
        advice="nothing will move this run: see that the sweeper runs (`augury doctor`); if it "
        "does, cancel the run and start it again",
    ),
    Check(name="run_open_work", examine=_open_work, advice=_LOGS),
    Check(
        name="run_rows",
        examine=_rows,
        advice="rows are unaccounted for: do not use this output; start the run again, and report "
        "a bug",
    ),
    Check(
        name="run_event",
        examine=_event,
        advice="rules that wait for this event were never asked: see that nobody empties the "
        "outbox, and start by hand what should have followed",
    ),
)
