"""Real runs on real services: a registered XGBoost model, Parquet files, workers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import xgboost
from pyarrow import parquet as pq

from augury import clock
from augury.execution.celery_executor import CeleryExecutor
from augury.execution.local_executor import LocalExecutor
from augury.execution.sweeper import Sweeper
from augury.jobs.executor import Executor
from augury.jobs.runs import Run, cancel, first_queue, get_run, start_run
from augury.jobs.spec import RunOverrides
from augury.jobs.states import RunState
from augury.models.registry import register
from augury.processes.up import settings_environment
from augury.resources import store
from augury.resources.store import Kind
from augury.settings import Settings, child_environment
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.objects import open_store

READY_S = 60.0


def train(path: Path, *, num_trees: int = 4, depth: int = 3) -> Path:
    """An XGBoost regression over columns a and b; more and deeper trees take longer to score."""
    generator = np.random.default_rng(7)
    features = generator.normal(size=(4000, 2)).astype(np.float32)
    target = features[:, 0] * 3 + generator.normal(size=4000)
    matrix = xgboost.DMatrix(features, label=target, feature_names=["a", "b"])
    booster = xgboost.train({"max_depth": depth, "nthread": 1, "seed": 7}, matrix, num_trees)
    booster.save_model(path)
    return path


class ExecutionWorld:
    """An installation without router: runs are started by hand.

    Args:
        database: the ledger.
        settings: name it, a bus and a home.
        model: the file of a model over columns a and b.
    """

    def __init__(self, database: Database, settings: Settings, model: Path) -> None:
        self.database = database
        self.settings = settings
        self.executor: Executor = CeleryExecutor(settings)
        self._sweeping: Sweeping | None = None
        self.folder = settings.absolute_home
        self.processes: list[WorkerProcess] = []
        artifacts = open_store(settings.effective_store_url, settings)
        register(database, artifacts, name="m", path=model, alias="champion")
        if model.stem == "slow":
            self._keep_slow()
        self.job("score")

    def _keep_slow(self) -> None:
        """As if checked for another kernel: the library, a tenth as fast, scores the model."""
        older = sa.update(tables.model_versions).values(backend="augury forest 0")
        self.database.transact(lambda connection: connection.execute(older))

    def job(self, name: str, **spec: Any) -> None:
        full = {"model": "m@champion", "output": f"{self.folder}/out/", "columns": ["id"], **spec}
        self.database.transact(lambda c: store.put(self.database, c, Kind.JOB, name, full))

    def drop(self, name: str, num_rows: int, *, row_group: int | None = None) -> Path:
        """A file of `num_rows` rows below `in/`."""
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = np.arange(num_rows)
        columns = {
            "id": ids,
            "a": np.sin(ids * 0.37).astype(np.float32),
            "b": (ids % 11).astype(np.float32),
        }
        pq.write_table(pa.table(columns), path, row_group_size=row_group or max(1, num_rows))
        return path

    def start(self, path: Path, *, job: str = "score", wake: bool = True, **overrides: Any) -> Run:
        fields = {"input": [{"uri": str(path)}], **overrides}
        run, _ = self.database.transact(
            lambda c: start_run(
                self.database, c, job=job, overrides=RunOverrides.model_validate(fields)
            )
        )
        if wake:
            self.executor.wake(first_queue(run.job_spec))
        return run

    def cancel(self, run: Run) -> Run:
        return self.database.transact(lambda c: cancel(self.database, c, run.id))

    def sweeper(self, **changes: Any) -> Sweeper:
        settings = self.settings.model_copy(update=changes)
        return Sweeper(self.database, self.executor, settings)

    def sweeps(self, **changes: Any) -> Sweeping:
        """A sweeper that sweeps until the end of the test."""
        self._sweeping = Sweeping(self.sweeper(**changes))
        return self._sweeping

    def local_workers(self, num_workers: int = 1) -> LocalExecutor:
        """Workers as threads of this process, instead of Celery's."""
        self.executor.close()
        local = LocalExecutor(self.database, self.settings, num_workers=num_workers)
        self.executor = local.start()
        return local

    def worker(self, **options: Any) -> WorkerProcess:
        """A worker process, ready for work."""
        process = WorkerProcess(self.settings, self.folder, number=len(self.processes), **options)
        self.processes.append(process)
        process.wait_until_ready()
        return process

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.stop()
        for process in self.processes:
            process.kill()
        self.executor.close()

    # --- what there is ----------------------------------------------------------------------------

    def run(self, run: Run) -> Run:
        with self.database.read() as connection:
            return get_run(connection, run.id)

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[sa.Row[Any]]:
        with self.database.read() as connection:
            order = list(table.primary_key.columns)
            return list(connection.execute(sa.select(table).where(*where).order_by(*order)))

    def work(self, run: Run, *states: str) -> list[sa.Row[Any]]:
        """The run's items in these states (any if none is given), the plan first."""
        found = self.rows(tables.work, tables.work.c.run_id == run.id)
        ordered = sorted(found, key=lambda row: (row.kind, row.seq))
        return [row for row in ordered if not states or row.state in states]

    def until(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        timeout_s: float = 45.0,
        meanwhile: Callable[[], Any] = lambda: None,
    ) -> None:
        deadline = clock.monotonic_s() + timeout_s
        while not condition():
            assert clock.monotonic_s() < deadline, f"{what}: not within {timeout_s} s\n" + (
                "\n".join(process.said() for process in self.processes)
            )
            meanwhile()
            clock.sleep_s(0.01)

    def finished(self, run: Run, *, timeout_s: float = 45.0, **options: Any) -> Run:
        """Waits until the run has ended."""
        self.until(
            lambda: self.run(run).is_finished, "run has ended", timeout_s=timeout_s, **options
        )
        return self.run(run)

    def succeeded(self, run: Run, **options: Any) -> Run:
        """Waits until the run has ended, which must be well."""
        found = self.finished(run, **options)
        assert found.state is RunState.SUCCEEDED, found.lifecycle_details
        return found

    def output(self, run: Run) -> dict[str, bytes]:
        """Every file in the run's folder, hidden ones too, but the manifest's run id."""
        folder = Path(run.output_uri.removeprefix("file://"))
        return {
            path.name: path.read_bytes().replace(run.id.encode(), b"RUN")
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def predictions(self, run: Run) -> pa.Table:
        """All rows of a run's parts, in order."""
        folder = Path(run.output_uri.removeprefix("file://"))
        return pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*")))


class Sweeping:
    """A sweeper in a thread."""

    def __init__(self, sweeper: Sweeper) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=sweeper.run, args=(self._stop,))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class WorkerProcess:
    """One worker in a process of its own, started like an operator or `augury up` does."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        number: int,
        queues: Sequence[str] = ("mini_batch", "batch", "distributed"),
        by_celery: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"worker-{number}.log"
        self._ready = folder / f"worker-{number}.ready"
        self._ready.unlink(missing_ok=True)
        command = self._command(number, queues) if not by_celery else self._celery(queues)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=child_environment(**settings_environment(settings)),
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )
        self._by_celery = by_celery

    def _command(self, number: int, queues: Sequence[str]) -> list[str]:
        script = (
            "import sys, pathlib\n"
            "from augury.processes.main import run_worker\n"
            "from augury.settings import Settings\n"
            "run_worker(Settings(), name=sys.argv[1], queues=sys.argv[2],"
            " on_ready=lambda: pathlib.Path(sys.argv[3]).touch())\n"
        )
        names = ",".join(queues)
        return [sys.executable, "-c", script, f"w{number}", names, str(self._ready)]

    def _celery(self, queues: Sequence[str]) -> list[str]:
        celery = str(Path(sys.executable).with_name("celery"))
        return [
            celery, "--app=workers.app", "worker", f"--queues={','.join(queues)}", "--pool=solo",
            "--concurrency=1", "--without-gossip", "--without-mingle",
        ]  # fmt: skip

    def wait_until_ready(self) -> None:
        deadline = clock.monotonic_s() + READY_S
        while not self._is_ready():
            assert self.process.poll() is None, self.said()
            assert clock.monotonic_s() < deadline, self.said()
            clock.sleep_s(0.02)

    def _is_ready(self) -> bool:
        return "ready." in self.said() if self._by_celery else self._ready.exists()

    def said(self) -> str:
        return f"--- {self.log.name}\n{self.log.read_text(errors='replace')[-6000:]}"

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9, as a machine that fails does it; nothing of its group is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        self.send(signal.SIGTERM)
        return self.process.wait(timeout_s)
