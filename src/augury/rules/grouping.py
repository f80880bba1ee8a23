"""Groups of events, as a pure fold over the stream.

A rule that groups puts its events into *lanes*, one per key (`group_by`). The events of a lane are
taken in the order of the stream, by the time at which the bus accepted them, and `now` is a point
that the stream has passed for good: no event will ever come before it. So what a group holds
follows from the stream alone. Who folds, when, how often, and in how many pieces makes no
difference: an event that comes after a group's time is up finds it closed, whether or not anybody
looked in between.

    progress = advance(policy, open_group, members, now)

takes what was open, the members that follow, and gives what closed and what is open now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from augury.rules.group_spec import MOST_EVENTS, GroupSpec


class Why(StrEnum):
    """What closed a group."""

    FULL = "full"  #: as many events or bytes as it may hold
    WAITED = "waited"  #: max_wait_s after its first event
    QUIET = "quiet"  #: no event for after_s
    MARKER = "marker"  #: the marker arrived
    COMPLETE = "complete"  #: as many objects as expected
    INCOMPLETE = "incomplete"  #: max_wait_s, or the most events, before it was complete
    COUNTED = "counted"  #: as many events as asked for, within the time
    SILENT = "silent"  #: no event for for_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """When a group closes, in one form for every kind.

    Attributes:
        kind: of the group's spec.
        wait: from the first event; of `at_least` and `absent` the time that they look at.
        quiet: since the last event.
        completes: it closes for good reason only by its marker or by `expected` objects.
        drops_incomplete: what is not complete when its time is up does not act.
    """

    kind: str
    max_events: int = MOST_EVENTS
    max_bytes: int | None = None
    wait: timedelta | None = None
    quiet: timedelta | None = None
    completes: bool = False
    drops_incomplete: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One event on its way into a group.

    Attributes:
        name: of its outcome.
        order: its place in the stream, as text that sorts.
        at: when the bus accepted it.
        subject: what is counted when a number of objects is expected: the object, or the event.
        expected: how many of them there must be, if this event says so.
    """

    name: str
    order: str
    at: datetime
    size_bytes: int = 0
    subject: str = ""
    is_marker: bool = False
    expected: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """A group that is open, or for `at_least` and `absent` what is looked at.

    Attributes:
        first: order of the event that began it: its identity within the lane.
        opened_at: when that was accepted.
        last_at: when the newest was.
        subjects: of its members; only kept where a number is expected.
        window: (name, accepted at) of its members; only kept for `at_least` and `absent`.
    """

    first: str
    opened_at: datetime
    last_at: datetime
    num_events: int = 0
    size_bytes: int = 0
    expected: int | None = None
    subjects: frozenset[str] = frozenset()
    window: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """A group to which nothing will be added.

    Attributes:
        first: its identity, as in `Open`.
        at: the instant that closed it: of an event, or of a time that was up.
        acts: False if it is dropped.
    """

    first: str
    why: Why
    at: datetime
    acts: bool
    opened_at: datetime
    last_at: datetime
    num_events: int
    size_bytes: int


@dataclass(kw_only=True, slots=True)
class Progress:
    """What a fold did.

    Attributes:
        open: what is open now.
        closed: in the order of the stream.
        joined: identity of the group that each member entered, by the member's name.
        passed: members that are settled without a group: each name with True if its time ran out
            (`at_least`), False if the next event came in time (`absent`).
    """

    open: Open | None = None
    closed: list[Closed] = field(default_factory=list)
    joined: dict[str, str] = field(default_factory=dict)
    passed: dict[str, bool] = field(default_factory=dict)


def policy_of(spec: GroupSpec | None) -> Policy:
    """The policy that a rule's `group` asks for; without one, each event alone."""
    if spec is None or spec.kind == "each":
        return Policy(kind="each", max_events=1)
    given = getattr(spec, spec.kind).model_dump()
    waits = [given[name] for name in ("max_wait_s", "within_s", "for_s") if name in given]
    return Policy(
        kind=spec.kind,
        max_events=given.get("max_events", given.get("events", MOST_EVENTS)),
        max_bytes=given.get("max_bytes"),
        wait=_span(waits[0]) if waits else None,
        quiet=_span(given.get("after_s")),
        completes=spec.complete is not None,
        drops_incomplete=given.get("if_incomplete") == "drop",
    )


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def deadline(policy: Policy, group: Open) -> datetime | None:
    """When the group's time is up if nothing comes; None: never.

    An event accepted at that instant finds it closed. For `at_least` it is when the oldest event
    no longer counts.
    """
    if policy.kind == "absent":
        return group.last_at + _known(policy.wait)
    if policy.kind == "at_least":
        return group.window[0][1] + _known(policy.wait)
    ends = [group.opened_at + policy.wait] if policy.wait is not None else []
    if policy.quiet is not None:
        ends.append(group.last_at + policy.quiet)
    return min(ends, default=None)


def _known(span: timedelta | None) -> timedelta:
    assert span is not None  # these kinds have one
    return span


