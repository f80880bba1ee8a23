"""What a script job may say, and what a run may change of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from augury.jobs.script_spec import ScriptSpec, parse_spec
from augury.jobs.spec import JobSpec, RunOverrides

_ARTIFACT = {"digest": "0" * 64, "file_name": "a.py", "size_bytes": 1}


def _spec(**fields: Any) -> ScriptSpec:
    return ScriptSpec.model_validate({"kind": "script", "artifact": _ARTIFACT, **fields})


def test_a_stored_spec_is_known_by_its_kind() -> None:
    stored = _spec(arguments="a 'b c'").model_dump(mode="json")
    assert parse_spec(stored) == _spec(arguments=["a", "b c"])
    assert isinstance(parse_spec({"model": "m", "output": "/o"}), JobSpec)


def test_the_environment_is_limited_and_every_fault_named() -> None:
    assert _spec(environment={"A": "x" * 19_999}).environment["A"]
    with pytest.raises(ValidationError) as error:
        _spec(environment={"A": "x" * 20_000, "B-C": "1", "JOB_OCID": "2", "AUGURY_X": "\0"})
    text = str(error.value)
    for told in ("20000 characters", "found 20023", "'B-C'", "JOB_OCID is set by Augury", "NUL"):
        assert told in text


def test_arguments_are_limited() -> None:
    assert len(_spec(arguments=["x" * 1999, "y" * 2000]).arguments) == 2
    with pytest.raises(ValidationError, match="at most 4000 characters in all, found 4001"):
        _spec(arguments=["x" * 2000, "y" * 2000])
    with pytest.raises(ValidationError, match="No closing quotation"):
        _spec(arguments="'a")


def test_block_storage_has_a_bound() -> None:
    assert _spec().block_storage == 50 * 2**30
    with pytest.raises(ValidationError):
        _spec(block_storage="11 TiB")


def test_a_run_changes_what_it_may() -> None:
    spec = _spec(environment={"A": "1", "B": "2"}, tags={"t": "job"}, arguments="a")
    overrides = RunOverrides.model_validate(
        {
            "environment": {"B": "3"},
            "arguments": "b c",
            "maximum_runtime_s": 5,
            "logging": {"enabled": False},
            "tags": {"u": "run"},
            "display_name": "mine",
        }
    )
    changed = spec.overridden(overrides)
    assert changed.environment == {"A": "1", "B": "3"}
    assert (changed.arguments, changed.maximum_runtime_s) == (("b", "c"), 5)
    assert not changed.logging.enabled
    assert changed.tags == {"t": "job", "u": "run"}


def test_a_run_cannot_say_what_a_script_does_not_know() -> None:
    with pytest.raises(ValidationError, match="model"):
        _spec().overridden(RunOverrides(model="m@1"))
    inference = JobSpec(model="m", output="/o")
    with pytest.raises(ValidationError, match="arguments"):
        inference.overridden(RunOverrides.model_validate({"arguments": "a"}))
