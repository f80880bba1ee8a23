"""How attempts end, in words."""

from __future__ import annotations

import re

import pytest

from augury.jobs.script_spec import ScriptSpec
from augury.scripts.endings import failure_of, shown_size
from augury.scripts.process import Ended

_SPEC = ScriptSpec.model_validate(
    {
        "kind": "script",
        "artifact": {"digest": "0" * 64, "file_name": "a.py", "size_bytes": 1},
        "shape": {"memory": "2 GiB"},
        "block_storage": "50 GiB",
        "maximum_runtime_s": 60,
    }
)


@pytest.mark.parametrize(
    ("ended", "code", "words", "is_permanent"),
    [
        (Ended(exit_code=3), "exit_code", "with exit code 3.", False),
        (Ended(signal="SIGSEGV"), "signal", "ended by signal SIGSEGV.", False),
        (Ended(exit_code=0, why="stopped"), "worker_stopped", "the worker was stopped.", False),
        (Ended(error="No such file"), "not_started", "cannot be started: No such file.", True),
        (
            Ended(signal="SIGKILL", why="out_of_memory", peak_memory_bytes=9 * 2**28),
            "out_of_memory",
            "out of memory: limit 2 GiB, peak 2.25 GiB.",
            True,
        ),
        (
            Ended(signal="SIGKILL", why="out_of_storage", found=51 * 2**30),
            "out_of_storage",
            "out of block storage: limit 50 GiB, found 51 GiB.",
            True,
        ),
        (
            Ended(signal="SIGTERM", why="maximum_runtime"),
            "maximum_runtime",
            "maximum runtime of 60 s exceeded.",
            True,
        ),
        (
            Ended(signal="SIGKILL", why="too_many_processes", found=600),
            "too_many_processes",
            "too many processes: found 600.",
            True,
        ),
    ],
)
def test_every_end_has_a_code_and_words(
    ended: Ended, code: str, words: str, is_permanent: bool
) -> None:
    failure = failure_of(ended, _SPEC)
    assert failure is not None
    assert (failure.code, failure.is_permanent) == (code, is_permanent)
    assert failure.message.startswith("Job run artifact execution failed")
    assert failure.message.endswith(words)


def test_ocis_sdk_finds_the_exit_code() -> None:
    failure = failure_of(Ended(exit_code=255), _SPEC)
    assert failure is not None
    assert re.findall(r"exit code (\d+)", failure.message) == ["255"]


def test_success_is_no_failure() -> None:
    assert failure_of(Ended(exit_code=0), _SPEC) is None


def test_sizes_for_people() -> None:
    assert [shown_size(size) for size in (5, 1536, 2**20, 2**50)] == [
        "5 bytes",
        "1.5 KiB",
        "1 MiB",
        "1024 TiB",
    ]
