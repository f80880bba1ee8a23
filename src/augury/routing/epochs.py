"""What differs in a replay's epoch from the live one: the model of its runs, and their priority."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from augury.actions.start_run import RunRequest
from augury.jobs.states import LIVE_EPOCH, Priority
from augury.storage.tables import replays


def priority_of(epoch: str) -> Priority:
    """Runs of replays wait for live work."""
    return Priority.LIVE if epoch == LIVE_EPOCH else Priority.REPLAY


def with_model(request: RunRequest, model: str | None) -> RunRequest:
    """The request with another model; with its own if None."""
    if model is None:
        return request
    overrides = request.overrides.model_copy(update={"model": model})
    return replace(request, overrides=overrides)


def in_epoch(connection: sa.Connection, request: RunRequest, epoch: str) -> RunRequest:
    """The request as the replay of that epoch wants it; as it is in an epoch that is none."""
    if epoch == LIVE_EPOCH:
        return request
    return with_model(
        request, connection.scalar(sa.select(replays.c.model).where(replays.c.id == epoch))
    )
