"""Every run's output, one after another; what looks wrong is looked at a second time.

Objects have no snapshot: between the look at the ledger and the look at the store a run may be
committed or deleted. A second look begins with the ledger again, so it tells a change from a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury import clock
from augury.errors import UnavailableError
from augury.jobs.states import RunState
from augury.monitoring.audit.check import Check, Finding, Tally
from augury.monitoring.audit.output_checks import OUTPUT_CHECKS, STORE_CHECK, UNCOMMITTED_CHECKS
from augury.monitoring.audit.outputs import Output, load_run
from augury.storage.database import Database
from augury.storage.tables import runs

if TYPE_CHECKING:
    from augury.settings import Settings

_SECOND_LOOK_S = 0.5
_PAGE_ROWS = 500


def examine_outputs(
    database: Database, settings: Settings, until: datetime
) -> Iterator[tuple[int, Tally]]:
    """Looks at the output of every run accepted until then.

    Yields:
        How many runs were dealt with, and what was found; often.
    """
    suspicious: list[str] = []
    for run_id in _run_ids(database, until):
        looked = _look(database, settings, run_id)
        if looked.violations:
            suspicious.append(run_id)
        else:
            yield 1, looked
    if suspicious:
        clock.sleep_s(_SECOND_LOOK_S)
    for run_id in suspicious:
        yield 1, _look(database, settings, run_id)


def _run_ids(database: Database, until: datetime) -> Iterator[str]:
    after = ""
    while True:
        select = (
            sa.select(runs.c.id)
            .where(runs.c.id > after, runs.c.time_accepted <= until)
            .order_by(runs.c.id)
            .limit(_PAGE_ROWS)
        )
        with database.read() as connection:
            page: Sequence[str] = connection.scalars(select).all()
        if not page:
            return
        yield from page
        after = page[-1]


def _look(database: Database, settings: Settings, run_id: str) -> Tally:
    tally = Tally(())
    row = load_run(database, run_id)
    if row is None or not (checks := _checks(row)):
        return tally
    output = Output(row, database, settings, tally.lose)
    try:
        tally.run((STORE_CHECK,), output, 1)
        if not tally.violations:
            tally.run(checks, output, 1)
    except UnavailableError as error:
        finding = Finding(output.subject, f"its output at {row.output_uri}", error.message)
        tally.add(STORE_CHECK, [finding])
    return tally


def _checks(row: sa.Row[Any]) -> Sequence[Check[Output]]:
    """What applies to a run in this state; a deleted run's and a script's output is its owner's."""
    if row.kind == "script":
        return ()
    if row.output_uri is None or row.time_started is None or row.state == RunState.DELETED:
        return ()
    if row.state == RunState.SUCCEEDED:
        return OUTPUT_CHECKS if row.manifest is not None else ()
    return UNCOMMITTED_CHECKS if row.time_committed is None else ()
