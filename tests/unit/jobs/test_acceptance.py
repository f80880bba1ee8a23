"""What a run's identity and its first queue follow from."""

from __future__ import annotations

import itertools

import pytest

from augury.jobs.runs import first_queue, run_key
from augury.jobs.spec import JobSpec, Mode


def test_run_key_is_short_and_the_same_everywhere() -> None:
    key = run_key("rule_01", "start_run", "0", "object:s3://b/k#" + "x" * 4000)
    assert key == run_key("rule_01", "start_run", "0", "object:s3://b/k#" + "x" * 4000)
    assert len(key) <= 80


def test_run_key_tells_all_its_parts_apart() -> None:
    parts = list(itertools.product(("a", "ab"), ("b", "bb"), ("0", "r1"), ("c", "cc")))
    assert len({run_key(*each) for each in parts}) == len(parts)


@pytest.mark.parametrize(
    ("mode", "queue"),
    [
        (Mode.AUTO, "mini_batch"),
        (Mode.MINI_BATCH, "mini_batch"),
        (Mode.BATCH, "batch"),
        (Mode.DISTRIBUTED, "distributed"),
    ],
)
def test_planning_waits_in_the_queue_of_the_mode(mode: Mode, queue: str) -> None:
    assert first_queue(JobSpec(model="m", output="file:///out/", mode=mode)) == queue
