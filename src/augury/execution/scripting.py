"""Script runs as a worker's work. Knows nothing of claims and reports of the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from augury.execution.holding import Holding
from augury.jobs.script_reports import Ending
from augury.jobs.work import WorkItem
from augury.settings import Settings
from augury.storage.database import Database

if TYPE_CHECKING:
    from augury.scripts.runner import ScriptRunner


class Scripting:
    """One worker's runner of scripts, made when there is something to run.

    Args:
        database: the ledger.
        settings: of this process.
        cpus: of this worker.
        is_draining: True once the worker was asked to stop.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        cpus: int,
        is_draining: Callable[[], bool],
    ) -> None:
        self._database = database
        self._settings = settings
        self._cpus = cpus
        self._is_draining = is_draining
        self._runner: ScriptRunner | None = None

    def run(self, item: WorkItem, holding: Holding) -> Ending:
        """Carries out an attempt; see `ScriptRunner.run` for what it raises."""
        if self._runner is None:
            from augury.scripts.runner import ScriptRunner
            from augury.storage.objects import open_store

            self._runner = ScriptRunner(
                self._database,
                open_store(self._settings.effective_store_url, self._settings),
                self._settings,
                cpus=self._cpus,
                is_draining=self._is_draining,
            )
        return self._runner.run(item, holding.check)
