"""One attempt of a script run, from the claimed item to how it ended.

The order matters: the log is complete in the ledger, and the output with its store, before anybody
can see that the run has ended. A run that is canceled, or that is somebody else's by now, ends
here with the error that says so, after its last process has gone.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augury import clock
from augury.errors import AuguryError, InvalidError, LostLeaseError, UnavailableError
from augury.jobs import logs, script_reports
from augury.jobs.reports import Failure
from augury.jobs.runs import Run
from augury.jobs.script_reports import Ending
from augury.jobs.script_spec import ScriptSpec
from augury.jobs.work import WorkItem
from augury.scripts.artifacts import ArtifactCache, Placed
from augury.scripts.endings import failure_of
from augury.scripts.entry import command_of
from augury.scripts.environments import REQUIREMENTS, Environments
from augury.scripts.logbook import Logbook
from augury.scripts.outputs import output_folder, upload
from augury.scripts.process import Ended, Limits, Program
from augury.scripts.variables import (
    INHERITED,
    OUTPUT_DIR,
    OUTPUT_URI,
    RunFacts,
    run_environment,
)
from augury.scripts.workspace import TEMPORARY, remove_abandoned, workspace
from augury.settings import passed_environment

if TYPE_CHECKING:
    from augury.settings import Settings
    from augury.storage.database import Database
    from augury.storage.objects import ObjectStore

_RETRY_S = 0.5
_RETRIES_S = 30.0
_LAST_WORDS_S = 30.0
# what a stopping worker keeps back of its time, to upload and to report
_AFTERWARDS_S = 2.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    argv: Sequence[str]
    environment: dict[str, str]
    output_dir: Path
    output_uri: str


class ScriptRunner:
    """Runs scripts on this host, one at a time.

    Args:
        database: the ledger.
        store: where artifacts are.
        settings: of this process.
        cpus: of this worker.
        is_draining: True once the worker was asked to stop.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        settings: Settings,
        *,
        cpus: int,
        is_draining: Callable[[], bool],
    ) -> None:
        self._database = database
        self._settings = settings
        self._cpus = cpus
        self._is_draining = is_draining
        self._scratch = settings.effective_scratch_dir
        self._artifacts = ArtifactCache(settings.effective_cache_dir, store)
        self._environments = Environments(settings.effective_cache_dir)
        remove_abandoned(self._scratch)

    def run(self, item: WorkItem, check: Callable[[], None]) -> Ending:
        """Carries out an attempt.

        Args:
            item: the run's item, claimed by this worker.
            check: raises as soon as the run is not wanted here any more.

        Raises:
            LostLeaseError: it is not; everything has been stopped.
            AuguryError: the run could not be set up.
        """
        run = self._database.transact(
            lambda connection: script_reports.begin(self._database, connection, item)
        )
        spec = run.script_spec
        with workspace(self._scratch, f"{run.id}-{item.token}") as home:
            prepared = self._patiently(lambda: self._prepare(run, spec, home, check), check)
            check()
            self._database.transact(
                lambda connection: script_reports.start(self._database, connection, item)
            )
            program = Program(
                prepared.argv,
                environment=prepared.environment,
                folder=home,
                limits=self._limits(run, spec),
            )
            logbook = Logbook(self._database, item, spec.logging)
            ended = self._execute(program, logbook, check)
            failure = failure_of(ended, spec)
            failure = self._upload(run.id, prepared, failure, self._unless_draining(check))
        return Ending(
            exit_code=ended.exit_code,
            exit_signal=ended.signal,
            peak_memory_bytes=ended.peak_memory_bytes,
            failure=failure,
        )

    # --- before -----------------------------------------------------------------------------------

    def _patiently(self, do: Callable[[], _Prepared], check: Callable[[], None]) -> _Prepared:
        """Nothing has started yet, so a store that does not answer may be asked again."""
        until_s = clock.monotonic_s() + _RETRIES_S
        while True:
            try:
                return do()
            except UnavailableError:
                if clock.monotonic_s() > until_s:
                    raise
                check()
                clock.sleep_s(_RETRY_S)

    def _prepare(
        self, run: Run, spec: ScriptSpec, home: Path, check: Callable[[], None]
    ) -> _Prepared:
        for left in home.iterdir():  # of a try before
            if left.name != TEMPORARY:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        placed = self._artifacts.place(spec.artifact, home, spec.environment)
        python = self._python(run, spec, placed, check)
        facts = RunFacts(
            job_id=run.job_id,
            job_name=run.job_name,
            run_id=run.id,
            run_name=run.name,
            attempt=run.attempt,
            artifact_name=spec.artifact.file_name,
            home=home,
            path=os.pathsep.join([str(python.parent), _SYSTEM_PATH]),
            cpus=min(spec.shape.cpus, self._cpus),
            input_uris=[found.uri for found in spec.input],
            output_uri=run.output_uri,
            host=socket.gethostname(),
            installation=self._settings.namespace,
        )
        inherited = passed_environment(INHERITED)
        environment = run_environment(facts, inherited, placed.runtime, spec.environment)
        output_dir = output_folder(home, environment[OUTPUT_DIR])
        output_dir.mkdir(parents=True, exist_ok=True)
        return _Prepared(
            argv=[*command_of(placed.kind, str(placed.entry), str(python)), *spec.arguments],
            environment=environment,
            output_dir=output_dir,
            output_uri=environment.get(OUTPUT_URI, ""),
        )

    def _python(
        self, run: Run, spec: ScriptSpec, placed: Placed, check: Callable[[], None]
    ) -> Path:
        """The worker's own, or one with what the artifact's requirements ask for."""
        folders = [f for f in (placed.root, placed.entry.parent) if (f / REQUIREMENTS).is_file()]
        if not folders:
            return Path(sys.executable)
        python, took_s = self._environments.python(folders[0], spec.artifact.digest, check)
        built = f"built in {took_s:.1f} s" if took_s else "found"
        self._note(run.id, "info", f"Environment of {REQUIREMENTS} {built}.")
        return python

    # --- the program ------------------------------------------------------------------------------

    def _execute(self, program: Program, logbook: Logbook, check: Callable[[], None]) -> Ended:
        stopped: list[LostLeaseError] = []

        def look() -> None:
            logbook.flush_if_due()
            if self._is_draining():
                program.stop(in_a_hurry=True)
            elif not stopped:
                try:
                    check()
                except LostLeaseError as error:
                    stopped.append(error)
                    program.stop()

        ended = program.run(logbook.take, look, logbook.is_full)
        self._close(logbook, can_wait=not stopped)
        if stopped:
            raise stopped[0]
        return ended

    def _limits(self, run: Run, spec: ScriptSpec) -> Limits:
        ran_s = 0.0
        if run.time_started is not None:  # attempts before this one
            ran_s = max(0.0, (clock.utc_now() - run.time_started).total_seconds())
        return Limits(
            cpus=some_cpus(spec.shape.cpus),
            memory_bytes=spec.shape.memory,
            storage_bytes=spec.block_storage,
            maximum_runtime_s=max(0.0, spec.maximum_runtime_s - ran_s),
            grace_s=spec.grace_s,
            hurried_grace_s=min(spec.grace_s, max(0.0, self._settings.drain_s - _AFTERWARDS_S)),
        )

    def _close(self, logbook: Logbook, *, can_wait: bool) -> None:
        """The log is complete before the run's end can be seen."""
        until_s = clock.monotonic_s() + _LAST_WORDS_S
        while True:
            try:
                logbook.close()
                return
            except UnavailableError:
                if not can_wait or clock.monotonic_s() > until_s:
                    return
                clock.sleep_s(_RETRY_S)

    def _unless_draining(self, check: Callable[[], None]) -> Callable[[], None]:
        """A worker that stops has just enough time to finish: it is not asked to let go."""
        return lambda: None if self._is_draining() else check()

    # --- after ------------------------------------------------------------------------------------

    def _upload(
        self,
        run_id: str,
        prepared: _Prepared,
        failure: Failure | None,
        check: Callable[[], None],
    ) -> Failure | None:
        """Uploads what the program left, also after a failure; that it fails is one, too."""
        if not prepared.output_uri:
            return failure
        try:
            uploaded = upload(prepared.output_dir, prepared.output_uri, self._settings, check)
        except LostLeaseError:
            raise
        except (AuguryError, OSError) as error:
            text = f"The output could not be uploaded to {prepared.output_uri}: {error}"
            self._note(run_id, "error", text)
            code = error.code if isinstance(error, AuguryError) else InvalidError.code
            return failure or Failure(code=code, message=text, is_permanent=True)
        left_out = f", {uploaded.num_left_out} links left out" if uploaded.num_left_out else ""
        text = f"Output: {uploaded.num_files} files, {uploaded.size_bytes} bytes{left_out}."
        self._note(run_id, "info", text)
        return failure

    def _note(self, run_id: str, level: str, text: str) -> None:
        self._database.transact(lambda connection: logs.append(connection, run_id, level, text))


def some_cpus(wanted: int) -> list[int]:
    """Numbers of as many of this process's CPUs, neighbours, beginning anywhere; empty: all."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    available = sorted(os.sched_getaffinity(0))
    if wanted >= len(available):
        return available
    first = random.randrange(len(available))
    return [available[(first + number) % len(available)] for number in range(wanted)]
