from __future__ import annotations

from datetime import UTC, datetime

import pytest

from augury.sources.overlap import MOST_QUEUED, TickState, settle
from augury.sources.spec import Overlap

FIRE = [datetime(2026, 1, 1, 12, minute, tzinfo=UTC) for minute in range(3)]


@pytest.mark.parametrize(
    ("policy", "busy", "num_queued", "states"),
    [
        ("allow", True, 5, "FIRED FIRED FIRED"),
        ("skip", False, 0, "FIRED SKIPPED SKIPPED"),
        ("skip", True, 0, "SKIPPED SKIPPED SKIPPED"),
        ("queue", False, 0, "FIRED QUEUED QUEUED"),
        ("queue", True, 0, "QUEUED QUEUED QUEUED"),
        # those that wait come first, even where the previous one's work is just over
        ("queue", False, 1, "QUEUED QUEUED QUEUED"),
        ("queue", True, MOST_QUEUED - 1, "QUEUED SKIPPED SKIPPED"),
    ],
)
def test_what_becomes_of_ticks(policy: str, busy: bool, num_queued: int, states: str) -> None:
    found = settle(Overlap(policy), FIRE, busy=busy, num_queued=num_queued)
    assert found == list(zip(FIRE, map(TickState, states.split()), strict=True))


def test_a_tick_whose_turn_it_is_fires() -> None:
    assert settle(Overlap.QUEUE, [], busy=True) == []
    assert settle(Overlap.QUEUE, FIRE[:1], busy=False) == [(FIRE[0], TickState.FIRED)]
