"""Every error of ours has a status, and its nearest class decides."""

from __future__ import annotations

import inspect

import pytest

from augury import errors
from augury.api.errors import _STATUS, error_body, status_of
from augury.errors import AuguryError, Fault

_CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, AuguryError) and found is not AuguryError
]


@pytest.mark.parametrize("kind", _CLASSES)
def test_every_class_has_a_status(kind: type[AuguryError]) -> None:
    assert any(base in _STATUS for base in kind.__mro__)
    assert 400 <= status_of(kind("wrong")) <= 503


def test_the_usual_ones() -> None:
    assert status_of(errors.InvalidError("x")) == 400
    assert status_of(errors.InvalidError("x", size_bytes=9)) == 413
    assert status_of(errors.PatternError("x")) == 400
    assert status_of(errors.NotFoundError("x")) == 404
    assert status_of(errors.ConflictError("x")) == 409
    assert status_of(errors.UnavailableError("x")) == 503
    assert status_of(AuguryError("x")) == 500


def test_body_has_one_form() -> None:
    body = error_body("c", "m", (Fault(path="p", message="f", line=3),), {"a": 1, "b": object()})
    assert body["faults"] == [{"path": "p", "message": "f", "line": 3}]
    assert body["attributes"]["a"] == 1
    assert isinstance(body["attributes"]["b"], str)
    assert set(body) == {"code", "message", "faults", "attributes"}
