"""The registry: which model versions there are, and what each name means now.

A version is immutable: a file, known by its SHA-256 and kept under it in the object store, with
its flavor and signature. Registering the same file again changes nothing and makes no version;
aliases (`champion`) are what moves. Every change emits its event in its own transaction.

A pickle is registered only by somebody who trusts it; nothing else ever unpickles it, so a digest
in here is a digest that somebody vouched for.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.bus.outbox import emit
from augury.errors import ConflictError, InvalidError, NotFoundError
from augury.events.catalog import OWN_SOURCE, EventType
from augury.events.envelope import new_event
from augury.models.backends import Verdict, judge
from augury.models.flavors import open_flavor
from augury.models.port import Flavor
from augury.models.sample import read_sample
from augury.models.signature import Signature
from augury.resources.store import Change
from augury.storage.database import Database
from augury.storage.files import file_digest
from augury.storage.objects import ObjectStore
from augury.storage.tables import model_aliases, model_versions, models

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,254}\Z")  # no digit first: `name@3` is version 3
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a model. Versions count from 1 and never go back.

    Attributes:
        backend: what scores it, found by the self-check when its file was last registered.
        backend_reason: why that is the library and not Augury's kernel; empty if it is the kernel.
    """

    name: str
    version: int
    digest: str
    flavor: str
    signature: Signature
    uri: str
    size_bytes: int
    trusted: bool
    description: str | None
    created_at: datetime
    backend: str = ""
    backend_reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the self-check found when the file was registered."""
        return Verdict(backend=self.backend, reason=self.backend_reason)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A file that is in the object store and understood, and not in the database yet."""

    digest: str
    flavor: str
    signature: Signature
    uri: str
    size_bytes: int
    trusted: bool
    description: str | None
    explicit: bool
    verdict: Verdict


def register(
    database: Database,
    store: ObjectStore,
    *,
    name: str,
    path: Path,
    sample: Path | None = None,
    signature: Signature | Mapping[str, Any] | None = None,
    flavor: str | None = None,
    trust: bool = False,
    description: str | None = None,
    alias: str | None = None,
) -> tuple[ModelVersion, Change]:
    """Registers a model file as a version of `name`; idempotent by the file's content.

    Args:
        database: the ledger.
        store: where artifacts are kept, at `models/{digest}{suffix}`.
        name: the model's name; made if there is none.
        path: the file.
        sample: a Parquet file that looks like the model's input.
        signature: inputs and outputs, or the document of them; None: inferred from model and
            sample.
        flavor: the format's name; None: by the file's ending.
        trust: the caller vouches for a file that runs code when loaded.
        description: for people.
        alias: moved to this version in the same transaction.

    Returns:
        The version, and CREATED (new version), UPDATED (known version, alias moved) or UNCHANGED.

    Raises:
        InvalidError: name, file, sample or signature is wrong, or a pickle is not trusted.
        CorruptError: the file is no model of its format.
        NotFoundError: no such file.
        ConflictError: the same file is registered with another signature.
    """
    _check_names(name, alias)
    opened = open_flavor(path, name=flavor, trust=trust)
    digest = file_digest(path)
    inferred = _signature(opened, path, sample, signature)
    verdict = judge(opened, path, inferred)  # loads it: before a bad file enters the store
    candidate = _Candidate(
        digest=digest,
        flavor=opened.name,
        signature=inferred,
        uri=_stored(store, path, digest),
        size_bytes=path.stat().st_size,
        trusted=trust,
        description=description,
        explicit=signature is not None or sample is not None,
        verdict=verdict,
    )
    return database.transact(
        lambda connection: _record(database, connection, name, candidate, alias)
    )


def _check_names(name: str, alias: str | None) -> None:
    if not _NAME.match(name):
        raise InvalidError(
            f"expected a model name of letters, digits, '.', '_' and '-', found {name!r}"
        )
    if alias is not None and not _ALIAS.match(alias):
        raise InvalidError(
            "expected an alias of letters, digits, '.', '_' and '-' that starts with a letter, "
            f"found {alias!r}"
        )


def _signature(
    flavor: Flavor,
    path: Path,
    sample: Path | None,
    given: Signature | Mapping[str, Any] | None,
) -> Signature:
    """The given signature, or the inferred one."""
    if given is None:
        signature = flavor.infer(path, read_sample(sample) if sample is not None else None)
    elif isinstance(given, Signature):
        signature = given
        signature.check()
    else:
        signature = Signature.from_json(given, dtype=flavor.native_dtype(path))
    return signature


def _stored(store: ObjectStore, path: Path, digest: str) -> str:
    """Brings the file into the object store; identical content that is there is fine."""
    key = f"models/{digest}{path.suffix.lower()}"
    staged = store.stage(key)
    try:
        shutil.copyfile(path, staged)
        if file_digest(staged) != digest:
            raise ConflictError(f"model {path} was changed while it was read; try again")
        store.put_file(key, staged)
    finally:
        staged.unlink(missing_ok=True)
    return store.uri(key)


