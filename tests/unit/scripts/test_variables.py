"""The environment of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augury.scripts.variables import RunFacts, interpolate, run_environment


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("World", "World"),
        ("${A} World", "Hello World"),
        ("$${A} World", "${A} World"),
        ("$(A) World", "$(A) World"),
        ("A ${C} World", "A ${C} World"),
        ("${A}${A}", "HelloHello"),
        ("$${C}", "${C}"),
        ("${B}", "${B}"),  # one pass
    ],
)
def test_interpolation_as_ocis_sdk_does_it(value: str, filled: str) -> None:
    values = {"A": "Hello", "B": value}
    assert interpolate(values, values)["B"] == filled


def _facts(**changes: Any) -> RunFacts:
    facts: dict[str, Any] = {
        "job_id": "job_1", "job_name": "train", "run_id": "run_1", "run_name": "train-1",
        "attempt": 2, "artifact_name": "a.py", "home": Path("/w/run_1"), "path": "/bin", "cpus": 3,
        "input_uris": ["s3://a/b", "s3://a/${X}"], "output_uri": "s3://out/run_1/", "host": "h",
        "installation": "augury",
    }  # fmt: skip
    return RunFacts(**{**facts, **changes})


def test_who_says_what() -> None:
    found = run_environment(
        _facts(),
        {"TZ": "Europe/Berlin", "AUGURY_DATABASE_URL": "secret"},
        {"KEY": "file", "LEVEL": "file"},
        {"LEVEL": "job", "X": "x", "WHERE": "${OUTPUT_URI}${JOB_RUN_OCID}", "TZ": "UTC"},
    )
    assert (found["KEY"], found["LEVEL"], found["TZ"]) == ("file", "job", "UTC")
    assert found["WHERE"] == "s3://out/run_1/run_1"
    assert "AUGURY_DATABASE_URL" not in found
    assert found["AUGURY_INPUT_URIS"] == '["s3://a/b", "s3://a/${X}"]'
    assert (found["OMP_NUM_THREADS"], found["POLARS_MAX_THREADS"]) == ("3", "3")
    assert found["JOB_RUN_OCID"] == found["AUGURY_RUN_ID"] == "run_1"
    assert found["AUGURY_RUN_ATTEMPT"] == "2"
    assert found["PROJECT_OCID"] == found["TENANCY_OCID"] == "augury"
    assert found["AUGURY_OUTPUT_DIR"] == found["OUTPUT_DIR"] == "/w/run_1/outputs"
    assert found["AUGURY_OUTPUT_URI"] == "s3://out/run_1/"


def test_an_output_of_the_jobs_own() -> None:
    job = {"OUTPUT_DIR": "results", "OUTPUT_URI": "s3://mine/", "OMP_NUM_THREADS": "1"}
    found = run_environment(_facts(), {}, {}, job)
    assert found["OUTPUT_DIR"] == "/w/run_1/results"
    assert found["AUGURY_OUTPUT_URI"] == "s3://mine/"
    assert found["OMP_NUM_THREADS"] == "1"


def test_a_run_without_output_has_no_uri() -> None:
    assert "OUTPUT_URI" not in run_environment(_facts(output_uri=""), {}, {}, {})
