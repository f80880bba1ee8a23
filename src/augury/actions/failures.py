"""Why an attempt to deliver failed, and what follows: pure decisions.

There are two classes. Permanent: trying again would give the same answer (most 4xx, an unknown
function, a secret that is not set, an address that must not be reached). Transient: everything
else. When in doubt a failure is transient, for its budget ends it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

# the two of 4xx that say "later"
_TRANSIENT_4XX = frozenset({408, 429})
_LONGEST_RETRY_AFTER_S = 86_400.0


class DeliveryError(Exception):
    """An attempt failed.

    Attributes:
        is_permanent: trying again would not help.
        retry_after_s: seconds that the target asked to be left alone; None: it did not ask.
    """

    def __init__(
        self, message: str, *, is_permanent: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.is_permanent = is_permanent
        self.retry_after_s = retry_after_s


def status_is_permanent(status: int) -> bool:
    """Whether an HTTP status other than 2xx makes trying again useless."""
    return status < 500 and status not in _TRANSIENT_4XX


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a header Retry-After asks for, 0 to a day; None if it is missing or garbage."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return min(max(0.0, (until - now).total_seconds()), _LONGEST_RETRY_AFTER_S)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows from a failed attempt.

    Attributes:
        next_attempt_at: when to try again; None: never, the effect is dead.
        reason: the failure, and why it is the last one if it is.
    """

    next_attempt_at: datetime | None
    reason: str


def judge(
    error: DeliveryError,
    *,
    attempts: int,
    retry: Mapping[str, Any],
    now: datetime,
    expires_at: datetime,
    jitter: float,
) -> Verdict:
    """Decides whether an effect is tried again.

    Args:
        error: of the attempt that failed.
        attempts: made so far, this one among them.
        retry: fields of `effect_specs.Retry`.
        now: the present instant.
        expires_at: no attempt may begin later.
        jitter: between 0 and 1; spreads attempts that failed together.
    """
    if error.is_permanent:
        return Verdict(next_attempt_at=None, reason=error.message)
    if attempts >= retry["max_attempts"]:
        reason = f"{error.message} (given up after {attempts} attempts)"
        return Verdict(next_attempt_at=None, reason=reason)
    delay_s = max(delay_s_after(attempts, retry, jitter), error.retry_after_s or 0.0)
    following = now + timedelta(seconds=delay_s)
    if following > expires_at:
        reason = f"{error.message} (given up: the next attempt would come after its time, "
        return Verdict(next_attempt_at=None, reason=f"{reason}{retry['max_time_s']:g} s)")
    return Verdict(next_attempt_at=following, reason=error.message)


def delay_s_after(attempts: int, retry: Mapping[str, Any], jitter: float) -> float:
    """Seconds between attempt number `attempts` (from 1) and the next: half to all of 2^n."""
    doubled = retry["first_delay_s"] * 2.0 ** min(attempts - 1, 60)
    return float(min(doubled, retry["longest_delay_s"]) * (0.5 + 0.5 * jitter))
