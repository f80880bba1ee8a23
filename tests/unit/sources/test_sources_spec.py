from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from augury.sources.announce import Place
from augury.sources.spec import Missed, ScheduleSpec, SourceSpec


def faults(error: ValidationError) -> dict[str, str]:
    return {".".join(map(str, fault["loc"])): fault["msg"] for fault in error.errors()}


def test_a_uri_is_stored_in_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("landing", "./landing/", f"{tmp_path}/x/../landing", f"file://{tmp_path}/landing"):
        assert SourceSpec(uri=uri).uri == f"file://{tmp_path}/landing/"
    assert SourceSpec(uri="s3://bucket/in").uri == "s3://bucket/in/"
    assert SourceSpec(uri="s3://bucket").uri == "s3://bucket/"


def test_a_stored_spec_reads_back_as_itself() -> None:
    source = SourceSpec(uri="/in", include=("*.csv",), list_s=3)
    assert SourceSpec.model_validate(source.model_dump(mode="json")) == source
    schedule = ScheduleSpec(cron="0 0 * * *", timezone="Europe/Berlin", missed=Missed.ALL)
    assert ScheduleSpec.model_validate(schedule.model_dump(mode="json")) == schedule


def test_every_fault_of_a_source_is_named() -> None:
    with pytest.raises(ValidationError) as error:
        SourceSpec.model_validate({"uri": "gs://b/x", "list_s": 0, "events": [], "typo": 1})
    found = faults(error.value)
    assert set(found) == {"uri", "list_s", "events", "typo"}
    assert "expected file:///absolute/path, s3://bucket/prefix" in found["uri"]


def test_every_fault_of_a_schedule_is_named() -> None:
    with pytest.raises(ValidationError) as error:
        ScheduleSpec.model_validate({"cron": "often", "timezone": "Moon", "missed": "some"})
    found = faults(error.value)
    assert set(found) == {"cron", "timezone", "missed"}
    assert "found 'often'" in found["cron"]
    assert "found 'Moon'" in found["timezone"]


def test_the_place_as_events_name_it() -> None:
    assert Place.of(SourceSpec(uri="s3://bucket/in/new")) == Place("bucket", "in/new/")
    assert Place.of(SourceSpec(uri="s3://bucket")) == Place("bucket", "")
    assert Place.of(SourceSpec(uri="/data/in")) == Place("/data/in", "")
    assert Place.of(SourceSpec(uri="/")) == Place("/", "")
