from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from augury.resources.documents import parse_document
from augury.sources.announce import Place
from augury.sources.spec import Missed, Overlap, ScheduleSpec, SourceSpec


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


@pytest.mark.parametrize(
    ("fields", "at_fault", "says"),
    [
        ({}, "at", "expected exactly one of cron, every_s and at, found nothing"),
        ({"cron": "@daily", "every_s": 5}, "at", "found cron and every_s"),
        ({"every_s": 5, "at": "2026-12-01"}, "at", "found every_s and at"),
        ({"every_s": 0}, "every_s", "greater than or equal to 1"),
        ({"every_s": 10**12}, "every_s", "less than or equal to 31622400"),
        ({"at": "tomorrow"}, "at", "expected a time such as"),
        ({"every_s": 5, "missed": "bounded"}, "missed_limit", "found nothing with missed: bounded"),
        ({"every_s": 5, "missed_limit": 3}, "missed_limit", "found 3 with missed: last"),
    ],
)
def test_a_schedule_has_one_rhythm_and_whole_policies(
    fields: dict[str, object], at_fault: str, says: str
) -> None:
    with pytest.raises(ValidationError) as error:
        ScheduleSpec.model_validate(fields)
    found = faults(error.value)
    assert set(found) == {at_fault}
    assert says in found[at_fault]


@pytest.mark.parametrize("path", ["docs/sources.md", "examples/schedules/augury.yaml"])
def test_documented_schedules_are_accepted(path: str) -> None:
    text = (Path(__file__).parents[3] / path).read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) or [text]
    entries = [entry for block in blocks for entry in parse_document(block)]
    specs = [ScheduleSpec.model_validate(e.fields) for e in entries if e.section == "schedules"]
    assert {spec.overlap for spec in specs} >= {Overlap.ALLOW, Overlap.SKIP}


def test_the_place_as_events_name_it() -> None:
    assert Place.of(SourceSpec(uri="s3://bucket/in/new")) == Place("bucket", "in/new/")
    assert Place.of(SourceSpec(uri="s3://bucket")) == Place("bucket", "")
    assert Place.of(SourceSpec(uri="/data/in")) == Place("/data/in", "")
    assert Place.of(SourceSpec(uri="/")) == Place("/", "")
