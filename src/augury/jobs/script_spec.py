"""What a job of kind `script` says; and the one door to specs of either kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from augury.jobs.spec import (
    Arguments,
    Input,
    JobSpec,
    LogSettings,
    RunOverrides,
    Shape,
    SizeBytes,
    Spec,
)

MOST_ENVIRONMENT_CHARS = 20_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# what Augury says to a run, and no job may say for it
_OWN_VARIABLES = frozenset({"JOB_OCID", "JOB_RUN_OCID", "JOB_ARTIFACT_FILE_NAME"})


class JobArtifact(Spec):
    """A script or archive in the object store, known by its content.

    Attributes:
        digest: SHA-256 of the file, 64 hexadecimal digits in lower case.
        file_name: what it was called; its ending says what it is.
        size_bytes: of the file.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    file_name: str = Field(min_length=1, max_length=255, pattern=r"^[^/\x00]+$")
    size_bytes: int = Field(ge=0)


def _own_environment(environment: dict[str, str]) -> dict[str, str]:
    """Every fault of a script's environment at once."""
    faults = [
        f"expected a name of letters, digits and underscores, found {name!r}"
        for name in environment
        if not _VARIABLE.match(name)
    ]
    faults += [
        f"{name} is set by Augury itself: choose another name"
        for name in environment
        if name in _OWN_VARIABLES or name.startswith("AUGURY_")
    ]
    faults += [
        f"expected a value without a NUL character, found one in {name}"
        for name, value in environment.items()
        if "\x00" in value
    ]
    num_chars = sum(len(name) + len(value) for name, value in environment.items())
    if num_chars > MOST_ENVIRONMENT_CHARS:
        faults.append(
            f"expected at most {MOST_ENVIRONMENT_CHARS} characters of names and values in all, "
            f"found {num_chars}"
        )
    if faults:
        raise ValueError("; ".join(faults))
    return environment


class ScriptSpec(Spec):
    """A job of kind `script`: a program, and the conditions under which it runs.

    Attributes:
        artifact: what runs. In a document: a path, relative to the document.
        environment: variables of the run; `${NAME}` stands for another of them.
        arguments: given to the program: a list, or one text that is split as a shell does.
        shape: CPUs and memory that the run may use.
        block_storage: bytes that it may keep in its working folder.
        input: what the program should read, told in `AUGURY_INPUT_URIS`; a rule names the object
            that arrived.
        output: URI prefix; `OUTPUT_DIR` is uploaded below `{output}/{run_id}/`. Empty: only if
            the environment says `OUTPUT_URI`.
        maximum_runtime_s: seconds from the program's start to its forced end.
        grace_s: seconds between TERM and KILL.
        max_attempts: 1: a script is not started a second time, whatever happens.
        tags: for people and programs; Augury does nothing with them.
    """

    kind: Literal["script"]
    mode: ClassVar[None] = None
    artifact: JobArtifact
    environment: Annotated[dict[str, str], AfterValidator(_own_environment)] = Field(
        default_factory=dict
    )
    arguments: Arguments = ()
    shape: Shape = Shape()
    block_storage: Annotated[SizeBytes, Field(le=10 * 2**40)] = 50 * 2**30
    input: tuple[Input, ...] = ()
    output: str = ""
    maximum_runtime_s: float = Field(default=86_400.0, gt=0)
    grace_s: float = Field(default=10.0, ge=0, le=600)
    max_attempts: int = Field(default=1, ge=1, le=100)
    logging: LogSettings = LogSettings()
    tags: dict[str, str] = Field(default_factory=dict)

    def overridden(self, overrides: RunOverrides) -> ScriptSpec:
        """This spec with the run's values on top; environments and tags are merged key by key.

        Raises:
            pydantic.ValidationError: the result says too much, or what no script knows.
        """
        merged = ("environment", "tags")
        changed = overrides.model_dump(exclude_none=True, exclude={"display_name", *merged})
        for name in merged:
            changed[name] = {**getattr(self, name), **(getattr(overrides, name) or {})}
        return ScriptSpec.model_validate({**self.model_dump(), **changed})


SPEC_TYPES: Mapping[str, type[JobSpec | ScriptSpec]] = {
    "inference": JobSpec,
    "script": ScriptSpec,
}


def parse_spec(document: Mapping[str, Any]) -> JobSpec | ScriptSpec:
    """A stored job's or run's spec, of either kind.

    Raises:
        pydantic.ValidationError: it is neither.
    """
    return SPEC_TYPES.get(document.get("kind", "inference"), JobSpec).model_validate(document)
