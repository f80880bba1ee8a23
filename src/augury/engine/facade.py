"""What users can ask of Augury, the same for the API, the command line and Python.

Each method is one transaction (or says otherwise), after which workers and the bus are told at
once. Reading needs no method: `with engine.database.read() as connection: list_runs(connection)`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from augury.engine.parts import Parts
from augury.settings import Settings

if TYPE_CHECKING:
    from augury.bus.port import Durability
    from augury.engine.declarative import Applied, ApplyResult
    from augury.engine.replaying import PastRequest
    from augury.events.envelope import Event
    from augury.inference.plan import Plan, ShardSpec
    from augury.jobs.runs import Run
    from augury.jobs.script_spec import JobArtifact
    from augury.jobs.spec import RunOverrides
    from augury.models.registry import ModelVersion
    from augury.monitoring.doctor import Finding
    from augury.resources.documents import Entry
    from augury.resources.store import Change, Kind, Resource
    from augury.routing.dead_letters import DeadLetter
    from augury.routing.history import History
    from augury.routing.replay import Replay

_SDK_SOURCE = "augury/sdk"


class Engine(Parts):
    """Everything one process needs, opened lazily. Safe to share among threads.

    Args:
        settings: read from the environment if not given.
    """

    # --- events -----------------------------------------------------------------------------------

    def publish(self, events: Sequence[Event]) -> list[str]:
        """Puts events on the bus; returns their entry ids once they are durable.

        Not idempotent by itself: after an error the events may be on the bus. Publishing the same
        (source, id) again is safe, the ledger records it as a duplicate.

        Raises:
            UnavailableError: the bus did not confirm.
        """
        return self.bus.publish([event.to_json() for event in events])

    def history(self) -> History:
        """Everything that was ever accepted, in the ledger and in its archive."""
        from augury.routing.history import History

        return History(self.database, self.settings)

    def replay(self, request: PastRequest) -> tuple[Replay, bool]:
        """Lets a rule act on past events again; any sweeper carries it on.

        Returns:
            The replay, and False if its epoch was asked for before: then nothing is done twice.

        Raises:
            NotFoundError: no such rule or model.
            InvalidError: a time or an epoch that is none.
            ConflictError: the epoch was used for another replay.
        """
        from augury.engine.replaying import begin_replay

        return begin_replay(self, self.history(), request)

    def cancel_replay(self, replay_id: str) -> Replay:
        """Stops a replay; what it started goes on.

        Raises:
            NotFoundError: no such replay.
            ConflictError: it is done.
        """
        from augury.routing.replay import cancel_replay

        return self.database.transact(
            lambda connection: cancel_replay(self.database, connection, replay_id)
        )

    def durability(self) -> Durability:
        """What *accepted* means on the present bus."""
        return self.bus.durability()

    def redrive(self, dead_letter_id: str) -> DeadLetter:
        """Tries a dead letter again, once: an entry as it came, an action by the present rule.

        Raises:
            NotFoundError: no such dead letter, or no such job.
            ConflictError: it was redriven or discarded before, or its rule is gone.
            InvalidError: what it holds is no event, or does not fill the action.
        """
        from augury.routing.redrive import redrive

        letter, woken = self.database.transact(
            lambda connection: redrive(self.database, connection, dead_letter_id)
        )
        self.after_commit(woken)
        return letter

    def discard(self, dead_letter_id: str) -> DeadLetter:
        """Throws a dead letter away; it stays listed as DISCARDED.

        Raises:
            NotFoundError: no such dead letter.
            ConflictError: it was redriven before.
        """
        from augury.routing.dead_letters import discard

        return self.database.transact(
            lambda connection: discard(self.database, connection, dead_letter_id)
        )

    # --- resources --------------------------------------------------------------------------------

    def apply(self, entries: Sequence[Entry], *, dry_run: bool = False) -> ApplyResult:
        """Creates or updates what documents say; see `declarative.apply`."""
        from augury.engine.declarative import apply

        return apply(self, entries, dry_run=dry_run)

    def put(self, kind: Kind, name: str, spec: Mapping[str, Any]) -> Applied:
        """Creates or updates one resource, as a document with this one entry would.

        Raises:
            InvalidError: with every fault.
        """
        from augury.errors import Fault, InvalidError
        from augury.resources.documents import Entry, name_fault

        if fault := name_fault(name):
            raise InvalidError("refused", faults=[Fault(path="name", message=fault)])
        (applied,) = self.apply([Entry(section=f"{kind}s", name=name, fields=spec)]).items
        return applied

    def delete(self, kind: Kind, name: str) -> Resource:
        """Deletes one resource; its history stays.

        Raises:
            NotFoundError: no such resource.
        """
        from augury.engine.declarative import delete_resource

        resource = self.database.transact(
            lambda connection: delete_resource(self, connection, kind, name)
        )
        self.after_commit()
        return resource

    def enable(self, kind: Kind, name: str, *, enabled: bool) -> tuple[Resource, Change]:
        """Switches a rule, source or schedule on or off; leaves the rest of its spec as it is.

        Raises:
            NotFoundError: no such resource.
        """
        from augury.engine.declarative import enable_resource

        switched = self.database.transact(
            lambda connection: enable_resource(self, connection, kind, name, enabled=enabled)
        )
        self.after_commit()
        return switched

    def keep_artifact(self, path: Path, file_name: str) -> JobArtifact:
        """Puts a script or archive into the store of artifacts, for jobs to name. Idempotent.

        Raises:
            InvalidError: no job can run it.
            LimitError: it is too large.
        """
        from augury.scripts.artifacts import examine, keep

        artifact = examine(path, file_name)
        keep(self.store, path, artifact)
        return artifact

    # --- runs -------------------------------------------------------------------------------------

    def start_run(
        self, job: str, overrides: RunOverrides | None = None, *, idempotency_key: str | None = None
    ) -> tuple[Run, bool]:
        """Accepts a run of a job.

        Returns:
            The run, and False if the key had been used before: then it is that run, as it is now.

        Raises:
            NotFoundError: no such job.
            InvalidError: job and overrides do not fit.
            ConflictError: the key was used for something else.
        """
        from augury.jobs.runs import first_queue, start_run
        from augury.jobs.script_spec import parse_spec

        run, created = self.database.transact(
            lambda connection: start_run(
                self.database,
                connection,
                job=job,
                overrides=overrides,
                idempotency_key=idempotency_key,
            )
        )
        self.after_commit({str(first_queue(parse_spec(run.spec))): 1} if created else None)
        return run, created

    def plan_run(
        self, job: str, overrides: RunOverrides | None = None
    ) -> tuple[Plan, list[ShardSpec]]:
        """What a run of the job would do, decided from footers; starts and writes nothing.

        Raises:
            NotFoundError: no such job, model or input.
            ContractError: data and model do not fit; with every fault.
            AuguryError: whatever else `inference.planning.plan_run` raises.
        """
        from augury.errors import InvalidError
        from augury.inference.planning import plan_run
        from augury.jobs.acceptance import draft_run
        from augury.jobs.spec import JobSpec, RunOverrides
        from augury.models.registry import resolve

        with self.database.read() as connection:
            spec = draft_run(connection, job=job, overrides=overrides or RunOverrides()).spec
            if not isinstance(spec, JobSpec):
                raise InvalidError(f"job {job!r} runs a script: there is nothing to plan")
            model = resolve(connection, spec.model)
        return plan_run(spec, model, self.settings, check=lambda: None, verdict=model.verdict)

    def cancel_run(self, run: str) -> Run:
        """Asks a run to stop; a second time changes nothing.

        Raises:
            NotFoundError: no such run.
            ConflictError: it is over, or committed its output already.
        """
        from augury.jobs.runs import cancel

        found = self.database.transact(lambda connection: cancel(self.database, connection, run))
        self.after_commit()
        return found

    def resume_run(self, run: str) -> Run:
        """Lets a run that failed, was canceled or needs attention go on with what is missing.

        Raises:
            NotFoundError: no such run.
            ConflictError: it goes on by itself, has succeeded, or is being cleaned up.
        """
        from augury.jobs.resume import resume

        found, ready = self.database.transact(
            lambda connection: resume(self.database, connection, run)
        )
        self.after_commit(dict(ready))
        return found

    def retry_rejected(
        self,
        run: str,
        overrides: RunOverrides | None = None,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """Scores a run's rejected rows again, in this process; several transactions.

        Raises:
            AuguryError: see `inference.retry.retry_rejected`.
        """
        from augury.inference.retry import retry_rejected

        found = retry_rejected(
            self.database, run, self.settings, overrides=overrides, on_progress=on_progress
        )
        self.after_commit()
        return found

    def delete_run(self, run: str) -> Run:
        """Takes a run that is over out of all listings; a committed output stays.

        Raises:
            NotFoundError: no such run.
            ConflictError: it is not over.
        """
        from augury.jobs.runs import delete_run

        deleted = self.database.transact(
            lambda connection: delete_run(self.database, connection, run)
        )
        self.after_commit()
        return deleted

    # --- models -----------------------------------------------------------------------------------

    def register_model(
        self,
        name: str,
        path: Path,
        *,
        sample: Path | None = None,
        flavor: str | None = None,
        trust: bool = False,
        description: str | None = None,
        alias: str | None = None,
    ) -> tuple[ModelVersion, Change]:
        """Registers a file as a version of a model; the same content is the same version.

        Raises:
            InvalidError: no model, not trusted, or no signature can be inferred.
        """
        from augury.models.registry import register

        registered = register(
            self.database,
            self.store,
            name=name,
            path=path,
            sample=sample,
            flavor=flavor,
            trust=trust,
            description=description,
            alias=alias,
        )
        self.after_commit()
        return registered

    def delete_model(self, name: str) -> None:
        """Deletes a model with all versions and aliases; runs that are planned go on.

        Raises:
            NotFoundError: no such model.
        """
        from augury.models.registry import delete

        self.database.transact(lambda connection: delete(self.database, connection, name))
        self.after_commit()

    def set_alias(self, name: str, alias: str, version: int) -> Change:
        """Moves an alias to a version of a model.

        Raises:
            NotFoundError: no such model or version.
        """
        from augury.models.registry import set_alias

        change = self.database.transact(
            lambda connection: set_alias(self.database, connection, name, alias, version)
        )
        self.after_commit()
        return change


def open_engine(settings: Settings | None = None) -> Engine:
    """An engine for the caller's process; nothing is opened before it is used."""
    return Engine(settings)


