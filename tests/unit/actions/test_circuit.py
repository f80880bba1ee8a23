from __future__ import annotations

from augury.actions.circuit import Circuit


def failed(times: int, now_s: float = 100.0) -> Circuit:
    circuit = Circuit()
    for _ in range(times):
        circuit.begin()
        circuit.fail(now_s)
    return circuit


def test_a_closed_circuit_lets_its_share_through() -> None:
    circuit = Circuit()
    assert circuit.free(0.0, 4) == 4
    circuit.begin()
    assert circuit.free(0.0, 4) == 3
    assert circuit.free(0.0, 1) == 0
    circuit.succeed()
    assert circuit.free(0.0, 4) == 4


def test_five_failures_in_a_row_open_it_and_one_attempt_may_close_it() -> None:
    assert not failed(4).is_open
    circuit = failed(5)
    assert circuit.is_open
    assert circuit.free(104.9, 4) == 0
    assert circuit.free(105.0, 4) == 1
    circuit.begin()
    assert circuit.free(105.0, 4) == 0
    circuit.succeed()
    assert (circuit.is_open, circuit.free(105.0, 4)) == (False, 4)


def test_it_stays_open_twice_as_long_each_time_up_to_five_minutes() -> None:
    resumes = [failed(number).resumes_s - 100.0 for number in (5, 6, 7, 8, 20, 500)]
    assert resumes == [5, 10, 20, 40, 300, 300]


def test_a_success_in_between_keeps_it_closed() -> None:
    circuit = failed(4)
    circuit.begin()
    circuit.succeed()
    circuit.begin()
    circuit.fail(100.0)
    assert not circuit.is_open


def test_retry_after_is_for_everything_that_waits_for_the_target() -> None:
    circuit = Circuit()
    circuit.begin()
    circuit.fail(100.0, retry_after_s=30.0)
    assert not circuit.is_open
    assert (circuit.free(129.9, 4), circuit.free(130.0, 4)) == (0, 4)
