"""What a reader may rely on in every module."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SRC = _ROOT / "src"
_MODULES = sorted(_SRC.rglob("*.py"))
_VAGUE = re.compile(r"(Manager|Helper|Util|Utils|Service|Impl)\Z")


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(_SRC)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"


def test_no_class_has_a_vague_name() -> None:
    vague = [
        f"{path.relative_to(_SRC)}: {node.name}"
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and _VAGUE.search(node.name)
    ]
    assert vague == []


def test_every_ruff_exception_has_its_reason() -> None:
    """A `noqa` names its rule, and says why on the line unless the line is its neighbour's."""
    bare = [
        f"{path.relative_to(_SRC)}:{number}"
        for path in _MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"#\s*noqa(?!: [A-Z]+\d+)", line)
    ]
    assert bare == []


def test_every_package_is_in_the_layers() -> None:
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")
    named = {part.strip() for layer in layers["layers"] for part in re.split(r"[|:]", layer)}
    here = {
        path.stem
        for path in (_SRC / "augury").iterdir()
        if path.stem not in {"__init__", "__pycache__", "py"} and path.name != "py.typed"
    }
    assert here - named == set()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    page = (_ROOT / "ARCHITECTURE.md").read_text()
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    names = [re.split(r"[\[<>=; ]", name)[0] for name in [*project["dependencies"], *extras]]
    missing = [name for name in names if f"`{name}`" not in page]
    assert missing == []
