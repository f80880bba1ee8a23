"""Asking for replays and backtests: names, files and times in, what `routing` understands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.engine.filters import is_duration, moment
from augury.errors import InvalidError, NotFoundError
from augury.resources import store
from augury.resources.store import Kind
from augury.routing.backtest import Backtest, backtest
from augury.routing.replay import Replay, ReplayRequest, get_replay, start_replay
from augury.rules.ruleset import RuleVersion
from augury.rules.spec import RuleSpec

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from augury.engine.parts import Parts
    from augury.engine.rule_files import RuleFile
    from augury.routing.backtest import Progress
    from augury.routing.history import History


@dataclass(frozen=True, kw_only=True)
class PastRequest:
    """What people ask: times as text (see `filters.moment`), the rule by name.

    Attributes:
        model: reference to a version that every run is to use.
        epoch: the replay's id; the same one again goes on.
    """

    rule: str
    since: str | None = None
    until: str | None = None
    model: str | None = None
    epoch: str | None = None


def begin_replay(parts: Parts, history: History, request: PastRequest) -> tuple[Replay, bool]:
    """Records a replay; see `routing.replay.start_replay` for what it raises and returns."""
    newest = history.newest()

    def write(connection: sa.Connection) -> tuple[Replay, bool]:
        known = _known(connection, request.epoch)
        asked = ReplayRequest(
            rule=request.rule,
            since=_moment(request.since, "since", None if known is None else known.since),
            until=_moment(request.until, "until", None if known is None else known.until),
            model=request.model,
            epoch=request.epoch,
        )
        return start_replay(parts.database, connection, asked, newest)

    return parts.database.transact(write)


def _known(connection: sa.Connection, epoch: str | None) -> Replay | None:
    try:
        return None if epoch is None else get_replay(connection, epoch)
    except NotFoundError:
        return None


def _moment(text: str | None, name: str, known: datetime | None) -> datetime | None:
    """How long ago means another instant each time: asked again, the first one is meant."""
    if text is None:
        return None
    found = moment(text, name)
    return known if known is not None and is_duration(text) else found


def run_backtest(
    parts: Parts,
    history: History,
    request: PastRequest,
    rule: RuleVersion,
    *,
    with_rows: bool = True,
    on_progress: Progress = lambda _stage, _done, _total: None,
) -> Backtest:
    """See `routing.backtest.backtest`; `request.rule` and `request.epoch` do not matter.

    Raises:
        InvalidError: a time that is none.
    """
    return backtest(
        parts.database,
        parts.settings,
        history,
        rule,
        since=_moment(request.since, "since", None),
        until=_moment(request.until, "until", None),
        model=request.model,
        with_rows=with_rows,
        on_progress=on_progress,
    )


def applied_rule(connection: sa.Connection, name: str) -> RuleVersion:
    """A rule as it is now, be it disabled.

    Raises:
        NotFoundError: no such rule.
    """
    found = store.get(connection, Kind.RULE, name)
    spec = RuleSpec.model_validate(found.spec)
    return RuleVersion(rule_id=found.id, name=found.name, version=found.version, spec=spec)


def unapplied_rule(found: RuleFile) -> RuleVersion:
    """A rule of a file, as if it were applied.

    Raises:
        InvalidError: the file holds a pattern alone.
    """
    if found.spec is None:
        raise InvalidError(f"{found.name}: expected a rule with `pattern` and `actions`")
    return rule_of_spec(found.name, found.spec.model_dump(mode="json"))


def rule_of_spec(name: str, spec: dict[str, Any]) -> RuleVersion:
    """A rule that was never applied, from its checked spec."""
    return RuleVersion(rule_id=name, name=name, version=0, spec=RuleSpec.model_validate(spec))