def diagnose(settings: Settings | None = None) -> list[Finding]:
    """All of the doctor's findings, Celery's effective settings included."""
    from augury.execution.celery_app import app
    from augury.monitoring import doctor

    return doctor.diagnose(settings or Settings(), celery=cast("Mapping[str, object]", app.conf))


_shared: dict[int, Engine] = {}
_shared_lock = threading.Lock()


def shared_engine() -> Engine:
    """This process's engine on the environment's settings, made once (and again after a fork)."""
    with _shared_lock:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = Engine()
        return _shared[os.getpid()]


def publish(
    event: str | Mapping[str, Any],
    data: Any = None,
    *,
    source: str = _SDK_SOURCE,
    subject: str | None = None,
    event_id: str | None = None,
    engine: Engine | None = None,
) -> str:
    """Publishes one event and returns its id, once the event is durable.

    Args:
        event: the type, for example `shop.order.placed`; or a whole CloudEvent as a mapping, and
            then `data` and the other attributes must not be given.
        data: any JSON value.
        source: who says it; with the id unique for every distinct event.
        subject: what it is about.
        event_id: give one to make a repeated call harmless: the ledger knows a duplicate.
        engine: another engine than this process's own.

    Raises:
        InvalidError: not a valid event; every fault is named.
        UnavailableError: the bus did not confirm; publish again with the same `event_id`.
    """
    from augury.events.envelope import new_event, parse_event

    used = engine or shared_engine()
    max_bytes = used.settings.max_event_bytes
    if isinstance(event, str):
        made = new_event(event, data, source=source, subject=subject, event_id=event_id)
        checked = parse_event(made.to_json(), max_bytes=max_bytes)
    else:
        checked = parse_event(event, max_bytes=max_bytes)
    used.publish([checked])
    return checked.id
