"""Artifacts of script jobs, as documents and requests name them: a path, or what was uploaded.

A document names a file, relative to itself; what is stored is the file's digest. The file is
examined with everything else of the document, before anything is written, and goes into the object
store before the job that names it, so that no job ever names an artifact that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import AuguryError, Fault, InvalidError
from augury.resources.documents import Entry
from augury.settings import Settings

if TYPE_CHECKING:
    from augury.jobs.script_spec import JobArtifact
    from augury.storage.objects import ObjectStore

FIELD = "artifact"


@dataclass(frozen=True, kw_only=True)
class NamedArtifact:
    """The artifact of one entry; `path` is None if it must have been uploaded before."""

    entry: Entry
    artifact: JobArtifact
    path: Path | None


def examine_named(
    settings: Settings, entry: Entry, fields: dict[str, Any], faults: list[Fault]
) -> Path | None:
    """Examines the file that a script job's entry names, and puts what it is in its place.

    Args:
        settings: a file may only be named where this process is the whole engine.
        entry: of a script job.
        fields: the entry's, paths made absolute; `artifact` is replaced.
        faults: gets every fault found.

    Returns:
        The file; None if the entry names no file, or one that cannot run.
    """
    named = fields.get(FIELD)
    if not isinstance(named, str):
        return None
    # whatever is wrong with the file, the other fields are checked, too
    fields[FIELD] = {"digest": "0" * 64, "file_name": "unknown", "size_bytes": 0}
    if entry.base is None and not settings.embedded_redis:
        message = "expected what POST /v1/job-artifacts answered: this server reads no files of its"
        faults.append(entry.fault(f"{message} clients, found {named!r}", FIELD))
        return None
    path = Path(named)
    if not path.is_file():
        faults.append(entry.fault(f"expected a file, found none at {named}", FIELD))
        return None
    try:
        fields[FIELD] = _examined(path, fields.get("environment")).model_dump()
    except InvalidError as error:
        found = error.faults or (Fault(path="", message=error.message),)
        faults += [entry.fault(str(fault), FIELD) for fault in found]
        return None
    except (AuguryError, OSError) as error:
        faults.append(entry.fault(str(error), FIELD))
        return None
    return path


def _examined(path: Path, environment: Any) -> JobArtifact:
    from augury.scripts.artifacts import check_entry, examine

    known = environment if isinstance(environment, Mapping) else {}
    found = examine(path, path.name)
    check_entry(path, path.name, {str(name): str(value) for name, value in known.items()})
    return found


def keep_named(store: ObjectStore, named: NamedArtifact, *, dry_run: bool) -> None:
    """Puts an entry's artifact into the store, or looks whether it is there.

    Raises:
        InvalidError: it is not there; the fault has the entry's line.
        AuguryError: whatever else `scripts.artifacts.keep` raises.
    """
    from augury.scripts.artifacts import check_kept, keep

    if named.path is None:
        try:
            check_kept(store, named.artifact)
        except InvalidError as error:
            fault = named.entry.fault(error.message, FIELD)
            raise InvalidError("refused", faults=[fault]) from error
    elif not dry_run:
        keep(store, named.path, named.artifact)
