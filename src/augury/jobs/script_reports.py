"""What a worker reports about a script run: set up, started, ended.

A script run is one item of work. It stays ACCEPTED while its folder is made ready and becomes
IN_PROGRESS when the program starts; `lifecycle_details` passes through the texts that OCI Data
Science shows, and each is a line of the run's log. A report under a token that is not the item's
last raises `LostLeaseError` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from augury import clock
from augury.jobs import logs, reports, statements
from augury.jobs.lifecycle import lock_run, transition
from augury.jobs.reports import Failure
from augury.jobs.runs import Run, get_run
from augury.jobs.states import LIVE, RunState, WorkState
from augury.jobs.work import WorkItem, fence, lost
from augury.storage.database import Database
from augury.storage.tables import runs, work

PROVISIONED = "Infrastructure provisioned."
BOOTSTRAP = "Job run bootstrap starting."
READY = "Job run bootstrap complete. Artifact execution starting."
IN_PROGRESS = "Job run artifact execution in progress."
SUCCEEDED = "Job run artifact execution succeeded. Infrastructure de-provisioning."


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended.

    Attributes:
        exit_code: of the program, 0 to 255; None: a signal ended it, or it never ran.
        exit_signal: the signal's name.
        peak_memory_bytes: most resident memory that was seen.
        failure: why the attempt failed; None: it succeeded.
    """

    exit_code: int | None
    exit_signal: str | None
    peak_memory_bytes: int | None
    failure: Failure | None


def begin(database: Database, connection: sa.Connection, item: WorkItem) -> Run:
    """The run, whose folder is about to be made ready.

    Raises:
        LostLeaseError: the item is not the caller's any more.
    """
    _held(database, connection, item)
    logs.append(connection, item.run_id, "info", PROVISIONED)
    _tell(connection, item.run_id, BOOTSTRAP, attempt=item.attempts)
    return get_run(connection, item.run_id)


def start(database: Database, connection: sa.Connection, item: WorkItem) -> None:
    """The program is about to start.

    Raises:
        LostLeaseError: the item is not the caller's any more.
    """
    run = _held(database, connection, item)
    logs.append(connection, run.id, "info", READY)
    if run.state == RunState.ACCEPTED:
        transition(database, connection, run.id, RunState.IN_PROGRESS, details=IN_PROGRESS)
    else:  # another attempt
        _tell(connection, run.id, IN_PROGRESS)


def finish(database: Database, connection: sa.Connection, item: WorkItem, ending: Ending) -> None:
    """Records how an attempt ended, and with it the run, unless there is another attempt.

    Raises:
        LostLeaseError: the item is not the caller's any more; nothing was recorded.
    """
    run = _held(database, connection, item)
    values: dict[str, Any] = {
        "exit_code": ending.exit_code,
        "exit_signal": ending.exit_signal,
        "peak_memory_bytes": ending.peak_memory_bytes,
    }
    if ending.failure is None:
        values["time_committed"] = clock.utc_now()
    connection.execute(sa.update(runs).where(runs.c.id == run.id).values(**values))
    if ending.failure is not None:
        reports.fail(database, connection, item, ending.failure)
        return
    result = {"exit_code": ending.exit_code}
    done = {"state": WorkState.DONE, "done_at": clock.utc_now(), "result": result}
    connection.execute(sa.update(work).where(statements.HELD).values(**done), fence(item))
    transition(database, connection, run.id, RunState.SUCCEEDED, details=SUCCEEDED)


def _held(database: Database, connection: sa.Connection, item: WorkItem) -> Any:
    """The run's row, locked; the item is held and the run goes on."""
    run = lock_run(database, connection, item.run_id)
    if run is None or run.state not in LIVE:
        raise lost(item, f"the run is {'gone' if run is None else run.state}")
    if connection.scalar(statements.RUN_STATE, fence(item)) is None:
        raise lost(item)
    return run


def _tell(connection: sa.Connection, run_id: str, details: str, **values: Any) -> None:
    connection.execute(
        sa.update(runs).where(runs.c.id == run_id).values(lifecycle_details=details, **values)
    )
    logs.append(connection, run_id, "info", details)
