"""The groups that past events would have made, without a ledger: for the backtest.

The same fold as the grouper's, page by page; of a group only what is open is kept. Limits on
active runs are left out: nobody knows how long runs that never were would have taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from augury.routing.archives import PastEvent
from augury.routing.decisions import Intent
from augury.routing.folding import IN_TIME, TOO_FEW
from augury.routing.group_view import GroupedEvent, GroupView, key_of
from augury.rules.grouping import Closed, Member, Open, advance, policy_of
from augury.rules.ruleset import RuleVersion

STILL_OPEN = "in a group that is still open"
INCOMPLETE = "its group stayed incomplete"


@dataclass(frozen=True, kw_only=True)
class PastGroup:
    """What became of some events: a group that acts, or the reason why they lead to nothing.

    Attributes:
        scored: runs that the newest event led to in fact.
    """

    action: str
    num_events: int
    view: GroupView | None = None
    reason: str = ""
    scored: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Event:
    member: Member
    grouped: GroupedEvent
    past: PastEvent


@dataclass(kw_only=True)
class _Lane:
    """Events of one action and key; `gathered` are those of open groups, by the group's first."""

    action: str
    key: str
    open: Open | None = None
    waiting: list[_Event] = field(default_factory=list)
    gathered: dict[str, dict[str, _Event]] = field(default_factory=dict)


class PastGroups:
    """Gathers past events of one rule.

    Args:
        rule: that groups.
    """

    def __init__(self, rule: RuleVersion) -> None:
        self._rule = rule
        self._policy = policy_of(rule.spec.group)
        self._lanes: dict[tuple[str, str], _Lane] = {}

    def add(self, intent: Intent, past: PastEvent) -> None:
        """Takes an event that counts: no duplicate, no object that was there before."""
        joins = intent.membership
        assert joins is not None  # the rule groups
        lane = self._lanes.setdefault(
            (intent.action, joins.key), _Lane(action=intent.action, key=joins.key)
        )
        name = str(past.event.position)
        member = Member(
            name=name,
            order=intent.arrival.order,
            at=past.event.accepted_at,
            size_bytes=joins.size_bytes,
            subject=joins.uri or name,
            is_marker=joins.is_marker,
            expected=joins.expected,
        )
        grouped = GroupedEvent(
            outcome_id=name,
            position=past.event.position,
            uri=joins.uri,
            tag=joins.tag,
            size_bytes=joins.size_bytes,
            is_marker=joins.is_marker,
        )
        lane.waiting.append(_Event(member=member, grouped=grouped, past=past))

    def closed(self, now: datetime | None = None) -> Iterator[PastGroup]:
        """What the events so far have decided.

        Args:
            now: the end of all events; None: more may come.
        """
        for lane in self._lanes.values():
            if lane.waiting or now is not None:
                yield from self._fold(lane, now)
            if now is not None and lane.open is not None:
                yield PastGroup(
                    action=lane.action, num_events=lane.open.num_events, reason=STILL_OPEN
                )

    def _fold(self, lane: _Lane, now: datetime | None) -> Iterator[PastGroup]:
        found = sorted(lane.waiting, key=lambda event: event.member.order)
        lane.waiting = []
        until = now if now is not None else found[-1].member.at
        progress = advance(self._policy, lane.open, [event.member for event in found], until)
        lane.open = progress.open
        by_name = {event.member.name: event for event in found}
        for name, first in progress.joined.items():
            lane.gathered.setdefault(first, {})[name] = by_name[name]
        for name, ran_out in progress.passed.items():
            for gathered in lane.gathered.values():
                gathered.pop(name, None)
            reason = TOO_FEW if ran_out else IN_TIME
            yield PastGroup(action=lane.action, num_events=1, reason=reason)
        for group in progress.closed:
            yield self._group(lane, group, list(lane.gathered.pop(group.first).values()))

    def _group(self, lane: _Lane, group: Closed, events: list[_Event]) -> PastGroup:
        if not group.acts:
            return PastGroup(action=lane.action, num_events=len(events), reason=INCOMPLETE)
        newest = events[-1].past
        view = GroupView(
            id=f"grp_{newest.event.position}",
            rule=self._rule.name,
            kind=self._policy.kind,
            key=key_of(lane.key),
            why=group.why,
            since=group.opened_at,
            until=group.at,
            members=[event.grouped for event in events],
            event=newest.event.document,
            body=msgspec.json.encode(newest.event.document).decode(),
        )
        scored = tuple(o.run_id for o in newest.outcomes if o.run_id is not None)
        return PastGroup(action=lane.action, num_events=len(events), view=view, scored=scored)
