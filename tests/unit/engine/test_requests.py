"""What a client asks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augury.engine.requests import run_request
from augury.errors import InvalidError
from augury.jobs.spec import Input, Mode, RunOverrides
from augury.resources.documents import Entry


def _request(fields: dict[str, Any], base: Path | None = Path("/b")) -> Any:
    return run_request(Entry(section="", name="", fields=fields), base=base)


@pytest.mark.parametrize(
    "given",
    ["in/a.parquet", ["in/a.parquet"], [{"uri": "in/a.parquet"}], ["/b/in/a.parquet"]],
)
def test_input_in_every_form(given: Any) -> None:
    request = _request({"job": "j", "input": given})
    assert request.input == (Input(uri="file:///b/in/a.parquet"),)


def test_overrides_are_what_was_said_and_no_more() -> None:
    request = _request({"job": "j", "mode": "batch", "columns": ["a"], "output": "out/"})
    assert request.job == "j"
    assert request.overrides() == RunOverrides(
        mode=Mode.BATCH, columns=("a",), output="file:///b/out/"
    )
    assert _request({"job": "j"}).overrides() == RunOverrides()


def test_tag_is_kept() -> None:
    request = _request({"job": "j", "input": [{"uri": "s3://b/k", "tag": "t"}]})
    assert request.input == (Input(uri="s3://b/k", tag="t"),)


def test_every_fault_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        _request({"jb": "j", "input": ["s3://b/", "x"], "mode": "bath", "max_concurrency": 0}, None)
    paths = {fault.path for fault in caught.value.faults}
    assert paths == {"input.1.uri", "job", "jb", "mode", "max_concurrency"}
