from __future__ import annotations

from datetime import UTC, datetime, timedelta

from augury.sources.schedules import Decision, decide
from augury.sources.spec import Missed

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DUE = [NOON - timedelta(minutes=minutes) for minutes in (2, 1, 0)]


def test_the_last_fires_and_the_others_are_one_row() -> None:
    late = NOON + timedelta(days=3)
    assert decide(Missed.LAST, DUE, late) == Decision(fire=DUE[2:], missed=DUE[:2])
    assert decide(Missed.LAST, DUE[2:], NOON) == Decision(fire=DUE[2:], missed=[])


def test_none_fires_only_on_time() -> None:
    on_time, late = NOON + timedelta(seconds=30), NOON + timedelta(seconds=31)
    assert decide(Missed.NONE, DUE, on_time) == Decision(fire=DUE[2:], missed=DUE[:2])
    assert decide(Missed.NONE, DUE, late) == Decision(fire=(), missed=DUE)


def test_all_fire() -> None:
    assert decide(Missed.ALL, DUE, NOON + timedelta(days=3)) == Decision(fire=DUE, missed=())
    assert decide(Missed.ALL, DUE, NOON, more=True) == Decision(fire=DUE, missed=())


def test_of_a_part_none_is_the_last() -> None:
    assert decide(Missed.LAST, DUE, NOON, more=True) == Decision(fire=(), missed=DUE)
    assert decide(Missed.NONE, DUE, NOON, more=True) == Decision(fire=(), missed=DUE)


def test_bounded_fires_the_newest() -> None:
    late = NOON + timedelta(days=3)
    found = decide(Missed.BOUNDED, DUE, late, limit=2)
    assert found == Decision(fire=DUE[1:], missed=DUE[:1])
    assert decide(Missed.BOUNDED, DUE, late, limit=9) == Decision(fire=DUE, missed=[])


def test_of_a_part_the_newest_are_decided_with_the_next() -> None:
    found = decide(Missed.BOUNDED, DUE, NOON, more=True, limit=1)
    assert found == Decision(fire=(), missed=DUE[:2])
