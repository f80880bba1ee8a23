"""How an artifact is read."""

from __future__ import annotations

import pytest

from augury.errors import InvalidError
from augury.scripts.entry import ArtifactKind, command_of, entry_of, kind_of, runtime_variables


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("train.py", b"", ArtifactKind.PYTHON),
        ("Train.PY", b"#!/bin/sh", ArtifactKind.PYTHON),
        ("run.sh", b"#!/usr/bin/env python", ArtifactKind.BASH),
        ("job.zip", b"PK", ArtifactKind.ARCHIVE),
        ("job.tar", b"", ArtifactKind.ARCHIVE),
        ("job.tar.gz", b"", ArtifactKind.ARCHIVE),
        ("job.tgz", b"", ArtifactKind.ARCHIVE),
        ("tool", b"#!/usr/bin/perl\n", ArtifactKind.EXECUTABLE),
    ],
)
def test_a_file_is_known_by_its_name_or_first_bytes(
    name: str, head: bytes, kind: ArtifactKind
) -> None:
    assert kind_of(name, head) is kind


def test_what_nothing_can_run_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"expected a \.py or \.sh file.*found 'model.bin'"):
        kind_of("model.bin", b"\x00")


def test_commands() -> None:
    assert command_of(ArtifactKind.PYTHON, "/a.py", "/python") == ["/python", "/a.py"]
    assert command_of(ArtifactKind.BASH, "/a.sh", "/python") == ["/bin/bash", "/a.sh"]
    assert command_of(ArtifactKind.EXECUTABLE, "/a", "/python") == ["/a"]


def test_the_runtime_file_is_flat() -> None:
    text = b"CONDA_ENV_TYPE: service\nJOB_RUN_ENTRYPOINT: a.py\nKEY2: 123123\nYES: on\n"
    assert runtime_variables(text) == {
        "CONDA_ENV_TYPE": "service",
        "JOB_RUN_ENTRYPOINT": "a.py",
        "KEY2": "123123",
        "YES": "on",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a: [1", "is no YAML"),
        (b"- a\n", "expected names with values"),
        (b"a: {b: 1}\nc: [2]\n", r"a: expected one value.*c: expected one value"),
        (b"1: x\n", "expected a name"),
    ],
)
def test_another_runtime_file_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        runtime_variables(text)


@pytest.mark.parametrize("named", ["dir/a.py", "./dir/a.py", " dir/a.py "])
def test_the_entry_is_relative_to_the_root(named: str) -> None:
    assert entry_of({"dir/a.py", "b"}, {"JOB_RUN_ENTRYPOINT": named}) == "dir/a.py"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "expected JOB_RUN_ENTRYPOINT.*there are: dir/a.py"),
        ({"JOB_RUN_ENTRYPOINT": "a.py"}, "names 'a.py', which is not in the archive; there are"),
        ({"JOB_RUN_ENTRYPOINT": "../a.py"}, "not in the archive"),
    ],
)
def test_an_archive_without_entry_is_refused(environment: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        entry_of({"dir/a.py", "data.csv"}, environment)
