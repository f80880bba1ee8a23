"""Paths of documents become URIs that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augury.engine.paths import absolute_fields, absolute_path, absolute_uri
from augury.errors import Fault
from augury.resources.documents import Entry

_BASE = Path("/srv/demo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("./landing/", "file:///srv/demo/landing/"),
        ("landing", "file:///srv/demo/landing"),
        ("../other/", "file:///srv/other/"),
        ("/data/in/", "file:///data/in/"),
        ("file:///data/a b/", "file:///data/a b/"),
        ("s3://bucket/prefix/", "s3://bucket/prefix/"),
        ("${data.uri}", "${data.uri}"),
        ("./out/${data.key}/", "file:///srv/demo/out/${data.key}/"),
        ("s3://b/${data.key}", "s3://b/${data.key}"),
    ],
)
def test_relative_to_the_document(text: str, expected: str) -> None:
    assert absolute_uri(text, _BASE) == expected


def test_without_a_base_only_absolute_paths_mean_something() -> None:
    assert absolute_uri("/data/", None) == "file:///data/"
    assert absolute_path("/a/../b/", None) == "/b/"
    for relative in ("./x", "x/"):
        with pytest.raises(ValueError, match="relative"):
            absolute_uri(relative, None)


def test_unknown_store_is_refused() -> None:
    with pytest.raises(ValueError, match="ftp"):
        absolute_uri("ftp://host/x", _BASE)


def _made(
    section: str, fields: dict[str, Any], base: Path | None = _BASE
) -> tuple[Any, list[Fault]]:
    faults: list[Fault] = []
    entry = Entry(section=section, name="n", fields=fields, base=base)
    return absolute_fields(entry, faults), faults


def test_every_place_of_a_document() -> None:
    assert _made("models", {"path": "m.ubj", "sample": "file:///s.parquet"})[0] == {
        "path": "/srv/demo/m.ubj",
        "sample": "/s.parquet",
    }
    assert _made("sources", {"uri": "in/"})[0] == {"uri": "file:///srv/demo/in/"}
    job, _ = _made("jobs", {"output": "o/", "input": [{"uri": "i/", "tag": "t"}, "wrong"]})
    assert job == {
        "output": "file:///srv/demo/o/",
        "input": [{"uri": "file:///srv/demo/i/", "tag": "t"}, "wrong"],
    }
    start = {"job": "j", "output": "o/${id}/", "input": ["a", "${data.uris}"]}
    rule, _ = _made("rules", {"actions": [{"start_run": start}, 7, {"start_run": {"input": "x"}}]})
    assert rule["actions"][0]["start_run"]["output"] == "file:///srv/demo/o/${id}/"
    assert rule["actions"][0]["start_run"]["input"] == ["file:///srv/demo/a", "${data.uris}"]
    assert rule["actions"][1] == 7
    assert rule["actions"][2]["start_run"]["input"] == "file:///srv/demo/x"


def test_wrong_types_are_left_to_the_spec() -> None:
    for fields in (
        {"output": 7, "input": 8},
        {"output": None},
        {"input": [7, None]},
        {"output": ""},
    ):
        made, faults = _made("jobs", dict(fields))
        assert made == fields
        assert faults == []


def test_faults_name_the_place() -> None:
    _, faults = _made("jobs", {"output": "o", "input": [{"uri": "s3://b/"}, {"uri": "x"}]}, None)
    assert [fault.path for fault in faults] == ["jobs.n.output", "jobs.n.input.1.uri"]
