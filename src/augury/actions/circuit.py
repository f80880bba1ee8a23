"""A circuit breaker per target: pure, told the time by its caller.

Closed: a target gets up to its share of attempts at once. After some failures in a row it opens,
and nothing is sent for a while; then one attempt may try (half open): if it succeeds the circuit is
closed, if not it opens again for twice as long. So a dead target costs one attempt now and then,
however much waits for it. A target that says Retry-After is left alone for that long.
"""

from __future__ import annotations

from dataclasses import dataclass

_FAILURES_TO_OPEN = 5
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0


@dataclass(slots=True)
class Circuit:
    """What a dispatcher knows about one target.

    Attributes:
        failures: in a row.
        in_flight: attempts that have begun and not ended.
        resumes_s: nothing begins before this monotonic instant.
    """

    failures: int = 0
    in_flight: int = 0
    resumes_s: float = 0.0

    @property
    def is_open(self) -> bool:
        """True from the failure that opened it to the success that closes it."""
        return self.failures >= _FAILURES_TO_OPEN

    def free(self, now_s: float, most: int) -> int:
        """How many attempts may begin now, if `most` may run at once."""
        if now_s < self.resumes_s:
            return 0
        return max(0, (1 if self.is_open else most) - self.in_flight)

    def begin(self) -> None:
        """An attempt begins."""
        self.in_flight += 1

    def succeed(self) -> None:
        """An attempt ended well; or badly, but the target answered as one that works."""
        self.in_flight -= 1
        self.failures = 0

    def fail(self, now_s: float, retry_after_s: float | None = None) -> None:
        """An attempt failed in a way that may be the target's."""
        self.in_flight -= 1
        self.failures += 1
        if self.is_open:
            exponent = min(self.failures - _FAILURES_TO_OPEN, 20)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**exponent)
            self.resumes_s = max(self.resumes_s, now_s + pause_s)
        if retry_after_s is not None:
            self.resumes_s = max(self.resumes_s, now_s + retry_after_s)

    def abandon(self) -> None:
        """An attempt did not take place after all."""
        self.in_flight -= 1
