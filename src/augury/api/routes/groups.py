"""Groups: events that act together."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine
from augury.engine.views import view
from augury.jobs.states import GroupState
from augury.routing.groups import list_groups, show_group

router = APIRouter(tags=["groups"])


@router.get("/groups")
def groups(
    engine: TheEngine,
    state: GroupState | None = None,
    rule: str | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """Groups of events, newest first; `state=OPEN` is what still gathers."""
    with engine.database.read() as connection:
        found = list_groups(connection, state=state, rule=rule, limit=limit + 1, before=before)
    return page(found, limit, view, lambda group: group.id)


@router.get("/groups/{group_id}")
def group(engine: TheEngine, group_id: str) -> Response:
    """One group with its members, the first 1,000 in the order of the stream."""
    with engine.database.read() as connection:
        found, members = show_group(connection, group_id)
    return answer({**view(found), "members": [view(member) for member in members]})
