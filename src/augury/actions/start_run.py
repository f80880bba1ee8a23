"""The action `start_run`, as a pure function: action and event in, request for a run out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from augury.actions import template
from augury.actions.spec import ActionSpec, StartRun, validation_faults
from augury.actions.template import TemplateError
from augury.errors import Fault, InvalidError
from augury.jobs.spec import Input, RunOverrides

_TEXTS = ("output", "model", "display_name")
_NAMED_TEXTS = ("environment", "tags")
_PLAIN = (
    *("mode", "max_concurrency", "maximum_runtime_s", "maximum_shard_runtime_s"),
    *("on_bad_row", "expect", "max_rejected", "on_corrupt_file", "logging"),
)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What an action asks for.

    Attributes:
        job_name: the job, by name; whether it exists is not known here.
        overrides: on top of the job's spec, the inputs among them; its `input` is None if neither
            the action nor the event names one: then the job's own input is scored.
    """

    job_name: str
    overrides: RunOverrides


def resolve_run(action: ActionSpec, event: Mapping[str, Any]) -> RunRequest:
    """Fills the templates of an action `start_run` from an event in structured form.

    Raises:
        InvalidError: naming every field that this event does not fill, and why.
    """
    faults: list[Fault] = []

    def attempt(field: str, fill: Callable[[], Any]) -> Any:
        try:
            return fill()
        except TemplateError as error:
            faults.append(Fault(path=f"{action.name}.{field}", message=str(error)))
            return None

    spec = action.start_run
    assert spec is not None  # the caller looked at the kind
    job_name = attempt("job", lambda: template.fill(spec.job, event))
    values = {field: attempt(field, filler) for field, filler in _fillers(spec, event).items()}
    overrides = None
    if not faults:
        try:
            overrides = RunOverrides.model_validate(values)
        except ValidationError as error:
            faults += validation_faults(error, prefix=action.name)
    if overrides is None:
        raise InvalidError(f"the event does not fill action {action.name!r}", faults=faults)
    return RunRequest(job_name=job_name, overrides=overrides)


def _fillers(spec: StartRun, event: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """For each field that the action sets: how to fill it."""
    fillers: dict[str, Callable[[], Any]] = {"input": partial(_inputs, spec, event)}
    for field in _PLAIN:
        fillers[field] = partial(getattr, spec, field)
    for field in _TEXTS:
        if (text := getattr(spec, field)) is not None:
            fillers[field] = partial(template.fill, text, event)
    if spec.columns is not None:
        fillers["columns"] = partial(template.fill_list, spec.columns, event)
    if spec.arguments is not None:
        fillers["arguments"] = partial(_filled_texts, spec.arguments, event)
    for field in _NAMED_TEXTS:
        if (texts := getattr(spec, field)) is not None:
            fillers[field] = partial(_filled_values, texts, event)
    return fillers


def _filled_texts(texts: Sequence[str], event: Mapping[str, Any]) -> list[str]:
    return [template.fill(text, event) for text in texts]


def _filled_values(texts: Mapping[str, str], event: Mapping[str, Any]) -> dict[str, str]:
    return {name: template.fill(text, event) for name, text in texts.items()}


def _inputs(spec: StartRun, event: Mapping[str, Any]) -> tuple[Input, ...] | None:
    """The action's inputs, or the event's object; the object itself is pinned to its content."""
    named = _event_object(event)
    if spec.input is None:
        return (named,) if named is not None else None
    uris = template.fill_list(spec.input, event)
    return tuple(named if named and named.uri == uri else Input(uri=uri) for uri in uris)


def _event_object(event: Mapping[str, Any]) -> Input | None:
    data = event.get("data")
    uri = data.get("uri") if isinstance(data, Mapping) else None
    if not isinstance(uri, str) or not uri:
        return None
    tag = data.get("tag") if isinstance(data, Mapping) else None
    return Input(uri=uri, tag=tag if isinstance(tag, str) and tag else None)