def _record(
    database: Database,
    connection: sa.Connection,
    name: str,
    candidate: _Candidate,
    alias: str | None,
) -> tuple[ModelVersion, Change]:
    model_id = _find_model(connection, name, lock=database) or _new_model(connection, name)
    known = _find_version(connection, name, model_versions.c.digest == candidate.digest)
    if known is None:
        version = _insert_version(database, connection, model_id, name, candidate)
        change = Change.CREATED
    else:
        _check_same(known, candidate)
        version, change = _judged_anew(connection, model_id, known, candidate), Change.UNCHANGED
    if alias is not None:
        moved = set_alias(database, connection, name, alias, version.version)
        if change is Change.UNCHANGED and moved is not Change.UNCHANGED:
            change = Change.UPDATED
    return version, change


def _check_same(known: ModelVersion, candidate: _Candidate) -> None:
    if candidate.explicit and known.signature != candidate.signature:
        raise ConflictError(
            f"this file is registered as {known.name}@{known.version} with another signature; "
            "versions do not change: delete the model, or register it under another name"
        )


def _judged_anew(
    connection: sa.Connection, model_id: str, known: ModelVersion, candidate: _Candidate
) -> ModelVersion:
    """The version with this installation's verdict: the only thing of it that may change."""
    verdict = candidate.verdict
    if known.verdict == verdict:
        return known
    connection.execute(
        sa.update(model_versions)
        .where(model_versions.c.model_id == model_id, model_versions.c.version == known.version)
        .values(backend=verdict.backend, backend_reason=verdict.reason)
    )
    return replace(known, backend=verdict.backend, backend_reason=verdict.reason)


def _new_model(connection: sa.Connection, name: str) -> str:
    model_id = ids.new_id("model")
    connection.execute(sa.insert(models).values(id=model_id, name=name, created_at=clock.utc_now()))
    return model_id


def _insert_version(
    database: Database,
    connection: sa.Connection,
    model_id: str,
    name: str,
    candidate: _Candidate,
) -> ModelVersion:
    newest = connection.scalar(
        sa.select(sa.func.max(model_versions.c.version)).where(
            model_versions.c.model_id == model_id
        )
    )
    version = ModelVersion(
        name=name,
        version=(newest or 0) + 1,
        digest=candidate.digest,
        flavor=candidate.flavor,
        signature=candidate.signature,
        uri=candidate.uri,
        size_bytes=candidate.size_bytes,
        trusted=candidate.trusted,
        description=candidate.description,
        created_at=clock.utc_now(),
        backend=candidate.verdict.backend,
        backend_reason=candidate.verdict.reason,
    )
    values = {key: value for key, value in vars(version).items() if key != "name"}
    values["signature"] = version.signature.to_json()
    connection.execute(sa.insert(model_versions).values(model_id=model_id, **values))
    _emit(
        database,
        connection,
        EventType.MODEL_REGISTERED,
        f"{model_id}:{version.version}",
        {
            "name": name,
            "version": version.version,
            "digest": version.digest,
            "flavor": version.flavor,
        },
    )
    return version


def _emit(
    database: Database,
    connection: sa.Connection,
    kind: EventType,
    event_id: str,
    data: Mapping[str, Any],
) -> None:
    event = new_event(
        kind, data, source=OWN_SOURCE, subject=f"models/{data['name']}", event_id=event_id
    )
    emit(database, connection, [event])


def set_alias(
    database: Database, connection: sa.Connection, name: str, alias: str, version: int
) -> Change:
    """Moves an alias inside the caller's transaction.

    Raises:
        InvalidError: not the form of an alias.
        NotFoundError: no such model or version.
    """
    _check_names(name, alias)
    model_id = _model_id(connection, name, lock=database)
    resolve(connection, f"{name}@{version}")
    previous = aliases(connection, name).get(alias)
    if previous == version:
        return Change.UNCHANGED
    now = clock.utc_now()
    statement = database.insert(model_aliases).values(
        model_id=model_id, alias=alias, version=version, updated_at=now
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_id", "alias"], set_={"version": version, "updated_at": now}
        )
    )
    data = {"name": name, "alias": alias, "version": version, "previous": previous}
    event_id = f"{model_id}:{alias}:{version}:{clock.iso(now)}"
    _emit(database, connection, EventType.MODEL_ALIAS_MOVED, event_id, data)
    return Change.CREATED if previous is None else Change.UPDATED


