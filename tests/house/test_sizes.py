"""Functions and files stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

_SRC = Path(__file__).parents[2] / "src"
_LONGEST_FUNCTION = 60
_LONGEST_FILE = 500
_BODY_MEDIAN = 8
_BODY_P90 = 25

type Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(function: Function) -> int:
    """Lines of the body, without decorators, signature and docstring."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _files() -> list[Path]:
    found = sorted(_SRC.rglob("*.py"))
    assert len(found) > 50
    return found


def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(_SRC)}:{function.lineno} {function.name}: {lines} lines"
        for path in _files()
        for function in _functions(path)
        if (lines := _body_lines(function)) > _LONGEST_FUNCTION
    ]
    assert long == []


def test_most_functions_are_short() -> None:
    sizes = sorted(_body_lines(f) for path in _files() for f in _functions(path))
    assert median(sizes) <= _BODY_MEDIAN
    assert sizes[len(sizes) * 9 // 10] <= _BODY_P90


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(_SRC)): lines
        for path in _files()
        if (lines := len(path.read_text().splitlines())) > _LONGEST_FILE
    }
    assert long == {}
