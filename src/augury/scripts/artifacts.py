"""Artifacts of jobs: looked at before they are taken, kept under their SHA-256, pulled once a host.

An artifact never changes: another content is another digest, which makes another version of the
job, and runs of the old version keep theirs. It is examined when it is applied, so that what can
never run is refused at once and not by the first run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from augury.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    LimitError,
    NotFoundError,
)
from augury.ids import new_id
from augury.jobs.script_spec import JobArtifact
from augury.scripts.archive import Bounds, open_archive
from augury.scripts.entry import (
    MOST_RUNTIME_BYTES,
    RUNTIME_FILE,
    ArtifactKind,
    entry_of,
    kind_of,
    runtime_variables,
)
from augury.storage.files import file_digest, sync
from augury.storage.objects import ObjectStore

MOST_ARTIFACT_BYTES = 4 * 2**30
BOUNDS = Bounds()
_HEAD_BYTES = 256
_CHUNK_BYTES = 8 * 2**20


def key_of(digest: str) -> str:
    """Where an artifact lies in the store of artifacts."""
    return f"job_artifacts/{digest}"


def examine(path: Path, file_name: str) -> JobArtifact:
    """Looks whether a file can be an artifact; executes nothing and unpacks nothing.

    Args:
        path: the file.
        file_name: what it is called; its ending says what it is.

    Raises:
        InvalidError: it cannot; the faults of an archive's members are named.
        CorruptError: it is damaged.
        LimitError: it is too large.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MOST_ARTIFACT_BYTES:
        raise LimitError(
            f"expected an artifact of at most {MOST_ARTIFACT_BYTES} bytes, found {size_bytes} in "
            f"{file_name}"
        )
    if _kind(path, file_name) is ArtifactKind.ARCHIVE:
        with open_archive(path, file_name) as archive:
            archive.check(BOUNDS)
    return JobArtifact(digest=file_digest(path), file_name=file_name, size_bytes=size_bytes)


def check_entry(path: Path, file_name: str, environment: Mapping[str, str]) -> None:
    """Looks whether an archive that was examined says what to start.

    Args:
        path: the file.
        file_name: what it is called.
        environment: of the job; it may name the entry point.

    Raises:
        InvalidError: it does not.
    """
    if _kind(path, file_name) is not ArtifactKind.ARCHIVE:
        return
    with open_archive(path, file_name) as archive:
        files = archive.files()
        text = archive.read(RUNTIME_FILE, MOST_RUNTIME_BYTES) if RUNTIME_FILE in files else b""
    entry_of(files, {**(runtime_variables(text) if text else {}), **environment})


def _kind(path: Path, file_name: str) -> ArtifactKind:
    with path.open("rb") as file:
        return kind_of(file_name, file.read(_HEAD_BYTES))


def keep(store: ObjectStore, path: Path, artifact: JobArtifact) -> None:
    """Puts an artifact into the store, unless it is there. Idempotent.

    Raises:
        CorruptError: the file was changed since it was examined, or the stored one is damaged.
    """
    key = key_of(artifact.digest)
    staged = store.stage(key)
    try:
        shutil.copyfile(path, staged)
        if file_digest(staged) != artifact.digest:
            raise CorruptError(f"{path} was changed while it was read; apply it again")
        store.put_file(key, staged)
    except ConflictError as error:
        raise CorruptError(
            f"{store.uri(key)} is damaged: it does not hold what its name says; delete that "
            "object and apply the job again"
        ) from error
    finally:
        staged.unlink(missing_ok=True)


def check_kept(store: ObjectStore, artifact: JobArtifact) -> None:
    """Looks whether the store has an artifact.

    Raises:
        InvalidError: it has not.
    """
    try:
        store.head(key_of(artifact.digest))
    except NotFoundError as error:
        raise InvalidError(
            f"expected an artifact that was uploaded, found none with digest {artifact.digest}; "
            "give its path, or send it to POST /v1/job-artifacts first"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An artifact in a run's folder.

    Attributes:
        kind: of the file that starts.
        entry: that file.
        root: folder of the artifact's files.
        runtime: variables of its `jobruntime.yaml`.
    """

    kind: ArtifactKind
    entry: Path
    root: Path
    runtime: Mapping[str, str]


class ArtifactCache:
    """Artifacts on this host, shared by its processes.

    Args:
        folder: where they are kept.
        store: where they come from.
    """

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self._folder = folder / "job_artifacts"
        self._store = store

    def place(self, artifact: JobArtifact, home: Path, environment: Mapping[str, str]) -> Placed:
        """Puts an artifact's files into a run's folder, where OCI puts them.

        An archive is unpacked below `decompressed_artifact/`, a single file lies in the folder.

        Raises:
            NotFoundError: the store does not have it.
            UnavailableError: the store did not answer.
            CorruptError: the store has other content.
            InvalidError: it cannot run.
        """
        path = self._pull(artifact)
        kind = _kind(path, artifact.file_name)
        if kind is not ArtifactKind.ARCHIVE:
            entry = home / artifact.file_name
            shutil.copyfile(path, entry)
            entry.chmod(0o755)
            return Placed(kind=kind, entry=entry, root=home, runtime={})
        root = home / "decompressed_artifact"
        root.mkdir()
        with open_archive(path, artifact.file_name) as archive:
            archive.unpack(root, BOUNDS)
            files = archive.files()
        runtime = {}
        if RUNTIME_FILE in files:
            runtime = runtime_variables((root / RUNTIME_FILE).read_bytes())
        entry = root / entry_of(files, {**runtime, **environment})
        kind = _kind(entry, entry.name)
        if kind is ArtifactKind.EXECUTABLE:
            entry.chmod(0o755)
        return Placed(kind=kind, entry=entry, root=root, runtime=runtime)

    def _pull(self, artifact: JobArtifact) -> Path:
        path = self._folder / artifact.digest
        if path.exists() and file_digest(path) == artifact.digest:
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{new_id('pull')}.tmp"
        try:
            found = self._copy(artifact, part)
            if found != artifact.digest:
                raise CorruptError(
                    f"artifact {artifact.file_name} is damaged in the object store: expected "
                    f"SHA-256 {artifact.digest}, found {found}; apply the job again",
                    expected=artifact.digest,
                    found=found,
                )
            sync(part)
            part.replace(path)
        except OSError as error:
            raise LimitError(f"artifact cannot be written to {path}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        return path

    def _copy(self, artifact: JobArtifact, part: Path) -> str:
        hasher = hashlib.sha256()
        with closing(self._store.open(key_of(artifact.digest))) as source, part.open("wb") as sink:
            while chunk := source.read(_CHUNK_BYTES):
                hasher.update(chunk)
                sink.write(chunk)
        return hasher.hexdigest()
