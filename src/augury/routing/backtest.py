"""What a rule would have done with past events; nothing is written and nothing started.

Matches, outcomes and runs follow from the router's own decisions, with its rules for what happens
once (a duplicate, the same object). Rows are taken from runs that scored the same input, else from
the footers of the files, as long as they are still the content that the event named. What cannot be
known any more is counted as unknown, with the reason, and never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from augury import clock
from augury.actions.effect import EffectRequest
from augury.actions.spec import ActionSpec, parse_actions
from augury.data.dataset import discover, read_footer
from augury.errors import AuguryError, UnavailableError
from augury.jobs.spec import Input
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.routing.again import RuleAgain
from augury.routing.group_view import GroupView, group_request
from augury.routing.ledger import EventFilter
from augury.routing.outcomes import SAME_OBJECT, SAME_OCCURRENCE, fitted_job
from augury.routing.past_groups import PastGroup, PastGroups
from augury.storage.tables import runs

if TYPE_CHECKING:
    from augury.routing.archives import PastEvent
    from augury.routing.decisions import Intent
    from augury.routing.history import History
    from augury.rules.ruleset import RuleVersion
    from augury.settings import Settings
    from augury.storage.database import Database

type Progress = Callable[[str, int, int], None]
type Inputs = tuple[Input, ...]

_READERS = 8
_SAMPLES = 5
_MOST_REASONS = 20
_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class BacktestedAction:
    """What one action would have made of the events that the rule matches.

    Attributes:
        num_runs: runs it would have started.
        num_effects: deliveries outside Augury that it would have owed.
        suppressed: matched events that would have led to nothing, by reason.
        dead: those that would have failed at once, by reason (at most 20 of them).
        rows: rows of the runs whose input is known.
        num_runs_of_known_rows: how many runs that is.
        rows_unknown: runs whose rows nobody knows, by reason.
    """

    action: str
    num_runs: int
    num_effects: int
    suppressed: Mapping[str, int]
    dead: Mapping[str, int]
    rows: int
    num_runs_of_known_rows: int
    rows_unknown: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """The whole answer.

    Attributes:
        rule: its name.
        num_events: events in the time, archived ones among them.
        num_matched: those that the rule matches.
        first_matched_at, last_matched_at: when the first and the last of them was accepted.
        sample: positions of the first few of them, for `augury explain`.
        actions: in the order of the rule.
    """

    rule: str
    since: datetime | None
    until: datetime | None
    num_events: int
    num_matched: int
    first_matched_at: datetime | None
    last_matched_at: datetime | None
    sample: tuple[int, ...]
    actions: tuple[BacktestedAction, ...]


@dataclass(kw_only=True)
class _Tally:
    """One action while events are being looked at."""

    suppressed: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    num_effects: int = 0
    # what happened, and for each that starts a run what it would score; insertion is the order
    occurrences: set[str] = field(default_factory=set)
    wanted: list[Inputs] = field(default_factory=list)
    scored: list[Sequence[str]] = field(default_factory=list)  # runs that the event led to


def backtest(
    database: Database,
    settings: Settings,
    history: History,
    rule: RuleVersion,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
    with_rows: bool = True,
    on_progress: Progress = lambda _stage, _done, _total: None,
) -> Backtest:
    """Looks at every event in the time, and at footers; changes nothing.

    Args:
        database: for jobs and runs.
        settings: for access to the inputs.
        history: of all events.
        rule: need not be applied.
        since: inclusive.
        until: exclusive.
        model: that runs would use instead of their own.
        with_rows: False: no footer is read, rows are unknown.
        on_progress: called with the stage (`events`, `rows`), how much of it is done, and of how
            much.

    Raises:
        UnavailableError: the database or the store of the archive did not answer.
    """
    looked = _Look(database, settings, rule, model)
    looked.read(history, EventFilter(since=since, until=until), on_progress)
    return Backtest(
        rule=rule.name,
        since=since,
        until=until,
        num_events=looked.num_events,
        num_matched=looked.num_matched,
        first_matched_at=looked.first_matched_at,
        last_matched_at=looked.last_matched_at,
        sample=tuple(looked.sample),
        actions=tuple(looked.actions(on_progress, with_rows=with_rows)),
    )


class _Look:
    """One pass over the events."""

    def __init__(
        self, database: Database, settings: Settings, rule: RuleVersion, model: str | None
    ) -> None:
        self._database = database
        self._settings = settings
        self._again = RuleAgain(rule, model=model)
        self._tallies: dict[str, _Tally] = {}
        self._jobs: dict[str, Resource | None] = {}
        self._rows = _Rows(database, settings)
        self._rule = rule
        self._groups = PastGroups(rule)
        self._specs: dict[str, ActionSpec] = {}
        self.num_events = self.num_matched = 0
        self.first_matched_at: datetime | None = None
        self.last_matched_at: datetime | None = None
        self.sample: list[int] = []

    def read(self, history: History, wanted: EventFilter, on_progress: Progress) -> None:
        newest = history.newest()
        for reached, page in history.pages(wanted, until=newest):
            self.num_events += len(page)
            self._page(page)
            on_progress("events", reached, newest)
        if self.last_matched_at is not None:
            end = wanted.until or clock.utc_now()
            self._act(self._groups.closed(max(end, self.last_matched_at)))

    def _page(self, page: Sequence[PastEvent]) -> None:
        decided = self._again.decide(page)
        self.num_matched += decided.num_matched
        by_position = {past.event.position: past for past in page}
        with self._database.read() as connection:
            for position, intent in decided.intents:
                past = by_position[position]
                self._note(past)
                tally = self._tallies.setdefault(intent.action, _Tally())
                if position in decided.duplicates:
                    tally.suppressed[decided.duplicates[position].reason] += 1
                else:
                    self._decide(connection, tally, intent, past)
        self._act(self._groups.closed())

    def _note(self, past: PastEvent) -> None:
        accepted = past.event.accepted_at
        self.first_matched_at = min(self.first_matched_at or accepted, accepted)
        self.last_matched_at = max(self.last_matched_at or accepted, accepted)
        if len(self.sample) < _SAMPLES and past.event.position not in self.sample:
            self.sample.append(past.event.position)

    def _decide(
        self, connection: sa.Connection, tally: _Tally, intent: Intent, past: PastEvent
    ) -> None:
        if intent.membership is not None:
            if self._is_first(tally, intent):
                self._groups.add(intent, past)
        elif intent.request is None:
            _count(tally.dead, str(intent.fault))
        elif isinstance(intent.request, EffectRequest):
            if self._is_first(tally, intent):
                tally.num_effects += 1
        else:
            fitted = fitted_job(self._job(connection, intent.request.job_name), intent.request)
            if isinstance(fitted, str):
                _count(tally.dead, fitted)
            elif self._is_first(tally, intent):
                tally.wanted.append(fitted[1].input)
                tally.scored.append([o.run_id for o in past.outcomes if o.run_id is not None])

    def _act(self, found: Iterable[PastGroup]) -> None:
        """Counts what groups would have done."""
        with self._database.read() as connection:
            for group in found:
                tally = self._tallies[group.action]
                if group.view is None:
                    tally.suppressed[group.reason] += group.num_events
                else:
                    self._act_once(connection, tally, group, group.view)

    def _act_once(
        self, connection: sa.Connection, tally: _Tally, group: PastGroup, view: GroupView
    ) -> None:
        request = group_request(self._spec(group.action), view)
        if isinstance(request, EffectRequest):
            tally.num_effects += 1
            return
        if not isinstance(request, str):
            request = self._again.with_model(request)
            fitted = fitted_job(self._job(connection, request.job_name), request)
            if not isinstance(fitted, str):
                tally.wanted.append(fitted[1].input)
                tally.scored.append(group.scored)
                return
            request = fitted
        _count(tally.dead, request)

    def _spec(self, action: str) -> ActionSpec:
        if not self._specs:
            self._specs = {spec.name: spec for spec in parse_actions(self._rule.spec.actions)}
        return self._specs[action]

    def _is_first(self, tally: _Tally, intent: Intent) -> bool:
        occurrence = intent.occurrence
        if occurrence.text in tally.occurrences:
            is_object = occurrence.kind == "object"
            tally.suppressed[SAME_OBJECT if is_object else SAME_OCCURRENCE] += 1
            return False
        tally.occurrences.add(occurrence.text)
        return True

    def _job(self, connection: sa.Connection, name: str) -> Resource | None:
        if name not in self._jobs:
            self._jobs[name] = store.find(connection, Kind.JOB, name)
        return self._jobs[name]

    def actions(self, on_progress: Progress, *, with_rows: bool) -> Iterator[BacktestedAction]:
        total = sum(len(tally.wanted) for tally in self._tallies.values())
        done = 0
        for action, tally in self._tallies.items():
            known, unknown = 0, Counter[str]()
            rows = 0
            for found in self._rows.of(tally.wanted, tally.scored) if with_rows else ():
                done += 1
                on_progress("rows", done, total)
                if isinstance(found, str):
                    _count(unknown, found)
                else:
                    rows, known = rows + found, known + 1
            if not with_rows and tally.wanted:
                unknown["not asked for"] = len(tally.wanted)
            yield BacktestedAction(
                action=action,
                num_runs=len(tally.wanted),
                num_effects=tally.num_effects,
                suppressed=dict(tally.suppressed),
                dead=dict(tally.dead),
                rows=rows,
                num_runs_of_known_rows=known,
                rows_unknown=dict(unknown),
            )


def _count(reasons: Counter[str], reason: str) -> None:
    """Counts a reason; of very many different ones the rest is one."""
    is_known = reason in reasons or len(reasons) < _MOST_REASONS
    reasons[reason if is_known else "other reasons"] += 1


class _Rows:
    """How many rows inputs have: from runs that scored them, else from footers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._known: dict[Inputs, int | str] = {}

    def of(self, wanted: Sequence[Inputs], scored: Sequence[Sequence[str]]) -> Iterator[int | str]:
        """For each of `wanted` its rows, or why nobody knows."""
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            self._learn_from_runs(scored[start : start + _AT_ONCE])
            missing = list(dict.fromkeys(inputs for inputs in part if inputs not in self._known))
            with ThreadPoolExecutor(_READERS, thread_name_prefix="augury-footer") as pool:
                self._known |= zip(missing, pool.map(self._read, missing), strict=True)
            yield from (self._known[inputs] for inputs in part)

    def _learn_from_runs(self, scored: Sequence[Sequence[str]]) -> None:
        ids = {run_id for run_ids in scored for run_id in run_ids}
        select = sa.select(runs.c.spec, runs.c.rows_in).where(
            runs.c.id.in_(ids), runs.c.time_committed.is_not(None)
        )
        with self._database.read() as connection:
            for row in connection.execute(select) if ids else ():
                inputs = tuple(Input.model_validate(each) for each in row.spec["input"])
                if _is_pinned(inputs):
                    self._known[inputs] = row.rows_in

    def _read(self, inputs: Inputs) -> int | str:
        if not inputs:
            return "nothing to score: neither the job nor the event names an input"
        try:
            infos = discover([(each.uri, each.tag) for each in inputs], self._settings)
            return sum(read_footer(info, self._settings, ()).num_rows for info in infos)
        except UnavailableError:
            return "the store of the input does not answer"
        except AuguryError as error:
            return _REASONS.get(error.code, f"{error.code}: cannot be read as Parquet")


_REASONS: Mapping[str, str] = {
    "identity": "the input was replaced or deleted since",
    "not_found": "the input is not there any more",
    "corrupt": "the input is not a Parquet file",
}


def _is_pinned(inputs: Inputs) -> bool:
    """True if each input names its content: what was counted then is what would be read now."""
    return bool(inputs) and all(each.tag is not None for each in inputs)
