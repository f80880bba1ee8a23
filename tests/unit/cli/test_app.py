"""The command tree: help everywhere, exit codes, errors without tracebacks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from augury.cli import main
from augury.cli.app import app
from augury.errors import ConflictError, Fault, InvalidError, UnavailableError

_HEAVY = {
    "pydantic",
    "sqlalchemy",
    "redis",
    "celery",
    "fastapi",
    "numpy",
    "pyarrow",
    "rich",
    "yaml",
}


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


_ALL = list(_commands(typer.main.get_command(app)))


def test_the_tree_is_complete() -> None:
    names = {" ".join(path) for path in _ALL}
    kinds = ("rules", "jobs", "schedules", "sources")
    for noun in kinds:
        assert {f"{noun} list", f"{noun} show", f"{noun} delete"} <= names
    assert {
        f"runs {verb}" for verb in ("start", "list", "show", "watch", "logs", "cancel")
    } <= names
    assert {f"models {verb}" for verb in ("register", "list", "show", "alias")} <= names
    assert {
        "up",
        "api",
        "router",
        "sources",
        "dispatcher",
        "sweeper",
        "relay",
        "worker",
        "doctor",
    } <= names
    assert {"apply", "delete", "publish", "plan", "score", "audit", "audit acknowledge"} <= names


@pytest.mark.parametrize("path", _ALL, ids=" ".join)
def test_every_help_has_a_sentence_and_an_example(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  [A-Z][a-z]", out, re.MULTILINE), out
    is_group = "COMMAND" in out and path[-1:] not in [("audit",), ("sources",)]
    assert is_group or f"augury {' '.join(path)}" in out.partition("Example:")[2], out


def test_help_imports_nothing_heavy() -> None:
    code = "from augury.cli import main; main(['--help']); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert loaded & _HEAVY == set()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("augury ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["apply"],
        ["apply", "-f"],
        ["up", "--workers", "many"],
        ["up", "--port", "70000"],
        ["publish"],
        ["publish", "a.b", "--file", "x"],
        ["delete"],
        ["delete", "rule"],
        ["delete", "rulez", "x"],
        ["delete", "rule", "x", "-f", "y"],
        ["runs", "list", "--state", "LOST"],
        ["runs", "start", "j", "--env", "novalue"],
        ["plan"],
        ["score", "--model", "no-such-file", "--input", "x", "--output", "y"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "Error" in said.err or "Usage" in said.err
    assert said.out == ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing runs."""
    monkeypatch.setenv("AUGURY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConflictError("it is up already"), 1),
        (UnavailableError("bus did not answer"), 3),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    home: Path,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("augury.cli.context.load_settings", fail)
    assert main(["rules", "list"]) == code
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    if not isinstance(error, KeyboardInterrupt | BrokenPipeError):
        assert said.err == f"error: {error}\n"


def test_faults_are_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    faults = [Fault(path="a.b", message="wrong", line=3), Fault(path="c", message="too")]

    def fail() -> None:
        raise InvalidError("refused", faults=faults)

    monkeypatch.setattr("augury.cli.context.load_settings", fail)
    assert main(["rules", "list"]) == 1
    assert capsys.readouterr().err == "error: refused\n  line 3: a.b: wrong\n  c: too\n"


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("augury.cli.context.load_settings", fail)
    with pytest.raises(RuntimeError):
        main(["rules", "list"])


def test_invalid_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    monkeypatch.setenv("AUGURY_PORT", "http")
    monkeypatch.setenv("AUGURY_RELAY_S", "-1")
    assert main(["rules", "list"]) == 1
    err = capsys.readouterr().err
    assert "AUGURY_PORT" in err
    assert "AUGURY_RELAY_S" in err
    assert "'http'" in err


def test_nothing_to_show_is_no_error(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["rules", "list"]) == 0
    assert main(["rules", "list", "--json"]) == 0
    said = capsys.readouterr()
    assert said.out == "[]\n"
    assert "no rules" in said.err


def test_silent_bus_is_3(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["publish", "a.b.happened"]) == 3
    assert capsys.readouterr().err.startswith("error: bus ")
