"""The run's state machine, as data."""

from __future__ import annotations

from augury.jobs.states import CANCELABLE, TERMINAL, TRANSITIONS, RunState


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(RunState)


def test_terminal_states_lead_nowhere_but_to_deletion() -> None:
    for state in TERMINAL:
        assert TRANSITIONS[state] <= {RunState.DELETED}
    assert TRANSITIONS[RunState.DELETED] == frozenset()


def test_every_other_state_can_end() -> None:
    for start in set(RunState) - TERMINAL:
        reached = {start}
        while more := set().union(*(TRANSITIONS[state] for state in reached)) - reached:
            reached |= more
        assert reached & TERMINAL, start


def test_cancelable_states_are_those_that_lead_to_canceling() -> None:
    assert {s for s, to in TRANSITIONS.items() if RunState.CANCELING in to} == CANCELABLE
    assert set(RunState) - TERMINAL - {RunState.CANCELING} == CANCELABLE


def test_success_needs_a_start() -> None:
    assert [s for s, to in TRANSITIONS.items() if RunState.SUCCEEDED in to] == [
        RunState.IN_PROGRESS
    ]