def delete(database: Database, connection: sa.Connection, name: str) -> None:
    """Deletes a model with its versions and aliases inside the caller's transaction.

    Each alias is told for itself, before the model: whoever follows `champion` need not know that
    a model takes its aliases along. Runs that are planned already hold what they need, and the
    artifact stays in the object store.

    Raises:
        NotFoundError: no such model.
    """
    model_id = _model_id(connection, name, lock=database)
    gone = aliases(connection, name)
    for table in (model_aliases, model_versions):
        connection.execute(sa.delete(table).where(table.c.model_id == model_id))
    connection.execute(sa.delete(models).where(models.c.id == model_id))
    for alias, version in gone.items():
        data = {"name": name, "alias": alias, "version": version}
        event_id = f"{model_id}:{alias}:deleted"
        _emit(database, connection, EventType.MODEL_ALIAS_DELETED, event_id, data)
    _emit(database, connection, EventType.MODEL_DELETED, f"{model_id}:deleted", {"name": name})


def resolve(connection: sa.Connection, reference: str) -> ModelVersion:
    """What a reference means now: `name@alias`, `name@3`, or `name` for the newest version.

    Raises:
        NotFoundError: no such model, version or alias; the message names those there are.
    """
    name, at, which = reference.partition("@")
    _model_id(connection, name)
    condition: sa.ColumnElement[bool] = sa.true()
    if at:
        version = int(which) if which.isascii() and which.isdigit() else None
        version = version if version is not None else aliases(connection, name).get(which)
        condition = model_versions.c.version == (version if version is not None else -1)
    found = _find_version(connection, name, condition)
    if found is None:
        raise NotFoundError(
            f"model {name} has no version or alias {which!r}; {_known(connection, name)}",
            name=name,
            reference=reference,
        )
    return found


def _known(connection: sa.Connection, name: str) -> str:
    newest = list_versions(connection, name)[-1].version
    named = ", ".join(f"{alias} ({at})" for alias, at in aliases(connection, name).items())
    return f"versions: 1 to {newest}; aliases: {named or 'none'}"


def list_models(
    connection: sa.Connection, *, limit: int = 100, after: str = ""
) -> list[ModelVersion]:
    """The newest version of each model, in order of name, with names greater than `after`."""
    newest = (
        sa.select(model_versions.c.model_id, sa.func.max(model_versions.c.version).label("version"))
        .group_by(model_versions.c.model_id)
        .subquery()
    )
    rows = connection.execute(
        _select()
        .join(
            newest,
            sa.and_(
                newest.c.model_id == model_versions.c.model_id,
                newest.c.version == model_versions.c.version,
            ),
        )
        .where(models.c.name > after)
        .order_by(models.c.name)
        .limit(limit)
    )
    return [_version(row) for row in rows]


def list_versions(connection: sa.Connection, name: str) -> list[ModelVersion]:
    """All versions of a model, oldest first.

    Raises:
        NotFoundError: no such model.
    """
    _model_id(connection, name)
    rows = connection.execute(
        _select().where(models.c.name == name).order_by(model_versions.c.version)
    )
    return [_version(row) for row in rows]


def aliases(connection: sa.Connection, name: str) -> dict[str, int]:
    """A model's aliases and the versions they mean; empty if there is no such model."""
    rows = connection.execute(
        sa.select(model_aliases.c.alias, model_aliases.c.version)
        .join(models, models.c.id == model_aliases.c.model_id)
        .where(models.c.name == name)
        .order_by(model_aliases.c.alias)
    )
    return {row.alias: row.version for row in rows}


def _find_model(
    connection: sa.Connection, name: str, *, lock: Database | None = None
) -> str | None:
    select = sa.select(models.c.id).where(models.c.name == name)
    found: str | None = connection.scalar(lock.lock_rows(select) if lock else select)
    return found


def _model_id(connection: sa.Connection, name: str, *, lock: Database | None = None) -> str:
    found = _find_model(connection, name, lock=lock)
    if found is None:
        known = [version.name for version in list_models(connection, limit=_SHOWN)]
        hint = f"; there are: {', '.join(known)}" if known else "; none is registered"
        raise NotFoundError(f"no model named {name!r}{hint}", name=name)
    return found


def _select() -> sa.Select[Any]:
    return sa.select(models.c.name, model_versions).join(
        models, models.c.id == model_versions.c.model_id
    )


def _find_version(
    connection: sa.Connection, name: str, condition: sa.ColumnElement[bool]
) -> ModelVersion | None:
    """The newest version of a model for which `condition` holds."""
    row = connection.execute(
        _select()
        .where(models.c.name == name, condition)
        .order_by(model_versions.c.version.desc())
        .limit(1)
    ).one_or_none()
    return _version(row) if row is not None else None


def _version(row: Any) -> ModelVersion:
    return ModelVersion(
        name=row.name,
        version=row.version,
        digest=row.digest,
        flavor=row.flavor,
        signature=Signature.from_json(row.signature),
        uri=row.uri,
        size_bytes=row.size_bytes,
        trusted=row.trusted,
        description=row.description,
        created_at=row.created_at,
        backend=row.backend,
        backend_reason=row.backend_reason,
    )
