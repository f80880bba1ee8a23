"""What an environment follows from."""

from __future__ import annotations

import pytest

from augury.scripts.environments import environment_digest


@pytest.mark.parametrize(
    "text", [b"numpy==2.1\n", b"# ./comment\nrequests>=2 ; python_version > '3'\n"]
)
def test_names_of_the_index_are_the_same_for_all_artifacts(text: bytes) -> None:
    assert environment_digest(text, "a") == environment_digest(text, "b")
    assert environment_digest(text, "a") != environment_digest(text + b"x", "a")


@pytest.mark.parametrize(
    "text",
    [b"./w.whl\n", b"a\n-r more.txt\n", b"tiny @ file:./w\n", b"wheels/tiny-1.0.whl", b"-e ."],
)
def test_files_of_an_artifact_are_its_own(text: bytes) -> None:
    assert environment_digest(text, "a") != environment_digest(text, "b")
