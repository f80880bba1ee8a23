"""What a rule does when it matches.

One entry of a rule's `actions` is an object with one key that says the kind of the action:

    actions:
      - start_run: {job: score-landing}
      - name: rescore
        start_run: {job: score-landing, model: "flight_delay@challenger", output: "s3://b/${data.key}/"}

Strings may hold templates (`actions/template.py`). What the other kinds say is in
`effect_specs.py`: they act outside Augury, so they are delivered later, by another process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from augury.actions.effect_specs import Call, EffectSpec, Notify, Stream
from augury.actions.fields import SECRET_ERROR, Spec, Template, exactly_one, listed
from augury.actions.inputs import Inputs, misuses, nested
from augury.actions.template import check
from augury.data.policy import OnBadRow, OnCorruptFile
from augury.errors import Fault, InvalidError
from augury.jobs.spec import (
    Expectation,
    LogSettings,
    MaxRejected,
    Mode,
    split_arguments,
)

KINDS = ("start_run", "notify", "stream", "call")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise ValueError(
            "expected up to 100 letters, digits, '_', '-', '.', beginning with one of the first two"
        )
    return text


_Argument = Annotated[str, Field(max_length=4096), AfterValidator(check)]


class StartRun(Spec):
    """Starts a run of a job; what is left out comes from the event (input) or from the job.

    Attributes:
        job: name of the job.
        input: URI, or several; default: the object that the event names, at exactly the content
            that it names, otherwise the job's own input.
        arguments: of a script; one text is split as a shell does, before templates are filled.
        display_name: name of the run; default: made from the job's.

    The others override the job's values as those of a run do (`jobs.spec.RunOverrides`).
    """

    job: Template
    input: Annotated[tuple[Template, ...], BeforeValidator(listed)] | None = Field(
        default=None, min_length=1
    )
    output: Template | None = None
    mode: Mode | None = None
    columns: tuple[Template, ...] | None = None
    model: Template | None = None
    environment: dict[str, Template] | None = None
    max_concurrency: int | None = Field(default=None, ge=1)
    maximum_runtime_s: float | None = Field(default=None, gt=0)
    maximum_shard_runtime_s: float | None = Field(default=None, gt=0)
    on_bad_row: OnBadRow | None = None
    expect: dict[str, Expectation] | None = None
    max_rejected: MaxRejected | None = None
    on_corrupt_file: OnCorruptFile | None = None
    arguments: Annotated[tuple[_Argument, ...], BeforeValidator(split_arguments)] | None = None
    logging: LogSettings | None = None
    tags: dict[str, _Argument] | None = None
    display_name: Template | None = None


class ActionSpec(Spec):
    """One action of a rule: exactly one of start_run, notify, stream, call.

    Attributes:
        name: part of a run's identity: renaming it makes new runs. Default: the kind.
        inputs: what is computed from the event first; texts name it as `${inputs.NAME}`.
    """

    name: Annotated[str, AfterValidator(_name)]
    inputs: Inputs = Field(default_factory=dict)
    start_run: StartRun | None = None
    notify: Notify | None = None
    stream: Stream | None = None
    call: Call | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_by_kind(cls, found: Any) -> Any:
        if not isinstance(found, Mapping) or "name" in found:
            return found
        return {"name": next((kind for kind in KINDS if kind in found), "action"), **found}

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        exactly_one(self, *KINDS)
        return self

    @property
    def effect(self) -> EffectSpec | None:
        """What it does outside Augury; None if it starts a run."""
        return self.notify or self.stream or self.call


def parse_actions(actions: Sequence[Mapping[str, Any]]) -> tuple[ActionSpec, ...]:
    """Validates a rule's actions.

    Raises:
        InvalidError: with every fault of every action, two of one name among them.
    """
    parsed: list[ActionSpec] = []
    faults: list[Fault] = []
    for index, action in enumerate(actions):
        try:
            parsed.append(spec := ActionSpec.model_validate(action))
        except ValidationError as error:
            faults += validation_faults(error, prefix=f"actions.{index}")
        else:
            fields = spec.model_dump(mode="json", exclude={"name", "inputs"})
            faults += misuses(spec.inputs, fields, f"actions.{index}")
            faults += nested(spec.inputs, f"actions.{index}")
    faults += _repeated(parsed)
    if faults:
        raise InvalidError("invalid actions", faults=faults)
    return tuple(parsed)


def validation_faults(error: ValidationError, *, prefix: str = "") -> list[Fault]:
    """Pydantic's findings as faults, each with its dotted path and what was found."""
    faults = []
    for found in error.errors(include_url=False):
        path = ".".join(str(part) for part in (prefix, *found["loc"]) if part != "")
        shown = "" if found["type"] == SECRET_ERROR else f", found {found['input']!r:.80}"
        faults.append(Fault(path=path, message=f"{found['msg']}{shown}"))
    return faults


def _repeated(actions: Sequence[ActionSpec]) -> list[Fault]:
    names = [action.name for action in actions]
    return [
        Fault(path="actions", message=f"two actions are named {name!r}; give each its own `name`")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
