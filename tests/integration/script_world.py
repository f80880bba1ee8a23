"""Script runs on real processes: one worker as a thread, jobs applied through the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augury import clock
from augury.engine import Engine
from augury.execution.local_executor import LocalExecutor
from augury.jobs import logs, output_log
from augury.jobs.output_log import OutputLine
from augury.jobs.runs import Run, get_run
from augury.jobs.spec import RunOverrides
from augury.jobs.states import RunState
from augury.resources.documents import Entry
from augury.settings import Settings
from augury.storage.database import Database


class ScriptWorld:
    """An engine whose scripts run in this process's worker.

    Args:
        engine: with its database and store.
        folder: for the files that jobs are made of.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.database: Database = engine.database
        self.settings: Settings = engine.settings
        self.executor = LocalExecutor(self.database, self.settings, queues=("script",)).start()

    def close(self) -> None:
        self.executor.close()

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def job(self, name: str, artifact: Path, **spec: Any) -> None:
        fields = {"kind": "script", "artifact": str(artifact), "grace_s": 0.5, **spec}
        self.engine.apply([Entry(section="jobs", name=name, fields=fields, base=self.folder)])

    def script(self, name: str, content: str, **spec: Any) -> None:
        """A job of a single file; `name` has the ending."""
        self.job(name, self.file(name, content), **spec)

    def start(self, job: str, **overrides: Any) -> Run:
        run, _ = self.engine.start_run(job, RunOverrides.model_validate(overrides))
        self.executor.wake("script")
        return run

    def ran(self, job: str, **overrides: Any) -> Run:
        """A run of the job, from its start to its end."""
        return self.finished(self.start(job, **overrides))

    def run(self, run: Run) -> Run:
        with self.database.read() as connection:
            return get_run(connection, run.id)

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
        deadline = clock.monotonic_s() + timeout_s
        while not condition():
            assert clock.monotonic_s() < deadline, f"{what}: not within {timeout_s} s"
            clock.sleep_s(0.01)

    def finished(self, run: Run) -> Run:
        self.until(lambda: self.run(run).is_finished, f"{run.name} has ended")
        return self.run(run)

    def lines(self, run: Run) -> list[OutputLine]:
        with self.database.read() as connection:
            return output_log.read(connection, run.id, limit=1_000_000)

    def texts(self, run: Run, stream: str = "stdout") -> list[str]:
        return [line.text for line in self.lines(run) if line.stream == stream]

    def until_it_says(self, run: Run, text: str) -> None:
        self.until(lambda: text in self.texts(run), f"{run.name} says {text!r}")

    def service_log(self, run: Run) -> list[str]:
        with self.database.read() as connection:
            return [line.message for line in logs.read(connection, run.id)]

    def output(self, run: Run) -> Mapping[str, str]:
        folder = Path(run.output_uri.removeprefix("file://"))
        return {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def succeeded(run: Run) -> Run:
    assert run.state is RunState.SUCCEEDED, run.lifecycle_details
    return run


def failed(run: Run) -> Run:
    assert run.state is RunState.FAILED, run.lifecycle_details
    return run
