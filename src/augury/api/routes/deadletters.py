"""Dead letters: entries of the bus that could not be routed."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine
from augury.engine.views import view
from augury.jobs.states import DeadLetterState
from augury.routing.dead_letters import get_dead_letter, list_dead_letters

router = APIRouter(tags=["deadletters"])


@router.get("/deadletters")
def dead_letters(
    engine: TheEngine,
    state: DeadLetterState | None = None,
    kind: Literal["entry", "action"] | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """Dead letters, newest first: entries of the bus, and actions of rules."""
    with engine.database.read() as connection:
        found = list_dead_letters(
            connection, state=state, kind=kind, limit=limit + 1, before=before
        )
    return page(found, limit, view, lambda letter: letter.id)


@router.get("/deadletters/{dead_letter}")
def show(engine: TheEngine, dead_letter: str) -> Response:
    """One dead letter with the reason, what was asked for, and its payload."""
    with engine.database.read() as connection:
        return answer(view(get_dead_letter(connection, dead_letter)))


@router.post("/deadletters/{dead_letter}/redrive")
def redrive(engine: TheEngine, dead_letter: str) -> Response:
    """Tries it again, once; 409 if that was done, it was discarded, or its rule is gone."""
    return answer(view(engine.redrive(dead_letter)))


@router.post("/deadletters/{dead_letter}/discard")
def discard(engine: TheEngine, dead_letter: str) -> Response:
    """Throws it away; it and an action's outcome stay listed as DISCARDED."""
    return answer(view(engine.discard(dead_letter)))
