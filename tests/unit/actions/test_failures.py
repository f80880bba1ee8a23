from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from augury.actions.effect_specs import Retry
from augury.actions.failures import (
    DeliveryError,
    Verdict,
    delay_s_after,
    judge,
    retry_after_s,
    status_is_permanent,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RETRY = Retry().model_dump()


def verdict(error: DeliveryError, attempts: int = 1, left_s: float = 86_400.0) -> Verdict:
    return judge(
        error,
        attempts=attempts,
        retry=RETRY,
        now=NOW,
        expires_at=NOW + timedelta(seconds=left_s),
        jitter=1.0,
    )


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [(300, True), (301, True), (400, True), (401, True), (404, True), (410, True), (422, True),
     (408, False), (429, False), (500, False), (502, False), (503, False), (599, False)],
)  # fmt: skip
def test_classes_of_http_status(status: int, is_permanent: bool) -> None:
    assert status_is_permanent(status) is is_permanent


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("٣", None),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("99999999", 86_400.0),
        ("Wed, 25 Nov 2026 12:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_delays_double_and_are_spread() -> None:
    assert [delay_s_after(n, RETRY, 1.0) for n in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert delay_s_after(1, RETRY, 0.0) == 2.5
    assert delay_s_after(13, RETRY, 1.0) == delay_s_after(99, RETRY, 1.0) == 14_400


def test_a_permanent_failure_is_the_last() -> None:
    assert verdict(DeliveryError("no", is_permanent=True)).next_attempt_at is None


def test_a_transient_failure_is_tried_again_within_its_budget() -> None:
    assert verdict(DeliveryError("no")).next_attempt_at == NOW + timedelta(seconds=5)
    later = verdict(DeliveryError("no", retry_after_s=60))
    assert later.next_attempt_at == NOW + timedelta(seconds=60)
    last = verdict(DeliveryError("no"), attempts=15)
    assert (last.next_attempt_at, last.reason) == (None, "no (given up after 15 attempts)")
    late = verdict(DeliveryError("no"), left_s=4)
    assert late.next_attempt_at is None
    assert "would come after its time, 86400 s" in late.reason
