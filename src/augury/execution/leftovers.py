"""Removing what runs without result left in their output folders.

A run that was canceled, failed, or was deleted before it had a result may have parts there that no
manifest names; a worker that was killed leaves a temporary file, also in the folder of a run that
succeeded without it. Both go. A failed or canceled run keeps its parts for `AUGURY_RESUME_DAYS`, so
that it can be resumed; a deleted one loses them at once. A committed output is never touched: parts
are removed only after the ledger says that nothing was committed and that they are being removed,
from which moment until the end nobody can resume the run.

A worker that was frozen may write a part after that. It notices that it was late, and reports it
(`reports.release`), so the folder is looked at again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury import clock
from augury.errors import AuguryError
from augury.jobs.states import RunState, WorkState
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import runs, work

if TYPE_CHECKING:
    from augury.storage.objects import ObjectStore

_log = logging.getLogger(__name__)
# temporary files that nobody has touched for this long belong to nobody
STAGE_S = 60.0
_SETTLED_S = 2 * STAGE_S
_AT_ONCE = 50
_ENDED = (RunState.FAILED, RunState.CANCELED, RunState.DELETED)


@dataclass(frozen=True, kw_only=True)
class _Ended:
    run_id: str
    output_uri: str
    is_committed: bool
    is_settled: bool


class Leftovers:
    """Cleans the folders of runs that are over, then and once more when all is quiet.

    Args:
        database: the ledger.
        settings: for access to the stores.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._seen: set[str] = set()

    def sweep(self) -> None:
        """Cleans some folders; a store that does not answer is asked again next time."""
        found = self._ended()
        self._seen &= {run.run_id for run in found}
        for run in found:
            if run.run_id in self._seen and not run.is_settled:
                continue
            try:
                self._clean(run)
            except AuguryError as error:
                _log.info(
                    "leftovers wait: %s",
                    error,
                    extra={"action": "leftovers_wait", "run_id": run.run_id},
                )

    def _ended(self) -> list[_Ended]:
        """The last ones to have ended, and the first ones."""
        held = sa.exists().where(work.c.run_id == runs.c.id, work.c.state == WorkState.LEASED)
        ended = (
            sa.select(runs.c.id, runs.c.output_uri, runs.c.time_committed, runs.c.time_finished)
            .where(runs.c.cleaned_at.is_(None), runs.c.time_finished.is_not(None))
            .where(sa.not_(held), sa.or_(*self._is_over()))
            .where(runs.c.kind == "inference")  # a script's output stays
            .limit(_AT_ONCE)
        )
        with self._database.read() as connection:
            rows = {
                row.id: row
                for order in (runs.c.time_finished.desc(), runs.c.time_finished.asc())
                for row in connection.execute(ended.order_by(order))
            }
        settled_at = clock.utc_now() - timedelta(seconds=_SETTLED_S)
        return [
            _Ended(
                run_id=row.id,
                output_uri=row.output_uri,
                is_committed=row.time_committed is not None,
                is_settled=row.time_finished < settled_at,
            )
            for row in rows.values()
        ]

    def _is_over(self) -> list[sa.ColumnElement[bool]]:
        """It has its result, was deleted, or ended too long ago to be resumed with its parts."""
        kept_since = clock.utc_now() - timedelta(days=self._settings.resume_days)
        return [
            runs.c.time_committed.is_not(None),
            runs.c.state == RunState.DELETED,
            runs.c.time_finished <= kept_since,
        ]

    def _clean(self, run: _Ended) -> None:
        from augury.storage.objects import open_store

        store = open_store(run.output_uri, self._settings)
        removed = 0
        if not run.is_committed:
            if not self._database.transact(lambda connection: _begin(connection, run.run_id)):
                return  # resumed meanwhile
            removed = _remove_all(store)
        removed += store.sweep_stages(STAGE_S)
        if removed:
            _log.info(
                "removed %d leftovers",
                removed,
                extra={"action": "leftovers_removed", "run_id": run.run_id},
            )
        if run.is_settled:
            self._database.transact(lambda connection: _note_clean(connection, run.run_id))
        else:
            self._seen.add(run.run_id)


def _begin(connection: sa.Connection, run_id: str) -> bool:
    """From now on the run cannot be resumed; False if it goes on already."""
    change = (
        sa.update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_(_ENDED), runs.c.time_committed.is_(None))
        .values(cleaning_at=clock.utc_now())
    )
    return connection.execute(change).rowcount == 1


def _remove_all(store: ObjectStore) -> int:
    keys = [found.key for found in store.list()]
    for key in keys:
        store.delete(key)
    return len(keys)


def _note_clean(connection: sa.Connection, run_id: str) -> None:
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id, runs.c.time_finished.is_not(None))
        .values(cleaned_at=clock.utc_now())
    )
