"""Actions with an effect outside Augury, as a pure function: action and event in, request out.

A request is complete: whoever delivers it needs neither the rule nor the event any more, and a
redriven one is filled anew. Secrets are in it by name only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

from augury.actions import template
from augury.actions.effect_specs import Call, Channel, Email, Retry, Slack, channel_of
from augury.actions.fields import origin
from augury.actions.spec import ActionSpec
from augury.actions.template import TemplateError
from augury.errors import Fault, InvalidError

EVENT_TYPE = "application/cloudevents+json"
JSON_TYPE = "application/json"
# given as they are; every other field of a channel is a text, or JSON, with holes
_PLAIN = frozenset(
    {"url_secret", "signing_secret", "secret_headers", "timeout_s", "max_length", "function"}
)


@dataclass(frozen=True, kw_only=True)
class EffectRequest:
    """What an action asks for.

    Attributes:
        kind: `webhook`, `slack`, `email`, `redis_stream`, `queue` or `call`.
        target: what fails together, for example `https://example.com`; never a secret.
        fields: the channel's fields, filled; JSON.
        retry: how long a transient failure is tried again.
    """

    kind: str
    target: str
    fields: Mapping[str, Any]
    retry: Retry


def resolve_effect(
    action: ActionSpec, event: Mapping[str, Any], scope: Mapping[str, Any]
) -> EffectRequest:
    """Fills the templates of an action with an effect.

    Args:
        action: of kind `notify`, `stream` or `call`.
        event: in structured form; what is sent unless the action says otherwise.
        scope: what templates see: the event, and the action's inputs.

    Raises:
        InvalidError: naming every field that this event does not fill, and why.
    """
    spec = action.effect
    assert spec is not None  # the caller looked at the kind
    kind, channel = channel_of(spec)
    faults: list[Fault] = []
    fields: dict[str, Any] = {}
    for name in type(channel).model_fields:
        if name == "retry":
            continue
        try:
            fields[name] = _filled(name, getattr(channel, name), scope)
        except TemplateError as error:
            faults.append(Fault(path=f"{action.name}.{name}", message=str(error)))
    if not faults:
        faults += [
            Fault(path=action.name, message=text) for text in _complete(channel, fields, event)
        ]
    if faults:
        raise InvalidError(f"the event does not fill action {action.name!r}", faults=faults)
    return EffectRequest(
        kind=kind,
        target=_target(kind, fields),
        fields=fields,
        retry=spec.retry,
    )


def _filled(name: str, given: Any, event: Mapping[str, Any]) -> Any:
    if name in _PLAIN or given is None:
        return dict(given) if isinstance(given, Mapping) else given
    if name in ("body", "arguments"):
        return template.fill_json(given, event)
    if isinstance(given, Mapping):
        return {key: template.fill(text, event) for key, text in given.items()}
    if isinstance(given, tuple):
        return template.fill_list(given, event)
    return template.fill(given, event)


def _complete(channel: Channel, fields: dict[str, Any], event: Mapping[str, Any]) -> list[str]:
    """Adds what follows from the fields; returns what is wrong with them now they are filled."""
    if isinstance(channel, Call):
        fields["event"] = dict(event)
    elif isinstance(channel, Email):
        return _mail_faults(fields)
    elif not isinstance(channel, Slack):
        fields["content_type"] = EVENT_TYPE if fields["body"] is None else JSON_TYPE
        fields["event_type"] = event["type"]
        if fields["body"] is None:
            fields["body"] = dict(event)
        return _url_faults(fields)
    return []


def _url_faults(fields: Mapping[str, Any]) -> list[str]:
    try:
        if fields["url"] is not None:
            origin(fields["url"])
    except ValueError as error:
        return [str(error)]
    broken = [name for name, text in (fields.get("headers") or {}).items() if _has_line_end(text)]
    return [f"header {name!r}: expected one line of printable text" for name in broken]


def _mail_faults(fields: Mapping[str, Any]) -> list[str]:
    addresses = [fields["sender"], *fields["to"]]
    return [
        f"expected a mail address, found {text!r:.80}"
        for text in addresses
        if _has_line_end(text) or "@" not in parseaddr(text)[1]
    ] + (["subject: expected one line"] if _has_line_end(fields["subject"]) else [])


def _has_line_end(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _target(kind: str, fields: Mapping[str, Any]) -> str:
    if kind == "call":
        return f"call {fields['function']}"
    if fields.get("url") is not None:
        return origin(fields["url"])[:255]
    return f"{kind} ${fields['url_secret']}"
