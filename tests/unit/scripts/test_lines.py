"""Bytes in, lines out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from augury.jobs.spec import LogSettings
from augury.scripts.lines import MOST_LINE_BYTES, Line, LineCutter, LogLimiter

_AT = datetime(2026, 11, 25, tzinfo=UTC)


def _cut(*chunks: bytes) -> list[str]:
    cutter = LineCutter("stdout")
    lines = [line for chunk in chunks for line in cutter.feed(chunk, _AT)]
    return [line.text for line in (*lines, *cutter.close(_AT))]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b""], []),
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\nc", b"d"], ["ab", "cd"]),
        ([b"\n\n"], ["", ""]),
        ([b"a\r\n"], ["a"]),
        ([b"gr\xc3", b"\xbc\xc3\x9fe\n"], ["grüße"]),
        ([b"\xff\xfe\n"], ["\\xff\\xfe"]),
    ],
)
def test_lines_are_cut_at_newlines(chunks: list[bytes], lines: list[str]) -> None:
    assert _cut(*chunks) == lines


def test_a_long_line_is_cut_and_says_so() -> None:
    (line,) = _cut(*[b"x" * 10_000] * 5, b"\n")
    assert line == "x" * MOST_LINE_BYTES + " ... [line cut: 33616 bytes more]"
    assert _cut(b"x" * MOST_LINE_BYTES + b"\nnext\n") == ["x" * MOST_LINE_BYTES, "next"]


def _admitted(settings: LogSettings, *at_s: float) -> list[str]:
    limiter = LogLimiter(settings)
    found = [
        line.text
        for number, now_s in enumerate(at_s)
        for line in limiter.admit(Line(_AT, "stdout", f"line {number}"), now_s)
    ]
    return found + [line.text for line in limiter.close(_AT)]


def test_a_rate_is_kept_and_told() -> None:
    settings = LogSettings(lines_per_s=2)
    assert _admitted(settings, 10, 10.1, 10.2, 10.3, 11.5, 11.6, 11.7) == [
        "line 0",
        "line 1",
        "2 lines were not kept: more than 2 in one second",
        "line 4",
        "line 5",
        "1 lines were not kept: more than 2 in one second",
    ]


def test_a_size_is_kept_and_told() -> None:
    assert _admitted(LogSettings(max_bytes=13), 1, 1, 1, 1) == [
        "line 0",
        "line 1",
        "the log is full: 13 bytes; the rest is only counted",
        "2 lines were not kept: the log was full",
    ]


def test_a_log_that_is_off_keeps_nothing() -> None:
    assert _admitted(LogSettings(enabled=False), 1, 2) == []
