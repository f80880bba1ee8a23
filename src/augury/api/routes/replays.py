"""Replays and backtests: past events through a rule again, for real or not."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine
from augury.engine.replaying import PastRequest, applied_rule, rule_of_spec, run_backtest
from augury.engine.views import replay_view, view
from augury.errors import InvalidError
from augury.routing.replay import ReplayState, count_states, get_replay, list_replays
from augury.rules.pattern import compile_pattern
from augury.rules.spec import RuleSpec

router = APIRouter(tags=["replays"])


class _Past(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    since: str | None = Field(default=None, description="A time, a day, or how long ago (30d).")
    until: str | None = Field(default=None, description="The same; exclusive.")
    model: str | None = Field(default=None, description="Score with this version instead.")


class ReplayBody(_Past):
    """What to replay."""

    rule: str = Field(min_length=1, description="Name of an applied rule.")
    epoch: str | None = Field(default=None, description="Its id; the same again goes on.")


class BacktestBody(_Past):
    """What to look at: an applied rule by name, or a rule as a document has it."""

    rule: str | None = Field(default=None, description="Name of an applied rule.")
    spec: RuleSpec | None = Field(default=None, description="Or a rule that is not applied.")
    rows: bool = Field(default=True, description="Read footers to know the rows.")


@router.post("/replays", status_code=202)
def begin(engine: TheEngine, body: ReplayBody) -> Response:
    """Lets a rule act on past events again, under an epoch of its own; runs wait for live work.

    202 with the replay if it is new, 200 if its epoch was asked for before: nothing is done twice.
    """
    replay, is_new = engine.replay(PastRequest(**body.model_dump()))
    return answer(view(replay), 202 if is_new else 200)


@router.get("/replays")
def replays(
    engine: TheEngine,
    state: ReplayState | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """Replays, newest first."""
    with engine.database.read() as connection:
        found = list_replays(connection, state=state, limit=limit + 1, before=before)
    return page(found, limit, view, lambda replay: replay.id)


@router.get("/replays/{epoch}")
def show(engine: TheEngine, epoch: str) -> Response:
    """One replay with its progress and the numbers of its outcomes in each state."""
    with engine.database.read() as connection:
        found = get_replay(connection, epoch)
        return answer(replay_view(found, count_states(connection, found)))


@router.post("/replays/{epoch}/cancel")
def cancel(engine: TheEngine, epoch: str) -> Response:
    """Stops it; runs that it started go on. Asked for again, it goes on where it stopped."""
    return answer(view(engine.cancel_replay(epoch)))


@router.post("/backtest")
def backtest(engine: TheEngine, body: BacktestBody) -> Response:
    """What a rule would have done with past events: matches, runs, rows. Starts nothing."""
    if (body.rule is None) == (body.spec is None):
        raise InvalidError("expected either `rule` (a name) or `spec` (a rule)")
    if body.spec is not None:
        compile_pattern(body.spec.pattern, dialect=body.spec.dialect)
        rule = rule_of_spec("backtest", body.spec.model_dump(mode="json"))
    else:
        with engine.database.read() as connection:
            rule = applied_rule(connection, str(body.rule))
    request = PastRequest(rule=rule.name, since=body.since, until=body.until, model=body.model)
    return answer(view(run_backtest(engine, engine.history(), request, rule, with_rows=body.rows)))
