"""Past events through a rule again: as an epoch, once, whoever carries it on; and backtests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from api_world import serve
from audit_world import AuditWorld
from cli_world import Cli
from routing_world import dropped, event
from scoring_world import numbers, write

from augury import clock
from augury.engine.replaying import PastRequest, begin_replay
from augury.errors import ConflictError, InvalidError, NotFoundError
from augury.execution.replaying import Replaying
from augury.routing import history, replay
from augury.routing.grouper import Grouper
from augury.routing.history import History
from augury.routing.redrive import redrive
from augury.routing.replay import ReplayState, carry_on, get_replay
from augury.routing.retention import Retention
from augury.rules.spec import RuleSpec
from augury.rules.store import apply_rule
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


class ReplayWorld(AuditWorld):
    """A ledger of 20 things, of which a rule that came too late would have wanted 10."""

    def fill(self) -> None:
        self.job()
        self.publish(*(event(id=f"t{n}", n=n % 2) for n in range(20)), event("acme.other"))
        self.drain()
        self.late_rule()

    def late_rule(self, **spec: Any) -> str:
        return self.rule("late", {"type": ["acme.thing"], "data": {"n": [1]}}, **spec)

    def past(self) -> History:
        return History(self.database, self.settings)

    def rule_of(self, **spec: Any) -> None:
        """The late rule, otherwise."""
        said = {
            "pattern": {"type": ["acme.thing"], "data": {"n": [1]}},
            "actions": [{"start_run": {"job": "score"}}],
            **spec,
        }
        made = RuleSpec.model_validate(said)
        self.database.transact(lambda c: apply_rule(self.database, c, "late", made))

    def grouper(self) -> Grouper:
        return Grouper(self.database, self.bus, self.executor, self.settings)

    def begin(self, **asked: Any) -> replay.Replay:
        request = PastRequest(**{"rule": "late", "epoch": "again", **asked})
        wired: Any = type("Wired", (), {"database": self.database, "settings": self.settings})
        return begin_replay(wired, self.past(), request)[0]

    def sweep(self) -> None:
        """Sweeps until nothing moves any more; one sweep has little time on a busy machine."""
        before, mover = None, Replaying(self.database, self.executor, self.settings)
        while (after := self.rows(tables.replays)) != before:
            before = after
            mover.sweep()

    def get(self, epoch: str = "again") -> replay.Replay:
        with self.database.read() as connection:
            return get_replay(connection, epoch)

    def in_epoch(self, epoch: str = "again") -> list[sa.Row[Any]]:
        return self.rows(tables.outcomes, tables.outcomes.c.epoch == epoch)


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, settings: Settings, bus_url: str) -> Iterator[Any]:
    database: Database = request.getfixturevalue(f"{request.param}_database")
    yield from _made(database, settings, bus_url)


@pytest.fixture
def small(sqlite_database: Database, settings: Settings, bus_url: str) -> Iterator[Any]:
    """The same on SQLite alone."""
    yield from _made(sqlite_database, settings, bus_url)


def _made(database: Database, settings: Settings, bus_url: str) -> Iterator[ReplayWorld]:
    wired = settings.model_copy(update={"database_url": database.url, "redis_url": bus_url})
    world = ReplayWorld(database, wired)
    world.fill()
    yield world
    world.bus.close()


def test_each_event_that_matches_has_one_outcome_in_the_epoch(world: ReplayWorld) -> None:
    world.begin()
    world.sweep()
    done = world.get()
    assert (done.state, done.num_events, done.num_matched) == (ReplayState.DONE, 21, 10)
    decided = world.in_epoch()
    assert len(decided) == done.num_outcomes == 10
    assert {outcome.state for outcome in decided} == {"STARTED"}
    runs = world.rows(tables.runs)
    assert {(run.epoch, run.priority) for run in runs} == {("again", 10)}
    assert sorted(run.id for run in runs) == sorted(outcome.run_id for outcome in decided)
    assert {item.priority for item in world.rows(tables.work)} == {10}
    assert world.executor.woken.total() == 10
    assert world.broken(deep=True) == set()


def test_the_same_epoch_again_goes_on_and_never_doubles(small: ReplayWorld) -> None:
    small.begin(since="30d")
    small.sweep()
    again = small.begin(since="30d")
    assert again.state is ReplayState.DONE
    small.sweep()
    assert len(small.in_epoch()) == 10
    small.begin(epoch="other", since="30d")
    small.sweep()
    assert len(small.in_epoch("other")) == 10
    with pytest.raises(ConflictError, match="give this one another epoch"):
        small.begin(since="2020-01-01")
    for epoch in ("0", "silence", "", "a b", "0~shadow"):
        with pytest.raises(InvalidError):
            small.begin(epoch=epoch or " ")
    with pytest.raises(NotFoundError):
        small.begin(rule="nobody", epoch=None)
    with pytest.raises(NotFoundError):
        small.begin(model="nothing@3", epoch=None)


def test_many_that_carry_it_on_at_once(world: ReplayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PAGE_EVENTS", 3)
    world.begin()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: world.sweep(), range(3)))
    while world.get().state is not ReplayState.DONE:
        world.sweep()
    assert len(world.in_epoch()) == world.get().num_outcomes == 10
    assert world.get().num_events == 21
    assert world.broken() == set()


def test_a_crash_anywhere_loses_and_doubles_nothing(
    small: ReplayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_EVENTS", 4)
    small.begin()
    carry_on(small.database, small.past(), small.get())
    before = small.get()
    write_outcomes = replay.write_outcomes

    def die(*given: Any, **named: Any) -> Any:
        write_outcomes(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(replay, "write_outcomes", die)
        with pytest.raises(KeyboardInterrupt):
            carry_on(small.database, small.past(), before)
    assert small.get() == before
    assert small.broken() == set()  # half-way it holds as well
    stale = before
    carry_on(small.database, small.past(), before)
    assert not carry_on(small.database, small.past(), stale)  # somebody was faster
    while small.get().state is not ReplayState.DONE:
        small.sweep()
    assert len(small.in_epoch()) == 10


def test_cancel_and_go_on(small: ReplayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PAGE_EVENTS", 4)
    small.begin()
    carry_on(small.database, small.past(), small.get())
    cancel = lambda: small.database.transact(  # noqa: E731
        lambda c: replay.cancel_replay(small.database, c, "again")
    )
    assert cancel().state is cancel().state is ReplayState.CANCELED
    small.sweep()
    assert 0 < len(small.in_epoch()) < 10
    assert small.broken() == set()
    assert small.begin().state is ReplayState.RUNNING
    small.sweep()
    assert len(small.in_epoch()) == 10
    with pytest.raises(ConflictError):
        cancel()


def test_time_model_and_rule_version(small: ReplayWorld) -> None:
    middle = small.rows(tables.events)[9].accepted_at
    small.begin(until=clock.iso(middle), epoch="early")
    small.late_rule(enabled=False)  # also a disabled rule may look back
    small.sweep()
    early = {outcome.position for outcome in small.in_epoch("early")}
    accepted = {row.position: row.accepted_at for row in small.rows(tables.events)}
    assert all(accepted[position] < middle for position in early)


def test_another_version_of_the_model(small: ReplayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    version: Any = type("V", (), {"name": "m", "version": 7})
    monkeypatch.setattr(replay.registry, "resolve", lambda _connection, _name: version)
    small.begin(model="m@champion")
    small.sweep()
    assert small.get().model == "m@7"
    assert {run.spec["model"] for run in small.rows(tables.runs)} == {"m@7"}
    batch = {"batch": {"max_events": 5, "max_wait_s": 3600}}
    small.rule_of(pattern={"type": ["acme.thing"]}, group=batch)
    small.begin(model="m@champion", epoch="grouped")
    small.sweep()
    small.grouper().group()
    grouped = small.rows(tables.runs, tables.runs.c.epoch == "grouped")
    assert [run.spec["model"] for run in grouped] == ["m@7"] * 4


def test_a_redriven_dead_letter_of_a_replay_stays_in_its_epoch(small: ReplayWorld) -> None:
    small.rule_of(actions=[{"start_run": {"job": "missing"}}])
    small.begin()
    small.sweep()
    small.job("missing")
    letter = small.rows(tables.dead_letters)[0]
    small.database.transact(lambda c: redrive(small.database, c, letter.id))
    (run,) = small.rows(tables.runs)
    assert (run.epoch, run.priority) == ("again", 10)


def test_duplicates_and_objects_are_decided_as_ever(small: ReplayWorld) -> None:
    small.rule("landing", {"type": ["augury.object.created"]})
    twice = event(id="twice", n=1)
    small.publish(dropped("a"), dropped("a"), twice, twice)
    small.drain()
    small.begin(rule="landing", epoch="objects")
    small.begin(epoch="things")
    small.sweep()
    reasons = [(o.state, o.reason) for o in small.in_epoch("objects")]
    assert sorted(reasons, key=str) == [("STARTED", None), ("SUPPRESSED", "same object")]
    assert ("SUPPRESSED", "duplicate") in [(o.state, o.reason) for o in small.in_epoch("things")]
    assert small.broken(deep=True) == set()


def _archived(world: ReplayWorld) -> None:
    settings = world.settings.model_copy(update={"retain_events_days": 1e-9, "archive_events": 6})
    mover = Retention(world.database, settings)
    while mover.archive_once():
        pass


def test_archived_events_are_replayed(small: ReplayWorld) -> None:
    _archived(small)
    assert len(small.rows(tables.events)) == 1
    small.begin()
    small.sweep()
    assert len(small.in_epoch()) == 10
    assert small.broken(deep=True) == set()
    past = small.past().show("t1")
    assert [outcome.epoch for outcome in past.outcomes] == ["again"]


def test_events_that_move_to_the_archive_with_their_replay(small: ReplayWorld) -> None:
    small.begin()
    small.sweep()
    _archived(small)
    assert small.in_epoch() == []
    assert small.broken(deep=True) == set()


def test_what_cannot_be_read_is_said_and_tried_again(small: ReplayWorld) -> None:
    _archived(small)
    (*_, damaged) = sorted(Path(small.settings.effective_store_url[7:]).rglob("*.parquet"))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"x")
    small.begin()
    small.sweep()
    waits = small.get()
    assert (waits.state, "restore it from a backup" in str(waits.last_error)) == ("RUNNING", True)
    damaged.write_bytes(whole)
    small.sweep()
    assert (small.get().state, small.get().last_error) == ("DONE", None)


def test_groups_of_a_replay_follow_from_the_stream(
    small: ReplayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {"batch": {"max_events": 4, "max_wait_s": 3600}}
    small.rule_of(pattern={"type": ["acme.thing"]}, group=batch)
    monkeypatch.setattr(history, "PAGE_EVENTS", 3)
    small.begin()
    grouper = small.grouper()
    while small.get().state is ReplayState.RUNNING:
        carry_on(small.database, small.past(), small.get())
        if small.get().state is ReplayState.RUNNING:
            assert grouper.group() == 0  # not before all of it is there
            assert small.broken(lease_timeout_s=0.0, sweep_s=0.001) == set()
    assert {outcome.state for outcome in small.in_epoch()} == {"PENDING"}
    assert grouper.group() == 5  # of 20 things, four each
    runs = small.rows(tables.runs)
    assert {(run.epoch, run.priority) for run in runs} == {("again", 10)}
    decided = small.in_epoch()
    assert {o.run_id for o in decided if o.run_id} == {run.id for run in runs}
    assert small.broken() == set()


# --- audit ----------------------------------------------------------------------------------------


def _replayed(world: ReplayWorld) -> None:
    world.begin()
    world.sweep()


def test_audit_misses_an_outcome_of_a_replay(small: ReplayWorld) -> None:
    _replayed(small)
    gone = small.in_epoch()[0]
    small.change(
        sa.delete(tables.outcomes).where(tables.outcomes.c.id == gone.id),
        sa.update(tables.runs)
        .where(tables.runs.c.id == gone.run_id)
        .values(outcome_id=None, position=None),
    )
    assert small.broken() == {"replay_outcome"}


def test_audit_misses_it_in_the_archive_too(small: ReplayWorld) -> None:
    _archived(small)
    _replayed(small)
    gone = small.in_epoch()[0]
    small.change(sa.delete(tables.outcomes).where(tables.outcomes.c.id == gone.id))
    assert "archive_replay" in small.broken(deep=True)


def test_audit_names_an_outcome_of_no_replay(small: ReplayWorld) -> None:
    _replayed(small)
    small.change(sa.delete(tables.replays))
    assert small.broken() == {"replay_epoch"}


@pytest.mark.parametrize("what", ["created", "done"])
def test_audit_names_an_end_that_nobody_was_told(small: ReplayWorld, what: str) -> None:
    _replayed(small)
    told = tables.outbox.c.event_id == f"replay:again:{what}:0"
    small.change(sa.delete(tables.outbox).where(told))
    assert small.broken() == {"replay_event"}


def test_audit_names_progress_that_is_none(small: ReplayWorld) -> None:
    _replayed(small)
    small.change(sa.update(tables.replays).values(position=1))
    assert small.broken() == {"replay_state", "replay_outcome"}


# --- the command line and the API -----------------------------------------------------------------


@pytest.fixture
def seen(cli: Cli) -> ReplayWorld:
    world = ReplayWorld(cli.engine.database, cli.engine.settings)
    world.fill()
    return world


RULE = {
    "pattern": {"type": ["acme.thing"], "data": {"n": [1]}},
    "actions": [{"start_run": {"job": "score"}}, {"name": "x", "start_run": {"job": "none"}}],
}


def test_backtest_counts_what_would_have_been(seen: ReplayWorld, cli: Cli) -> None:
    cli.write("rule.json", json.dumps(RULE))
    told = cli.json("backtest", "rule.json", "--since", "30d")
    assert (told["num_events"], told["num_matched"], len(told["sample"])) == (21, 10, 5)
    runs, dead = told["actions"]
    assert (runs["num_runs"], runs["num_runs_of_known_rows"]) == (10, 0)
    assert list(runs["rows_unknown"].values()) == [10]
    assert dead["dead"] == {"no job named 'none'": 10}
    assert seen.rows(tables.runs) == []
    said = cli.ok("backtest", "late")
    assert "rule late matches 10 of 21 events" in said
    assert "unknown in 10" in said
    assert cli.json("backtest", "late", "--until", "1h")["num_events"] == 0
    cli.write("pattern.json", json.dumps(RULE["pattern"]))
    assert "with `pattern` and `actions`" in cli.run("backtest", "pattern.json").err


def test_backtest_of_a_rule_that_groups(seen: ReplayWorld, cli: Cli) -> None:
    things = {"type": ["acme.thing"]}
    pairs = {"batch": {"max_events": 3, "max_wait_s": 3600}, "group_by": ["data.n"]}
    notify = {"name": "tell", "notify": {"webhook": {"url": "https://example.org/hook"}}}
    rule = {"pattern": things, "actions": [{"start_run": {"job": "score"}}, notify], "group": pairs}
    cli.write("pairs.json", json.dumps(rule))
    runs, told = cli.json("backtest", "pairs.json")["actions"]
    assert (runs["num_runs"], runs["num_effects"], told["num_effects"]) == (6, 0, 6)
    assert runs["suppressed"] == {"in a group that is still open": 2}
    assert list(runs["rows_unknown"].values()) == [6]
    assert runs["dead"] == {}


def test_backtest_knows_rows_from_footers_and_runs(seen: ReplayWorld, cli: Cli) -> None:
    path = write(cli.folder / "in" / "a.parquet", numbers(30), row_group_size=10)
    from augury.storage.objects import locate

    store, key = locate(str(path), seen.settings)
    info = store.head(key)
    data = {"uri": info.uri, "key": key, "tag": info.tag, "identity": info.identity}
    landed = {**event("augury.object.created"), "data": data}
    seen.rule("landing", {"type": ["augury.object.created"]})
    seen.publish(landed, {**landed, "id": "again"}, dropped("gone.parquet"))
    seen.drain()
    (action,) = cli.json("backtest", "landing")["actions"]
    assert (action["num_runs"], action["rows"], action["num_runs_of_known_rows"]) == (2, 30, 1)
    assert action["rows_unknown"] == {"the input was replaced or deleted since": 1}
    assert action["suppressed"] == {"same object": 1}
    seen.change(sa.update(tables.runs).values(rows_in=70, time_committed=clock.utc_now()))
    (action,) = cli.json("backtest", "landing")["actions"]
    assert (action["rows"], action["rows_unknown"]) == (140, {})
    (blind,) = cli.json("backtest", "landing", "--no-rows")["actions"]
    assert blind["rows_unknown"] == {"not asked for": 2}


def test_replay_from_the_command_line(seen: ReplayWorld, cli: Cli) -> None:
    assert cli.json("replay", "--rule", "late", "--dry-run")["num_matched"] == 10
    assert cli.json("replays", "list") == []
    said = cli.run("replay", "--rule", "late", "--since", "7d", "--epoch", "oct")
    assert (said.code, said.out, "replay begun" in said.err) == (0, "oct\n", True)
    assert "RUNNING" in cli.ok("replays", "list", "--state", "running")
    seen.sweep()
    shown = cli.json("replays", "show", "oct")
    assert (shown["state"], shown["outcomes"]) == ("DONE", {"STARTED": 10})
    assert "STARTED" in cli.ok("replays", "show", "oct")
    again = cli.run("replay", "--rule", "late", "--since", "7d", "--epoch", "oct")
    assert "nothing is done twice" in again.err
    assert cli.run("replays", "cancel", "oct").code == 1
    assert cli.run("replays", "show", "nov").code == 1
    run_id = seen.rows(tables.runs)[0].id
    assert cli.json("runs", "show", run_id)["epoch"] == "oct"
    assert "oct" in cli.ok("events", "show", "t1")
    assert cli.ok("replays", "list").split().count("100") == 1


def test_replay_over_http(seen: ReplayWorld, cli: Cli) -> None:
    with serve(cli.engine.settings) as api:
        body = {"rule": "late", "epoch": "web"}
        begun = api.request("POST", "/v1/replays", body)
        assert (begun.status, begun.body["state"]) == (202, "RUNNING")
        assert api.request("POST", "/v1/replays", body).status == 200
        assert api.request("POST", "/v1/replays/web/cancel").body["state"] == "CANCELED"
        api.request("POST", "/v1/replays", body)
        seen.sweep()
        assert api.get("/v1/replays/web").body["outcomes"] == {"STARTED": 10}
        assert [r["id"] for r in api.get("/v1/replays?state=DONE").body["items"]] == ["web"]
        assert api.get("/v1/replays/nobody").status == 404
        assert api.request("POST", "/v1/replays", {**body, "since": "7d"}).status == 409
        told = api.request("POST", "/v1/backtest", {"spec": RULE, "rows": False}).body
        assert told["num_matched"] == 10
        assert api.request("POST", "/v1/backtest", {"rule": "late"}).body["num_events"] >= 21
        assert api.request("POST", "/v1/backtest", {}).status == 400
