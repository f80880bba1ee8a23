"""Views hold only what JSON can."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from augury.engine.views import plain, view
from augury.jobs.states import RunState


@dataclass(frozen=True)
class _Thing:
    at: datetime
    state: RunState
    nested: Any
    secret: str = "s"


def test_everything_becomes_plain() -> None:
    at = datetime(2026, 11, 25, 7, 11, 51, 5, UTC)
    inner = _Thing(at=at, state=RunState.FAILED, nested=Path("/x"))
    thing = _Thing(at=at, state=RunState.ACCEPTED, nested={"k": (1, None, inner), 2: {True}})
    shown = view(thing, without=frozenset({"secret"}))
    assert shown["at"] == "2026-11-25T07:11:51.000005Z"
    assert type(shown["state"]) is str
    assert shown["nested"]["2"] == [True]
    assert shown["nested"]["k"][2]["nested"] == "/x"
    assert "secret" not in shown
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown
    assert plain(RunState.FAILED) == "FAILED"
