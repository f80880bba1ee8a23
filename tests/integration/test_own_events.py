"""Whatever changes is told: what must be told is derived from the code, and each change is made.

Nothing here reads a list of events to learn what to expect. Kinds, states and transitions are those
of the code; so whoever adds one and forgets its event fails here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from runs_world import RunsWorld

from augury import clock
from augury.events.catalog import EventType
from augury.jobs.lifecycle import transition
from augury.jobs.resume import resume
from augury.jobs.states import RESUMABLE, TRANSITIONS, RunState
from augury.models import registry
from augury.resources import store
from augury.resources.store import Change, Kind
from augury.routing.history import History
from augury.routing.replay import (
    ReplayRequest,
    ReplayState,
    cancel_replay,
    carry_on,
    get_replay,
    start_replay,
)
from augury.rules.spec import RuleSpec
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.objects import open_store

type Work = Callable[[sa.Connection], Any]
_EDGES = [(start, to) for start, reached in TRANSITIONS.items() for to in sorted(reached)]


class _TakenBackError(Exception):
    """Takes a transaction back."""


class Told:
    """A ledger, and what is told of each change made to it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def of(self, change: Work) -> list[dict[str, Any]]:
        """Makes a change, and gives the events that came with it, all of them catalogued.

        The change is made twice, and taken back the first time: what was told then must be gone.
        """
        known = self._ids()
        with pytest.raises(_TakenBackError):
            self.database.transact(lambda connection: _undo(change(connection)))
        assert self._ids() == known, "told outside the transaction"
        self.database.transact(change)
        events = [json.loads(body) for number, body in self._rows() if number not in known]
        assert {event["type"] for event in events} <= set(EventType)
        return events

    def events(self) -> list[dict[str, Any]]:
        """Everything that was ever told, in order."""
        return [json.loads(body) for _, body in self._rows()]

    def _rows(self) -> list[tuple[int, str]]:
        select = sa.select(tables.outbox.c.id, tables.outbox.c.body).order_by(tables.outbox.c.id)
        with self.database.read() as connection:
            return [(row.id, row.body) for row in connection.execute(select)]

    def _ids(self) -> set[int]:
        return {number for number, _ in self._rows()}


def _undo(_: object) -> None:
    raise _TakenBackError


def _of(told: Told, work: Callable[[], object]) -> list[dict[str, Any]]:
    """What is told of something that has transactions of its own."""
    before = len(told.events())
    work()
    return told.events()[before:]


def _types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


@pytest.fixture
def told(sqlite_database: Database) -> Told:
    return Told(sqlite_database)


# --- resources ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_each_change_of_a_resource_is_told(told: Told, kind: Kind) -> None:
    def put(value: int) -> Work:
        return lambda c: store.put(told.database, c, kind, "it", {"value": value})

    def delete(connection: sa.Connection) -> None:
        store.delete(told.database, connection, kind, "it")

    made: dict[Change, Work] = {
        Change.CREATED: put(1),
        Change.UNCHANGED: put(1),
        Change.UPDATED: put(2),
        Change.DELETED: delete,
    }
    assert set(made) == set(Change)
    for change, work in made.items():
        expected = [] if change is Change.UNCHANGED else [f"augury.{kind}.{change}"]
        assert _types(told.of(work)) == expected


# --- models and aliases ---------------------------------------------------------------------------


def _model(path: Path, seed: int) -> Path:
    import xgboost

    features = np.random.default_rng(seed).normal(size=(50, 2))
    matrix = xgboost.DMatrix(features, features[:, 0], feature_names=["a", "b"])
    xgboost.train({"nthread": 1}, matrix, 1).save_model(path)
    return path


def test_each_change_of_a_model_and_its_aliases_is_told(
    told: Told, settings: Settings, tmp_path: Path
) -> None:
    database, kept = told.database, open_store(settings.effective_store_url, settings)
    for version in (1, 2):
        path = _model(tmp_path / f"{version}.ubj", version)
        register = partial(registry.register, database, kept, name="m", path=path)
        (new,) = _of(told, register)
        assert (new["type"], new["data"]["version"]) == ("augury.model.registered", version)

    for previous, version in ((None, 1), (1, 2), (2, 1)):
        move = partial(registry.set_alias, database, name="m", alias="champion", version=version)
        (moved,) = told.of(move)
        assert moved["type"] == "augury.model.alias_moved"
        assert (moved["data"]["previous"], moved["data"]["version"]) == (previous, version)

    gone = told.of(lambda c: registry.delete(database, c, "m"))
    assert _types(gone) == ["augury.model.alias_deleted", "augury.model.deleted"]
    assert gone[0]["data"] == {"name": "m", "alias": "champion", "version": 1}


# --- runs -----------------------------------------------------------------------------------------


