"""The work itself: planning a run, scoring a shard. Knows nothing of claims and reports."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury.errors import CorruptError
from augury.execution import warmup
from augury.execution.holding import Holding
from augury.inference import coordinator
from augury.jobs import logs
from augury.jobs.reports import Planned
from augury.jobs.runs import get_run
from augury.jobs.work import WorkItem
from augury.settings import Settings
from augury.storage.database import Database

if TYPE_CHECKING:
    from augury.inference.plan import Plan, ShardResult
    from augury.models.cache import ModelCache
    from augury.storage.objects import ObjectStore

_MOST_RUNS = 16


@dataclass(frozen=True, kw_only=True)
class _PlannedRun:
    plan: Plan
    output: ObjectStore
    num_threads: int


class Scoring:
    """What one worker knows how to do; keeps models and plans of the last runs at hand.

    Args:
        database: to read runs from.
        settings: for access to stores.
        cpus: threads that this worker may compute with.
    """

    def __init__(self, database: Database, settings: Settings, *, cpus: int) -> None:
        self._database = database
        self._settings = settings
        self._cpus = cpus
        self._runs: OrderedDict[str, _PlannedRun] = OrderedDict()
        self._cache: ModelCache | None = None

    def plan(self, item: WorkItem, holding: Holding) -> Planned:
        """Plans the item's run; see `coordinator.plan` for what it raises."""
        planned = coordinator.plan(self._database, item.run_id, self._settings, check=holding.check)
        self._tell(item.run_id, planned)
        return planned

    def _tell(self, run_id: str, planned: Planned) -> None:
        """Who scores, and which columns are rounded."""
        from augury.data.contract import EXACT
        from augury.inference.plan import read_casts, read_pins

        pins = read_pins(planned.plan)
        why = f": {pins.backend_reason}" if pins.backend_reason else ""
        text = f"Backend: {pins.backend}{why}."
        casts = [cast for cast in read_casts(planned.plan) if not cast.endswith(EXACT)]
        texts = [text, *([f"Casts: {'; '.join(casts)}."] if casts else [])]

        def write(connection: sa.Connection) -> None:
            for each in texts:
                logs.append(connection, run_id, "info", each)

        self._database.transact(write)

    def score(self, item: WorkItem, holding: Holding) -> ShardResult:
        """Scores a shard and publishes its part; see `score_shard` for what it raises."""
        from augury.inference.plan import ShardSpec
        from augury.inference.score import score_shard
        from augury.models.backends import is_own

        if item.spec is None:
            raise CorruptError(f"work item {item.id} has no shard")
        run = self._planned(item.run_id)
        planned = run.plan.model
        if planned.flavor == "sklearn":
            warmup.complete()
        elif planned.flavor == "xgboost" and not is_own(run.plan.pins.backend):
            warmup.import_xgboost()
        model = self.cache.load(
            digest=planned.digest,
            uri=planned.uri,
            flavor=planned.flavor,
            signature=planned.signature,
            num_threads=run.num_threads,
            backend=run.plan.pins.backend,
        )
        return score_shard(
            run.plan,
            ShardSpec.from_json(item.spec),
            model,
            run.output,
            self._settings,
            num_threads=run.num_threads,
            on_progress=holding.on_progress,
            check=holding.check,
        )

    @property
    def cache(self) -> ModelCache:
        """This process's models."""
        if self._cache is None:
            from augury.models.cache import ModelCache

            self._cache = ModelCache(self._settings.effective_cache_dir, self._settings)
        return self._cache

    def _planned(self, run_id: str) -> _PlannedRun:
        found = self._runs.get(run_id)
        if found is None:
            found = self._runs[run_id] = self._read(run_id)
            if len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
        self._runs.move_to_end(run_id)
        return found

    def _read(self, run_id: str) -> _PlannedRun:
        from augury.inference.plan import Plan
        from augury.storage.objects import open_store

        with self._database.read() as connection:
            run = get_run(connection, run_id)
        return _PlannedRun(
            plan=Plan.from_json(run.plan or ""),
            output=open_store(run.output_uri, self._settings),
            num_threads=min(run.job_spec.shape.cpus, self._cpus),
        )
