"""What an artifact is, and with which command it starts; read as OCI Data Science reads it.

A single `.py` runs with Python, a single `.sh` with bash, any other single file by its shebang. Of
an archive, `JOB_RUN_ENTRYPOINT` names the file to start, relative to the archive's root: it comes
from the job's environment, or from `jobruntime.yaml` at the root, a flat mapping whose other keys
become variables, too. What the job says wins over the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from enum import StrEnum

import yaml

from augury.errors import Fault, InvalidError

ENTRYPOINT = "JOB_RUN_ENTRYPOINT"
RUNTIME_FILE = "jobruntime.yaml"
MOST_RUNTIME_BYTES = 64 * 2**10
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_MOST_SHOWN = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class ArtifactKind(StrEnum):
    """How a file is started."""

    PYTHON = "python"
    BASH = "bash"
    EXECUTABLE = "executable"  #: by its first line, `#!...`
    ARCHIVE = "archive"


def kind_of(file_name: str, head: bytes) -> ArtifactKind:
    """What a file is, by its name and its first bytes.

    Raises:
        InvalidError: nothing that a job can run.
    """
    lowered = file_name.lower()
    if lowered.endswith(_ARCHIVES):
        return ArtifactKind.ARCHIVE
    if lowered.endswith(".py"):
        return ArtifactKind.PYTHON
    if lowered.endswith(".sh"):
        return ArtifactKind.BASH
    if head.startswith(b"#!"):
        return ArtifactKind.EXECUTABLE
    raise InvalidError(
        f"expected a .py or .sh file, an archive ({', '.join(_ARCHIVES)}) or a file that begins "
        f"with #!, found {file_name!r}"
    )


def runtime_variables(text: bytes) -> dict[str, str]:
    """The variables of a `jobruntime.yaml`.

    Raises:
        InvalidError: not a flat mapping of names to values.
    """
    try:
        # every value is the text that stands there: 0123 and yes are no number and no truth
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes text, nothing else
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"{RUNTIME_FILE} is no YAML: {error}") from error
    if not isinstance(document, Mapping):
        raise InvalidError(f"{RUNTIME_FILE}: expected names with values, found {document!r:.80}")
    faults = [
        Fault(path=f"{RUNTIME_FILE}.{name}", message=why)
        for name, value in document.items()
        if (why := _objection(name, value))
    ]
    if faults:
        raise InvalidError("this artifact cannot run", faults=faults)
    return dict(document)


def _objection(name: object, value: object) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        return "expected a name of letters, digits and underscores"
    return "" if isinstance(value, str) else f"expected one value, found {value!r:.80}"


def entry_of(files: Collection[str], environment: Mapping[str, str]) -> str:
    """Path of the file that an archive starts with.

    Args:
        files: paths of everything in the archive.
        environment: what the job says on top of what `jobruntime.yaml` says.

    Raises:
        InvalidError: none is named, or there is no such file.
    """
    named = environment.get(ENTRYPOINT, "").strip()
    shown = ", ".join(sorted(path for path in files if path.endswith((".py", ".sh")))[:_MOST_SHOWN])
    hint = f"; there are: {shown}" if shown else ""
    if not named:
        raise InvalidError(
            f"expected {ENTRYPOINT} in the job's environment or in {RUNTIME_FILE}, to say which "
            f"file of the archive is started{hint}"
        )
    path = posixpath.normpath(named)
    if path not in files:
        raise InvalidError(f"{ENTRYPOINT} names {named!r}, which is not in the archive{hint}")
    return path


def command_of(kind: ArtifactKind, path: str, python: str) -> list[str]:
    """The command that starts a file that is no archive."""
    if kind is ArtifactKind.PYTHON:
        return [python, path]
    return ["/bin/bash", path] if kind is ArtifactKind.BASH else [path]