class Runs(Told):
    """Runs that are brought into whatever state, by transitions alone."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.world = RunsWorld(database)

    def enter(self, run_id: str, to: RunState) -> list[dict[str, Any]]:
        """Changes a run's state, and gives what is told of it."""
        self._commit(run_id, is_decided=to is RunState.SUCCEEDED)
        return self.of(lambda c: _must(transition(self.database, c, run_id, to, details="So.")))

    def resume(self, run_id: str) -> list[dict[str, Any]]:
        """Resumes a run, and gives what is told of it."""
        return self.of(lambda c: resume(self.database, c, run_id))

    def run_in(self, state: RunState) -> str:
        """A new run in a state."""
        run_id = self.world.start().id
        for to in _way(state):
            self.enter(run_id, to)
        return run_id

    def _commit(self, run_id: str, *, is_decided: bool) -> None:
        at = clock.utc_now() if is_decided else None
        change = sa.update(tables.runs).where(tables.runs.c.id == run_id)
        self.database.transact(lambda c: c.execute(change.values(time_committed=at)))


def _must(changed: bool) -> None:
    assert changed


def _way(to: RunState) -> list[RunState]:
    """The shortest way from ACCEPTED, which is not part of it."""
    ways: dict[RunState, list[RunState]] = {RunState.ACCEPTED: []}
    while to not in ways:
        for state, way in list(ways.items()):
            for reached in TRANSITIONS[state]:
                ways.setdefault(reached, [*way, reached])
    return ways[to]


@pytest.fixture
def runs(sqlite_database: Database) -> Runs:
    return Runs(sqlite_database)


def test_each_transition_of_a_run_is_told(runs: Runs) -> None:
    accepted = _of(runs, runs.world.start)
    types = {RunState.ACCEPTED: {event["type"] for event in accepted}}
    for start, to in _EDGES:
        run_id = runs.run_in(start)
        (event,) = runs.enter(run_id, to)
        assert event["subject"] == f"runs/{run_id}"
        assert event["data"]["state"] == to, (start, to)
        types.setdefault(to, set()).add(event["type"])
    assert set(types) == set(RunState)
    # one type for each state, and another for every other
    assert all(len(found) == 1 for found in types.values())
    assert len(set().union(*types.values())) == len(RunState)


@pytest.mark.parametrize("state", sorted(RESUMABLE))
def test_each_resume_is_told(runs: Runs, state: RunState) -> None:
    (event,) = runs.resume(runs.run_in(state))
    assert (event["type"], event["data"]["num_resumes"]) == ("augury.run.resumed", 1)


def test_a_state_that_is_entered_again_is_told_again(runs: Runs) -> None:
    run_id = runs.run_in(RunState.IN_PROGRESS)
    for _ in range(2):
        for to in (RunState.NEEDS_ATTENTION, RunState.IN_PROGRESS):
            (event,) = runs.enter(run_id, to)
            assert event["data"]["state"] == to
    for _ in range(2):
        runs.enter(run_id, RunState.NEEDS_ATTENTION)
        runs.resume(run_id)
    runs.enter(run_id, RunState.FAILED)
    assert runs.world.told(run_id) == [
        *("ACCEPTED", "IN_PROGRESS", "NEEDS_ATTENTION", "IN_PROGRESS:1"),
        *("NEEDS_ATTENTION:1", "IN_PROGRESS:2", "NEEDS_ATTENTION:2", "RESUMED:3"),
        *("NEEDS_ATTENTION:3", "RESUMED:4", "FAILED:4"),
    ]


def test_only_a_return_leads_to_a_state_again() -> None:
    """What the ids of a run's events rest on."""
    forward = {
        state: reached - {RunState.IN_PROGRESS} if state is RunState.NEEDS_ATTENTION else reached
        for state, reached in TRANSITIONS.items()
    }
    TopologicalSorter(forward).prepare()  # raises if there is a way round


# --- replays --------------------------------------------------------------------------------------


class Replays(Told):
    """One replay, of a rule that nothing matches."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(database)
        self._history = History(database, settings)
        spec = {"pattern": {"type": ["x"]}, "actions": [{"start_run": {"job": "j"}}]}
        stored = RuleSpec.model_validate(spec).model_dump(mode="json", exclude_unset=True)
        database.transact(lambda c: store.put(database, c, Kind.RULE, "r", stored))

    def ask(self) -> list[dict[str, Any]]:
        request = ReplayRequest(rule="r", epoch="again")
        return self.of(lambda c: start_replay(self.database, c, request, 0))

    def cancel(self) -> list[dict[str, Any]]:
        return self.of(lambda c: cancel_replay(self.database, c, "again"))

    def finish(self) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            known = get_replay(connection, "again")
        return _of(self, lambda: carry_on(self.database, self._history, known))


def test_each_step_of_a_replay_is_told(sqlite_database: Database, settings: Settings) -> None:
    replays = Replays(sqlite_database, settings)
    steps = [replays.ask, replays.ask, replays.cancel, replays.cancel, replays.ask]
    told = [step() for step in [*steps, replays.cancel, replays.ask, replays.finish]]
    assert [[event["type"].rpartition(".")[2] for event in events] for events in told] == [
        *(["created"], [], ["canceled"], [], ["resumed"]),
        *(["canceled"], ["resumed"], ["done"]),
    ]
    events = [event for each in told for event in each]
    assert len({event["id"] for event in events}) == len(events)
    assert {event["data"]["state"] for event in events} == set(ReplayState)
    assert {event["subject"] for event in events} == {"replays/again"}
