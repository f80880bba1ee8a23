from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import augury
from augury.actions import functions
from augury.actions.functions import FunctionCall, find
from augury.errors import ConflictError, NotFoundError


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_registered", {})
    monkeypatch.setattr(functions, "_loaded", set())


def test_a_decorated_function_is_found_by_its_name() -> None:
    @augury.function
    def tell(call: augury.FunctionCall) -> None: ...

    @augury.function("other-name")
    def told(call: augury.FunctionCall) -> None: ...

    assert find("tell", "") is tell
    assert find("other-name", "") is told
    assert augury.FunctionCall is FunctionCall


def test_two_functions_of_one_name_are_refused() -> None:
    @augury.function("same")
    def one(call: augury.FunctionCall) -> None: ...

    with pytest.raises(ConflictError, match="two functions are named 'same'"):

        @augury.function("same")
        def two(call: augury.FunctionCall) -> None: ...


def test_modules_of_the_setting_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import augury\n\n@augury.function\ndef from_module(call):\n    pass\n"
    (tmp_path / "functions_of_a_user.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert find("from_module", " functions_of_a_user ,").__name__ == "from_module"
    sys.modules.pop("functions_of_a_user")
    with pytest.raises(NotFoundError, match="cannot import 'no_such_module'"):
        find("from_module", "no_such_module")


def test_entry_points_are_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="sleep", value="time:sleep", group="augury.functions")

    def entry_points(**wanted: str) -> list[EntryPoint]:
        return [point] if point.matches(**wanted) else []

    monkeypatch.setattr(functions, "entry_points", entry_points)
    with pytest.raises(NotFoundError, match="there are: sleep"):
        find("other", "")
    assert find("sleep", "").__name__ == "sleep"
