"""Artifacts of models and jobs: what is known by a digest still has that digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury.errors import AuguryError
from augury.monitoring.audit.check import Check, Finding
from augury.scripts.artifacts import key_of
from augury.storage.database import Database
from augury.storage.objects import ObjectStore, locate, open_store
from augury.storage.tables import job_versions, jobs, model_versions, models

if TYPE_CHECKING:
    from augury.settings import Settings

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Artifacts:
    """Rows of `model_versions` with the model's name, and how their stores are reached."""

    rows: Sequence[sa.Row[Any]]
    settings: Settings


def artifact_pages(database: Database, settings: Settings) -> Iterator[Artifacts]:
    """Every model version; one a page, for artifacts are large."""
    select: sa.Select[Any] = (
        sa.select(
            models.c.name, model_versions.c.version, model_versions.c.digest, model_versions.c.uri
        )
        .join_from(model_versions, models, models.c.id == model_versions.c.model_id)
        .order_by(models.c.name, model_versions.c.version)
    )
    with database.read() as connection:
        rows = connection.execute(select).all()
    for row in rows:
        yield Artifacts([row], settings)


@dataclass(frozen=True)
class JobArtifacts:
    """Versions of jobs that run scripts (`name`, `version`, `spec`), and where artifacts are."""

    rows: Sequence[sa.Row[Any]]
    settings: Settings


def job_artifact_pages(database: Database, settings: Settings) -> Iterator[JobArtifacts]:
    """Every version of every script job; one a page."""
    select: sa.Select[Any] = (
        sa.select(jobs.c.name, job_versions.c.version, job_versions.c.spec)
        .join_from(job_versions, jobs, jobs.c.id == job_versions.c.id)
        .order_by(jobs.c.name, job_versions.c.version)
    )
    with database.read() as connection:
        rows = connection.execute(select).all()
    for row in rows:
        if row.spec.get("kind") == "script":
            yield JobArtifacts([row], settings)


def _job_artifact(page: JobArtifacts) -> Iterator[Finding]:
    store = open_store(page.settings.effective_store_url, page.settings)
    for row in page.rows:
        digest = row.spec["artifact"]["digest"]
        key = key_of(digest)
        try:
            found = _sha256(store, key)
        except AuguryError as error:
            found = error.message
        if found != digest:
            subject = f"job {row.name}, version {row.version}"
            yield Finding(subject, f"sha256={digest} at {store.uri(key)}", found)


def _artifact(page: Artifacts) -> Iterator[Finding]:
    for row in page.rows:
        try:
            found = _sha256(*locate(row.uri, page.settings))
        except AuguryError as error:
            found = error.message
        if found != row.digest:
            subject = f"model {row.name}@{row.version}"
            yield Finding(subject, f"sha256={row.digest} at {row.uri}", found)


def _sha256(store: ObjectStore, key: str) -> str:
    hasher = hashlib.sha256()
    with store.open(key) as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


JOB_ARTIFACT_CHECKS: tuple[Check[JobArtifacts], ...] = (
    Check(
        name="job_artifact",
        examine=_job_artifact,
        advice="runs of this version of the job cannot start: apply the job again with the same "
        "file, which puts it back",
    ),
)
ARTIFACT_CHECKS: tuple[Check[Artifacts], ...] = (
    Check(
        name="model_artifact",
        examine=_artifact,
        advice="no host that has not cached this version can score with it: put the file back, "
        "for example by registering it again",
    ),
)