def advance(
    policy: Policy, open_group: Open | None, members: Sequence[Member], now: datetime
) -> Progress:
    """Folds members into groups.

    Args:
        policy: when groups close.
        open_group: what was open after the members before these.
        members: in the order of the stream, none left out, all accepted before `now`.
        now: the stream has passed this instant: no member will be accepted before it.
    """
    fold = _FOLDS.get(policy.kind, _Collecting)(policy, open_group)
    for member in members:
        # the stream's ids never go back; if a bus was moved to a clock that does, time stands
        at = member.at if fold.open is None else max(member.at, fold.open.last_at)
        fold.pass_time(at)
        fold.take(member if at == member.at else replace(member, at=at))
    fold.pass_time(now)
    return fold.progress


class _Fold:
    """The state of one fold."""

    def __init__(self, policy: Policy, open_group: Open | None) -> None:
        self.policy = policy
        self.progress = Progress(open=open_group)

    @property
    def open(self) -> Open | None:
        return self.progress.open

    def pass_time(self, now: datetime) -> None:
        raise NotImplementedError

    def take(self, member: Member) -> None:
        raise NotImplementedError

    def add(self, member: Member) -> Open:
        """The open group with one more member, or a new one."""
        group = self.open or Open(first=member.order, opened_at=member.at, last_at=member.at)
        counts = self.policy.completes and not member.is_marker
        group = replace(
            group,
            last_at=member.at,
            num_events=group.num_events + 1,
            size_bytes=group.size_bytes + member.size_bytes,
            expected=group.expected if member.expected is None else member.expected,
            subjects=group.subjects | {member.subject} if counts else group.subjects,
        )
        self.progress.open = group
        self.progress.joined[member.name] = group.first
        return group

    def close(self, why: Why, at: datetime, *, acts: bool = True) -> None:
        group = self.open
        assert group is not None  # only what is open closes
        self.progress.closed.append(
            Closed(
                first=group.first,
                why=why,
                at=at,
                acts=acts,
                opened_at=group.opened_at,
                last_at=group.last_at,
                num_events=group.num_events,
                size_bytes=group.size_bytes,
            )
        )
        self.progress.open = None


class _Collecting(_Fold):
    """each, batch, quiet, complete, latest: events gather until something closes the group."""

    def pass_time(self, now: datetime) -> None:
        group = self.open
        if group is None:
            return
        end = deadline(self.policy, group)
        if end is None or now < end:
            return
        waited = self.policy.wait is not None and end == group.opened_at + self.policy.wait
        self._end(Why.WAITED if waited else Why.QUIET, end)

    def take(self, member: Member) -> None:
        if self.open is not None and self._overflows(self.open, member):
            self._end(Why.FULL, member.at)
        group = self.add(member)
        if member.is_marker:
            self.close(Why.MARKER, member.at)
        elif group.expected is not None and len(group.subjects) >= group.expected:
            self.close(Why.COMPLETE, member.at)
        elif self._is_full(group):
            self._end(Why.FULL, member.at)

    def _overflows(self, group: Open, member: Member) -> bool:
        most = self.policy.max_bytes
        if most is not None and group.size_bytes + member.size_bytes > most:
            return True
        return (
            group.num_events >= self.policy.max_events
        )  # only if the rule allows less than before

    def _is_full(self, group: Open) -> bool:
        most = self.policy.max_bytes
        return group.num_events >= self.policy.max_events or (
            most is not None and group.size_bytes >= most
        )

    def _end(self, why: Why, at: datetime) -> None:
        """Closes for another reason than being complete."""
        if self.policy.completes:
            self.close(Why.INCOMPLETE, at, acts=not self.policy.drops_incomplete)
        else:
            self.close(why, at)


class _Counting(_Fold):
    """at_least: a window that slides; its oldest events fall out unless it is full before."""

    def pass_time(self, now: datetime) -> None:
        group = self.open
        if group is None:
            return
        since = now - _known(self.policy.wait)
        kept = tuple((name, at) for name, at in group.window if at > since)
        for name, _ in group.window[: len(group.window) - len(kept)]:
            self.progress.passed[name] = True
            self.progress.joined.pop(name, None)
        shrunk = replace(group, window=kept, num_events=len(kept))
        self.progress.open = replace(shrunk, opened_at=kept[0][1]) if kept else None

    def take(self, member: Member) -> None:
        group = self.add(member)
        group = replace(group, window=(*group.window, (member.name, member.at)))
        self.progress.open = group
        if group.num_events >= self.policy.max_events:
            self.close(Why.COUNTED, member.at)


class _Listening(_Fold):
    """absent: each event begins a silence, and ends the one before."""

    def pass_time(self, now: datetime) -> None:
        group = self.open
        if group is None:
            return
        end = deadline(self.policy, group)
        if end is not None and now >= end:
            self.close(Why.SILENT, end)

    def take(self, member: Member) -> None:
        if self.open is not None:
            for name, _ in self.open.window:
                self.progress.passed[name] = False
                self.progress.joined.pop(name, None)
            self.progress.open = None
        group = self.add(member)
        self.progress.open = replace(group, window=((member.name, member.at),))


_FOLDS: dict[str, type[_Fold]] = {"at_least": _Counting, "absent": _Listening}
