"""Audit: evidence that nothing was lost and nothing doubled."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from augury.api.answers import answer
from augury.api.routes import TheEngine
from augury.engine.views import view

router = APIRouter(tags=["audit"])


@router.get("/audit")
def audit(engine: TheEngine, deep: bool = True) -> Response:
    """Compares the ledger with evidence outside its counters; `ok` is the verdict.

    `deep=false` looks at ledger and stream only and reads no outputs, which may take long.
    """
    from augury.monitoring.audit import audit as run

    report = run(engine.database, engine.bus, engine.settings, deep=deep)
    return answer(report.to_json())


@router.post("/audit/incidents/{incident}/acknowledge")
def acknowledge(engine: TheEngine, incident: str) -> Response:
    """Says that a person knows of an incident; from then on the audit passes over it."""
    from augury.monitoring.audit import acknowledge as run

    return answer(view(run(engine.database, incident)))
