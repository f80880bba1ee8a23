"""The grouper: closes groups, lets waiting ones begin, and hears silences. Every router runs one.

Routers only append: a matched event of a rule that groups becomes a PENDING outcome and a row in
`group_members`. What the groups are is decided here, in the order of the stream and up to the
*watermark*: the entry id that the stream has passed for good. Everything before it is in the
ledger, because it was acknowledged after its commit, and nothing will ever be put before it,
because a stream gives no smaller ids. So every grouper folds the same members in the same order
(`rules/grouping.py`), and it does not matter which of them does it, when, or how many die.

**Time is the stream's.** A group whose time is up closes when the watermark is past that instant,
which is the accepted time of events by the bus's clock, and no clock of ours. Where nothing
arrives, the stream itself is moved on: if some group's time is over by the bus's clock and nothing
is left to acknowledge, its last id is set to the present (`Bus.watermark`), so that no later event
can come before it. That is one command, agreed on by everybody, and it survives a clock that goes
back.

What is found in a lane is done in one transaction under the lane's row (`lanes.py`); a lane that
another grouper holds is left to it. Between two looks a lane may wait for a run to end: the run's
own event wakes a router, and so its grouper.
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from datetime import datetime

import sqlalchemy as sa

from augury import clock
from augury.bus import relay
from augury.bus.port import Bus
from augury.errors import UnavailableError
from augury.jobs.executor import Executor
from augury.jobs.states import TERMINAL, GroupState
from augury.routing.arrivals import accepted_at, stream_order
from augury.routing.folding import Passed
from augury.routing.lanes import advance_lane
from augury.routing.outcomes import acting_epoch
from augury.routing.rule_versions import RuleVersions
from augury.routing.silences import begin_silences
from augury.routing.waking import wake
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.tables import group_members, groups, lanes, replays, rules, runs

_log = logging.getLogger(__name__)
_LANES_AT_ONCE = 200
_PAUSE_S = 0.05
# the router has events to route meanwhile; what is left over is looked at right after them
_BUDGET_S = 0.03
# raised limits and deleted rules, which no event of a lane tells of
_THOROUGH_S = 2.0


class Grouper:
    """One grouper; any number may work on one ledger.

    Args:
        database: the ledger.
        bus: whose watermark says how far the stream is.
        executor: whom to wake when runs were accepted.
        settings: patience of the relay.
    """

    def __init__(
        self, database: Database, bus: Bus, executor: Executor, settings: Settings
    ) -> None:
        self._database = database
        self._bus = bus
        self._executor = executor
        self._settings = settings
        self._versions = RuleVersions()
        self._next_s = 0.0
        self._next_thorough_s = 0.0
        self.has_more = False  # the last look ran out of its budget: do not wait before the next

    def step(self) -> int:
        """Looks at lanes in which something may be done, unless it did so just now.

        Returns:
            The number of runs accepted.

        Raises:
            UnavailableError: the bus or the database did not answer; the next step goes on.
        """
        now_s = clock.monotonic_s()
        if now_s < self._next_s and not self.has_more:
            return 0
        self._next_s = now_s + _PAUSE_S
        thorough = now_s >= self._next_thorough_s
        if thorough:
            self._next_thorough_s = now_s + _THOROUGH_S
        try:
            return self.group(thorough=thorough, budget_s=_BUDGET_S)
        except UnavailableError:
            raise
        except Exception as error:  # whatever it is, events must still be routed
            _log.exception("grouping failed: %r", error, extra={"action": "grouping_failed"})
            return 0

    def group(self, *, thorough: bool = True, budget_s: float = math.inf) -> int:
        """Looks at once.

        Args:
            thorough: also at what no event of a lane tells of: changed and deleted rules.
            budget_s: seconds after which it begins no other lane; the next look goes on.

        Returns:
            The number of runs accepted.
        """
        until_s = clock.monotonic_s() + budget_s
        self.has_more = False
        if thorough:
            begin_silences(self._database)
        with self._database.read() as connection:
            if not _anything(connection):
                return 0
            due_at = _earliest(connection)
        entry_id = self._bus.watermark(due_at)
        passed = Passed(order=stream_order(entry_id), at=accepted_at(entry_id))
        with self._database.read() as connection:
            found = _due_lanes(connection, passed, thorough=thorough)
        random.shuffle(found)  # several groupers meet in few lanes; nothing depends on the order
        started: Counter[str] = Counter()
        for num_done, lane_id in enumerate(found, 1):
            started += self._advance(lane_id, passed)
            self.has_more = num_done < len(found)
            if clock.monotonic_s() > until_s:
                break
        if started:
            wake(self._executor, started)
            relay.flush(self._database, self._bus, resend_s=self._settings.resend_s)
        return started.total()

    def _advance(self, lane_id: str, passed: Passed) -> Counter[str]:
        """One lane, until there is no more; what is wrong with it does not hold up the others."""
        started: Counter[str] = Counter()
        more = True
        while more:
            try:
                found, more = self._database.transact(
                    lambda connection: advance_lane(
                        self._database, connection, lane_id, passed, self._versions
                    )
                )
            except UnavailableError:
                raise
            except Exception as error:  # the audit tells of a lane that stands still
                _log.exception(
                    "lane %s cannot be grouped: %r",
                    lane_id,
                    error,
                    extra={"action": "lane_failed", "lane_id": lane_id},
                )
                break
            started += found
        return started


def _anything(connection: sa.Connection) -> bool:
    """True unless nothing groups, which costs no look at the bus."""
    unfolded = sa.select(sa.literal(1)).where(group_members.c.group_id.is_(None)).limit(1)
    unfinished = (
        sa.select(sa.literal(1))
        .where(groups.c.state.in_((GroupState.OPEN, GroupState.QUEUED)))
        .limit(1)
    )
    return any(connection.execute(look).first() is not None for look in (unfolded, unfinished))


def _earliest(connection: sa.Connection) -> datetime | None:
    """When the first of the open groups is due."""
    due: datetime | None = connection.scalar(
        sa.select(groups.c.due_at)
        .where(groups.c.state == GroupState.OPEN, groups.c.due_at.is_not(None))
        .order_by(groups.c.due_at)
        .limit(1)
    )
    return due


def _replaying_lanes(connection: sa.Connection) -> sa.Select[tuple[str]]:
    """Lanes of replays that still decide: the watermark is past events that they have yet to add.

    They are grouped when the replay has come to its end, so that its groups, too, follow from the
    stream alone.
    """
    running = sa.text("replays.state = 'RUNNING'")  # written out for the partial index
    epochs = connection.scalars(sa.select(replays.c.id).where(running)).all()
    acting = [acting_epoch(epoch, shadow=shadow) for epoch in epochs for shadow in (False, True)]
    return sa.select(lanes.c.id).where(lanes.c.epoch.in_(acting))


def _due_lanes(connection: sa.Connection, passed: Passed, *, thorough: bool) -> list[str]:
    """Lanes in which something may be done."""
    slots = groups.alias("slots")
    waiting = groups.c.state == GroupState.QUEUED
    ended = (
        sa.select(groups.c.lane_id)
        .join(slots, (slots.c.lane_id == groups.c.lane_id) & slots.c.slot_of.is_not(None))
        .join(runs, (runs.c.id == slots.c.run_id) & runs.c.state.in_(TERMINAL))
        .where(waiting)
    )
    replaying = _replaying_lanes(connection)
    looks = [
        sa.select(group_members.c.lane_id).where(
            group_members.c.group_id.is_(None),
            group_members.c.entry_order < passed.order,
            group_members.c.lane_id.not_in(replaying),
        ),
        sa.select(groups.c.lane_id).where(
            groups.c.state == GroupState.OPEN,
            groups.c.due_at <= passed.at,
            groups.c.lane_id.not_in(replaying),
        ),
        ended,
    ]
    if thorough:
        open_or_waiting = groups.c.state.in_((GroupState.OPEN, GroupState.QUEUED))
        looks.append(sa.select(groups.c.lane_id).where(waiting))
        looks.append(
            sa.select(groups.c.lane_id)
            .join(rules, rules.c.id == groups.c.rule_id)
            .where(open_or_waiting, rules.c.deleted_at.is_not(None))
        )
    found: dict[str, None] = {}
    for look in looks:
        found |= dict.fromkeys(connection.scalars(look.distinct().limit(_LANES_AT_ONCE)))
    return list(found)
