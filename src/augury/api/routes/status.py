"""How Augury is: whether it answers, and how busy it is."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

import augury
from augury.api.answers import answer
from augury.api.routes import TheEngine
from augury.engine.status import status as status_of

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> Response:
    """Answers as soon as the API does; asks nobody else."""
    return answer({"state": "ok", "version": augury.__version__})


@router.get("/status")
def status(engine: TheEngine) -> Response:
    """How far the router is behind, workers, queues, runs by state, events by outcome."""
    return answer(status_of(engine))
