"""What an action sees of a group: its newest event, and beside it `group`.

    ${data.bucket}         of the newest event
    ${group.id}            identity of the group; ${group.why} what closed it
    ${group.num_events}    and num_objects, size_bytes, since, until
    ${group.by.0}          value of the first field of group_by
    ${group.uris}          its objects, as a list

Pure. Whoever gets the whole event (a webhook, a queue, a function) gets one of a type of its own,
`augury.group.closed`, since a group is not an event that somebody published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from augury import clock
from augury.actions.effect import EffectRequest
from augury.actions.resolve import Request, resolve
from augury.actions.spec import ActionSpec
from augury.actions.start_run import RunRequest
from augury.errors import AuguryError
from augury.events.catalog import OWN_SOURCE
from augury.events.envelope import SPEC_VERSION
from augury.jobs.spec import Input

GROUP_CLOSED = "augury.group.closed"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedEvent:
    """A member of a group, as far as its action is concerned."""

    outcome_id: str
    position: int
    uri: str | None
    tag: str | None
    size_bytes: int
    is_marker: bool


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """A closed group and everything that its action may name.

    Attributes:
        kind: of the rule's group.
        key: values of group_by.
        since, until: when its first event was accepted, and what closed it happened.
        members: in the order of the stream, at least one.
        event: the newest one's, in structured form; `body` is the same as it was published.
    """

    id: str
    rule: str
    kind: str
    key: Sequence[Any]
    why: str
    since: datetime
    until: datetime
    members: Sequence[GroupedEvent]
    event: Mapping[str, Any]
    body: str

    @property
    def leader(self) -> GroupedEvent:
        """The newest member: its event fills the templates, its outcome leads."""
        return self.members[-1]

    @property
    def objects(self) -> dict[str, GroupedEvent]:
        """What is to be scored: of each object the newest content, by URI, in stream order."""
        if self.kind == "absent":
            return {}  # what came before the silence has been acted on
        considered = self.members[-1:] if self.kind == "latest" else self.members
        found: dict[str, GroupedEvent] = {}
        for member in considered:
            if member.uri is not None and not member.is_marker:
                found.pop(member.uri, None)
                found[member.uri] = member
        return found

    @property
    def superseded(self) -> set[str]:
        """Outcomes of members whose object, or whole event, a newer member replaces."""
        if self.kind == "latest":
            return {member.outcome_id for member in self.members[:-1]}
        if self.kind == "absent":
            return set()
        kept = {member.outcome_id for member in self.objects.values()}
        return {
            member.outcome_id
            for member in self.members[:-1]
            if member.uri is not None and not member.is_marker and member.outcome_id not in kept
        }

    def described(self) -> dict[str, Any]:
        """What templates find at `group`."""
        objects = self.objects
        return {
            "id": self.id,
            "rule": self.rule,
            "by": list(self.key),
            "why": self.why,
            "num_events": len(self.members),
            "num_objects": len(objects),
            "size_bytes": sum(member.size_bytes for member in objects.values()),
            "since": clock.iso(self.since),
            "until": clock.iso(self.until),
            "uris": list(objects),
            "positions": [member.position for member in self.members],
        }

    def as_event(self) -> dict[str, Any]:
        """The group as an event of its own."""
        return {
            "specversion": SPEC_VERSION,
            "source": OWN_SOURCE,
            "id": self.id,
            "type": GROUP_CLOSED,
            "subject": f"groups/{self.id}",
            "time": clock.iso(self.until),
            "datacontenttype": "application/json",
            "data": {**self.described(), "event": dict(self.event)},
        }


def group_request(action: ActionSpec, view: GroupView) -> Request | str:
    """What the action asks for, or why the group does not fill it."""
    seen = {**view.event, "group": view.described()}
    try:
        request = resolve(action, seen)
    except AuguryError as error:
        return str(error)
    if isinstance(request, EffectRequest):
        return _as_own_event(request, seen, view)
    return _with_objects(action, request, view)


def _as_own_event(
    request: EffectRequest, seen: Mapping[str, Any], view: GroupView
) -> EffectRequest:
    whole = [name for name, value in request.fields.items() if value == seen]
    if not whole:
        return request
    event = view.as_event()
    fields = {**request.fields, **dict.fromkeys(whole, event)}
    if "event_type" in fields:
        fields["event_type"] = GROUP_CLOSED
    return replace(request, fields=fields)


def _with_objects(action: ActionSpec, request: RunRequest, view: GroupView) -> RunRequest | str:
    """All of the group's objects as inputs, each pinned to its content."""
    assert action.start_run is not None  # that is what the request is of
    objects = view.objects
    inputs: tuple[Input, ...] | None
    if action.start_run.input is not None:
        inputs = tuple(_pinned(given.uri, objects) for given in request.overrides.input or ())
    elif objects:
        inputs = tuple(_pinned(uri, objects) for uri in objects)
    elif any(member.is_marker for member in view.members):
        return "the group holds no object but its marker, and the action names no input"
    else:
        inputs = None
    return replace(request, overrides=request.overrides.model_copy(update={"input": inputs}))


def _pinned(uri: str, objects: Mapping[str, GroupedEvent]) -> Input:
    return Input(uri=uri, tag=objects[uri].tag if uri in objects else None)


def key_of(text: str) -> list[Any]:
    """The values of a lane's key."""
    found: list[Any] = msgspec.json.decode(text)
    return found
