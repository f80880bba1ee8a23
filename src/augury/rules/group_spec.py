"""What a rule's `group` says: which of its events act together, and when.

    group: {batch: {max_events: 100, max_bytes: "1 GiB", max_wait_s: 60}, group_by: [data.bucket]}
    group: {quiet: {after_s: 30}}
    group: {complete: {marker: _SUCCESS}, group_by: [folder(data.key)]}
    group: {latest: {after_s: 5}}
    group: {at_least: {events: 5, within_s: 600}, group_by: [data.customer]}
    group: {absent: {for_s: 86400}}

Exactly one kind; without one each event acts alone. docs/grouping.md says what each kind does.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from augury.rules.quantities import parse_size

# what a group may hold at most: its run names every input
MOST_EVENTS = 10_000
_LONGEST_S = 366 * 86_400
_MOST_KEYS = 8
_PATH = r"[^.\s(){}$]+(\.[^.\s(){}$]+)*"
_KEY = re.compile(rf"folder\({_PATH}\)\Z|{_PATH}\Z")
_FIELD = re.compile(rf"{_PATH}\Z")
KINDS = ("each", "batch", "quiet", "complete", "latest", "at_least", "absent")


def _size(found: Any) -> Any:
    return parse_size(found) if isinstance(found, str) else found


def _key(text: str) -> str:
    if not _KEY.match(text):
        raise ValueError(
            f"expected a path such as data.bucket, or folder(data.key), found {text!r:.80}"
        )
    return text


def _marker(text: str) -> str:
    if "/" in text:
        raise ValueError(
            f"expected a file name such as _SUCCESS or *.manifest, without folders, found {text!r}"
        )
    return text


def _expected(found: int | str) -> int | str:
    if isinstance(found, str) and not _FIELD.match(found):
        raise ValueError(f"expected a number, or a path such as data.num_parts, found {found!r}")
    if isinstance(found, int) and not 1 <= found <= MOST_EVENTS:
        raise ValueError(f"expected 1 to {MOST_EVENTS:,} events, found {found}")
    return found


type Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]
type Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
type Events = Annotated[int, Field(ge=1, le=MOST_EVENTS)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Each(_Spec):
    """Every event acts alone; with `group_by`, `max_active` counts per key."""


class Batch(_Spec):
    """Closes when it is full, or `max_wait_s` after its first event.

    Attributes:
        max_events: most events of one group.
        max_bytes: most bytes of its objects together; a single larger one is a group of its own.
        max_wait_s: seconds from the first event to the group's end.
    """

    max_events: Events = MOST_EVENTS
    max_bytes: Size | None = None
    max_wait_s: Seconds = 300.0


class Quiet(_Spec):
    """Closes when no event came for `after_s`, or `max_wait_s` after its first event.

    Attributes:
        after_s: seconds without an event.
        max_events: closes with this many at the latest.
        max_wait_s: seconds from the first event; None: as long as events keep coming.
    """

    after_s: Seconds
    max_events: Events = MOST_EVENTS
    max_wait_s: Seconds | None = None


class Complete(_Spec):
    """Closes when a marker arrived, or as many objects as there must be.

    Attributes:
        marker: file name, may hold `*` and `?`; the marker itself is no input of the run.
        expected: number of distinct objects, or the path of the event's field that says it.
        max_wait_s: seconds from the first event after which it ends incomplete; None: never.
        if_incomplete: whether an incomplete group acts or is dropped.
    """

    marker: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_marker)] | None = (
        None
    )
    expected: Annotated[int | str, AfterValidator(_expected)] | None = None
    max_wait_s: Seconds | None = None
    if_incomplete: Literal["drop", "start"] = "drop"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.marker is None) == (self.expected is None):
            raise ValueError("expected either marker or expected: what makes the group complete")
        return self


class Latest(_Spec):
    """Of the events that come together only the newest acts; the others are superseded.

    Attributes:
        after_s: seconds without an event after which the newest one acts.
        max_wait_s: seconds from the first event after which it acts at the latest.
    """

    after_s: Seconds | None = None
    max_wait_s: Seconds | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.after_s is None and self.max_wait_s is None:
            raise ValueError("expected after_s or max_wait_s: how long newer events are waited for")
        return self


class Burst(_Spec):
    """Acts once for `events` events that came within `within_s`; then it counts anew."""

    events: Annotated[int, Field(ge=2, le=1000)]
    within_s: Seconds


class Absent(_Spec):
    """Acts when no event came for `for_s`: once, until the next event."""

    for_s: Seconds


class GroupSpec(_Spec):
    """A rule's grouping: exactly one kind, and the fields by which groups are kept apart.

    Attributes:
        group_by: paths of the event's fields, or `folder(path)` of a text with slashes; events
            with equal values share groups. A field that an event does not have counts as null.
    """

    each: Each | None = None
    batch: Batch | None = None
    quiet: Quiet | None = None
    complete: Complete | None = None
    latest: Latest | None = None
    at_least: Burst | None = None
    absent: Absent | None = None
    group_by: tuple[Annotated[str, AfterValidator(_key)], ...] = Field(
        default=(), max_length=_MOST_KEYS
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        found = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(found) > 1 or not (found or self.group_by):
            raise ValueError(
                f"expected exactly one of {', '.join(KINDS)}, found {' and '.join(found) or 'none'}"
            )
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next((kind for kind in KINDS if getattr(self, kind) is not None), "each")
