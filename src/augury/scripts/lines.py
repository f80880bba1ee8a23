r"""Bytes of two streams in, lines of text out; pure.

A line is kept up to a length; what is longer is cut where the limit is and says how much is
missing, so one endless line costs no more memory than a short one. Bytes that are not UTF-8 become
`\\xff`. Lines beyond the rate or the size are counted and not kept, and the log itself says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from augury.jobs.spec import LogSettings

MOST_LINE_BYTES = 16 * 2**10
#: the stream of what Augury has to say within a program's log
NOTICE = "augury"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a program wrote; `stream` is `stdout`, `stderr` or `augury`."""

    at: datetime
    stream: str
    text: str


class LineCutter:
    """Cuts one stream into lines.

    Args:
        stream: its name.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._num_cut = 0

    def feed(self, data: bytes, at: datetime) -> Iterator[Line]:
        """The lines that are complete now; all get the same time."""
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._keep(part)
            yield self._line(at)
        self._keep(rest)

    def close(self, at: datetime) -> Iterator[Line]:
        """The last line, if it did not end in a newline."""
        if self._rest:
            yield self._line(at)

    def _keep(self, part: bytes) -> None:
        room = MOST_LINE_BYTES - len(self._rest)
        self._rest += part[:room]
        self._num_cut += max(0, len(part) - room)

    def _line(self, at: datetime) -> Line:
        text = bytes(self._rest).removesuffix(b"\r").decode(errors="backslashreplace")
        if self._num_cut:
            text += f" ... [line cut: {self._num_cut} bytes more]"
        self._rest.clear()
        self._num_cut = 0
        return Line(at, self._stream, text)


class LogLimiter:
    """Keeps a log within its limits, and says within the log what it left out.

    Args:
        settings: of the job or run.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._left_bytes = settings.max_bytes
        self._second = 0.0
        self._in_second = 0
        self._num_hurried = 0
        self._num_beyond = 0

    def admit(self, line: Line, now_s: float) -> Iterator[Line]:
        """The line, if it is kept, and what there is to say before it.

        Args:
            line: the next one.
            now_s: on a monotonic clock.
        """
        if not self._settings.enabled:
            return
        if self._num_beyond:
            self._num_beyond += 1
            return
        if now_s - self._second >= 1.0:
            yield from self._tell_hurried(line.at)
            self._second, self._in_second = now_s, 0
        self._in_second += 1
        if self._in_second > self._settings.lines_per_s:
            self._num_hurried += 1
            return
        self._left_bytes -= len(line.text)
        if self._left_bytes < 0:
            self._num_beyond = 1
            limit = self._settings.max_bytes
            yield Line(line.at, NOTICE, f"the log is full: {limit} bytes; the rest is only counted")
            return
        yield line

    def close(self, at: datetime) -> Iterator[Line]:
        """What is left to say at the end."""
        yield from self._tell_hurried(at)
        if self._num_beyond:
            text = f"{self._num_beyond} lines were not kept: the log was full"
            yield Line(at, NOTICE, text)

    def _tell_hurried(self, at: datetime) -> Iterator[Line]:
        if self._num_hurried:
            text = (
                f"{self._num_hurried} lines were not kept: more than "
                f"{self._settings.lines_per_s} in one second"
            )
            self._num_hurried = 0
            yield Line(at, NOTICE, text)
