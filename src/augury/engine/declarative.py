"""Applying documents: entries in, resources created or updated, all or nothing.

First every entry is checked, and every fault of all of them is named. Models are registered next:
their artifacts are in the object store under their digests, so doing it twice is doing it once.
Then sources, schedules, jobs and rules are written in *one* transaction, in the same order by
everybody; so of two applies at the same time each is whole, and the later one wins. What names
something that is not there yet (a job its model, a rule its job) is warned of, not refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury.engine.checks import ModelSpec, prepare, spec_type, warnings, within
from augury.engine.job_artifacts import keep_named
from augury.engine.linting import lint_warnings
from augury.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from augury.resources import store
from augury.resources.documents import Entry, refusal
from augury.resources.store import Change, Kind

if TYPE_CHECKING:
    from augury.engine.parts import Parts
    from augury.resources.store import Resource

MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of one entry. `kind` is `model`, `source`, `schedule`, `job` or `rule`."""

    kind: str
    name: str
    change: Change
    version: int


@dataclass(frozen=True, kw_only=True)
class ApplyResult:
    """What an apply did (or would do), in the order of doing it."""

    items: tuple[Applied, ...]
    warnings: tuple[str, ...] = ()
    dry_run: bool = False


class _DryRunError(Exception):
    """Carries the result of a transaction that is rolled back on purpose."""

    def __init__(self, result: ApplyResult) -> None:
        super().__init__()
        self.result = result


def apply(parts: Parts, entries: Sequence[Entry], *, dry_run: bool = False) -> ApplyResult:
    """Creates or updates everything that `entries` say. Idempotent.

    Args:
        parts: whose database and object store.
        entries: of one or several documents.
        dry_run: check and compare, but write nothing.

    Raises:
        InvalidError: with every fault of every entry; nothing was written.
        UnavailableError: database or object store did not answer; models may be registered.
    """
    prepared = prepare(parts.settings, entries)
    models = [_register(parts, entry, spec, dry_run=dry_run) for entry, spec in prepared.models]
    for named in prepared.artifacts:
        keep_named(parts.store, named, dry_run=dry_run)
    linted = tuple(lint_warnings(parts.database, prepared))

    def write(connection: sa.Connection) -> ApplyResult:
        written = [
            _applied(write_resource(parts, connection, kind, entry.name, spec))
            for kind, entry, spec in prepared.resources
        ]
        warned = (*warnings(connection, prepared), *linted)
        result = ApplyResult(items=(*models, *written), warnings=warned, dry_run=dry_run)
        if dry_run:
            raise _DryRunError(result)
        return result

    try:
        result = parts.database.transact(write)
    except _DryRunError as dry:
        return dry.result
    parts.after_commit()
    return result


def _applied(written: tuple[Resource, Change]) -> Applied:
    resource, change = written
    return Applied(kind=resource.kind, name=resource.name, change=change, version=resource.version)


def write_resource(
    parts: Parts, connection: sa.Connection, kind: Kind, name: str, spec: Any
) -> tuple[Resource, Change]:
    """Creates or updates one resource of any kind inside the caller's transaction."""
    database = parts.database
    if kind is Kind.RULE:
        from augury.rules.store import apply_rule

        return apply_rule(database, connection, name, spec)
    if kind is Kind.SOURCE:
        from augury.sources.store import apply_source

        return apply_source(database, connection, name, spec)
    if kind is Kind.SCHEDULE:
        from augury.sources.store import apply_schedule

        return apply_schedule(database, connection, name, spec)
    return store.put(database, connection, kind, name, spec.model_dump(mode="json"))


def delete_resource(parts: Parts, connection: sa.Connection, kind: Kind, name: str) -> Resource:
    """Deletes one resource of any kind inside the caller's transaction.

    Raises:
        NotFoundError: no such resource.
    """
    database = parts.database
    if kind is Kind.RULE:
        from augury.rules.store import delete_rule

        return delete_rule(database, connection, name)
    if kind is Kind.SOURCE:
        from augury.sources.store import delete_source

        return delete_source(database, connection, name)
    if kind is Kind.SCHEDULE:
        from augury.sources.store import delete_schedule

        return delete_schedule(database, connection, name)
    return store.delete(database, connection, kind, name)


def enable_resource(
    parts: Parts, connection: sa.Connection, kind: Kind, name: str, *, enabled: bool
) -> tuple[Resource, Change]:
    """Switches a resource on or off inside the caller's transaction.

    Raises:
        NotFoundError: no such resource.
    """
    found = store.find(connection, kind, name, lock=parts.database)
    if found is None:
        found = store.get(connection, kind, name)  # raises, and says what there is
    spec = spec_type(kind).model_validate({**found.spec, "enabled": enabled})
    return write_resource(parts, connection, kind, name, spec)


def _register(parts: Parts, entry: Entry, spec: ModelSpec, *, dry_run: bool) -> Applied:
    from augury.models import registry

    if dry_run:
        return _would_register(parts, entry, spec)
    try:
        version, change = registry.register(
            parts.database,
            parts.store,
            name=entry.name,
            path=Path(spec.path),
            sample=None if spec.sample is None else Path(spec.sample),
            signature=spec.signature,
            flavor=spec.flavor,
            trust=spec.trust,
            description=spec.description,
            alias=spec.alias,
        )
    except InvalidError as error:
        raise refusal(entry.origin, list(within(entry, error))) from error
    except (ConflictError, CorruptError) as error:
        message = str(entry.fault(error.message, "path"))
        raise type(error)(message, **error.attributes) from error
    return Applied(kind=MODEL, name=entry.name, change=change, version=version.version)


def _would_register(parts: Parts, entry: Entry, spec: ModelSpec) -> Applied:
    """Compares by digest, which is all that makes a version."""
    import hashlib

    from augury.models import registry

    with Path(spec.path).open("rb") as artifact:
        digest = hashlib.file_digest(artifact, "sha256").hexdigest()
    with parts.database.read() as connection:
        try:
            versions = registry.list_versions(connection, entry.name)
        except NotFoundError:
            versions = []
    same = [found.version for found in versions if found.digest == digest]
    following = max((found.version for found in versions), default=0) + 1
    return Applied(
        kind=MODEL,
        name=entry.name,
        change=Change.UNCHANGED if same else Change.CREATED,
        version=same[0] if same else following,
    )
