"""From a rule's action and an event to what is asked for, whatever the action's kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augury.actions import inputs
from augury.actions.effect import EffectRequest, resolve_effect
from augury.actions.spec import ActionSpec
from augury.actions.start_run import RunRequest, resolve_run
from augury.errors import InvalidError

type Request = RunRequest | EffectRequest


def resolve(action: ActionSpec, event: Mapping[str, Any]) -> Request:
    """Fills the action's templates from an event in structured form.

    Raises:
        InvalidError: naming every field that this event does not fill, and why.
    """
    scope, faults = inputs.evaluate(action.inputs, event)
    if faults:
        raise InvalidError(f"the event does not fill action {action.name!r}", faults=faults)
    if action.effect is None:
        return resolve_run(action, scope)
    return resolve_effect(action, event, scope)


def as_json(request: Request) -> dict[str, Any]:
    """What is asked for, for people: in dead letters."""
    if isinstance(request, EffectRequest):
        return {"kind": request.kind, **request.fields}
    overrides = request.overrides.model_dump(mode="json", exclude_none=True)
    return {"kind": "start_run", "job": request.job_name, **overrides}
