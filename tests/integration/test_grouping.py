"""Groups in a real ledger on a real bus: each kind, slots, shadow, silences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grouping_world import LANDED, GroupingWorld
from routing_world import dropped, event

from augury.errors import InvalidError
from augury.routing.redrive import redrive
from augury.settings import Settings
from augury.storage import tables
from augury.storage.database import Database


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[GroupingWorld]:
    world = GroupingWorld(database, live_settings)
    world.job()
    yield world
    world.bus.close()


def test_a_full_batch_is_one_run_on_all_of_its_objects(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"batch": {"max_events": 3}})
    world.publish(*(dropped(f"k{n}", tag=f"t{n}", id=f"e{n}") for n in range(4)))
    world.settle()
    assert world.states() == {"e0": "JOINED", "e1": "JOINED", "e2": "STARTED", "e3": "PENDING"}
    assert world.inputs() == [[(f"file:///in/k{n}", f"t{n}") for n in range(3)]]
    (run,) = world.rows(tables.runs)
    started = world.rows(tables.outcomes, tables.outcomes.c.state == "STARTED")
    assert [(row.id, row.position) for row in started] == [(run.outcome_id, run.position)]
    assert {o.run_id for o in world.rows(tables.outcomes)} == {run.id, None}
    world.check()
    # what is left waits for its time, and that for nobody's clock but the bus's
    world.pass_time(200)
    world.settle()
    assert world.states()["e3"] == "PENDING"
    world.pass_time(101)
    world.settle()
    assert world.states()["e3"] == "STARTED"
    assert [(group.why, group.state) for group in world.groups()] == [
        ("full", "STARTED"),
        ("waited", "STARTED"),
    ]
    world.check()


def test_keys_have_groups_of_their_own(world: GroupingWorld) -> None:
    world.rule(
        "landing", LANDED, group={"batch": {"max_events": 2}, "group_by": ["folder(data.key)"]}
    )
    world.publish(
        *(dropped(f"{folder}/k{n}", id=f"{folder}{n}") for n in range(2) for folder in "ab")
    )
    world.settle()
    assert world.contents() == [["a0", "a1"], ["b0", "b1"]]
    world.check()


def test_templates_see_the_group_and_its_newest_event(world: GroupingWorld) -> None:
    action = {
        "start_run": {
            "job": "score",
            "output": "file:///out/${group.by.0}/${data.key}/",
            "display_name": "${group.num_objects} of ${group.num_events}, ${group.why}",
        }
    }
    group = {"batch": {"max_events": 3}, "group_by": ["source"]}
    world.rule("landing", LANDED, [action], group=group)
    world.publish(dropped("a", id="1"), dropped("b", id="2"), dropped("a", tag="t2", id="3"))
    world.settle()
    (run,) = world.rows(tables.runs)
    assert run.name == "2 of 3, full"
    assert run.spec["output"] == "file:///out//test/a/"
    # an object that was written again while its group waited is scored as it is now
    assert world.inputs() == [[("file:///in/b", "t1"), ("file:///in/a", "t2")]]
    assert world.states() == {"1": "SUPPRESSED", "2": "JOINED", "3": "STARTED"}
    world.check()


def test_a_marker_completes_its_folder_and_is_not_scored(world: GroupingWorld) -> None:
    group = {"complete": {"marker": "_SUCCESS"}, "group_by": ["folder(data.key)"]}
    world.rule("landing", LANDED, group=group)
    world.publish(dropped("d1/a", id="a"), dropped("d2/b", id="b"), dropped("d1/_SUCCESS", id="m"))
    world.settle()
    assert world.states() == {"a": "JOINED", "b": "PENDING", "m": "STARTED"}
    assert world.inputs() == [[("file:///in/d1/a", "t1")]]
    world.publish(dropped("d3/_SUCCESS", id="lonely"))
    world.settle()
    assert world.states()["lonely"] == "DEAD"
    world.check()


def test_what_stays_incomplete_is_dropped_and_recorded(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"complete": {"expected": 3, "max_wait_s": 60}})
    world.publish(dropped("a", id="a"), dropped("b", id="b"))
    world.settle()
    world.pass_time(61)
    world.settle()
    assert world.states() == {"a": "DROPPED", "b": "DROPPED"}
    assert world.outcomes()[0][3] == "incomplete: 2 events came, but not all its objects"
    world.check()


def test_only_the_latest_acts(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"latest": {"after_s": 5}})
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(3)))
    world.settle()
    world.pass_time(6)
    world.settle()
    assert world.states() == {"e0": "SUPPRESSED", "e1": "SUPPRESSED", "e2": "STARTED"}
    assert world.inputs() == [[("file:///in/k2", "t1")]]
    world.check()


def test_at_least_so_many_within_a_time(world: GroupingWorld) -> None:
    world.rule("many", {"type": ["acme.error"]}, group={"at_least": {"events": 3, "within_s": 60}})
    world.publish(event("acme.error", id="old"))
    world.settle()
    world.pass_time(61)
    world.publish(event("acme.error", id="a"), event("acme.error", id="b"))
    world.settle()
    assert world.states() == {"old": "DROPPED", "a": "PENDING", "b": "PENDING"}
    world.publish(event("acme.error", id="c"))
    world.settle()
    assert world.states() == {"old": "DROPPED", "a": "JOINED", "b": "JOINED", "c": "STARTED"}
    world.check()


def test_a_silence_acts_once_and_begins_again_with_the_next_event(world: GroupingWorld) -> None:
    group = {"absent": {"for_s": 60}, "group_by": ["data.shop"]}
    world.rule("silent", {"type": ["acme.beat"]}, group=group)
    world.publish(event("acme.beat", id="a1", shop="a"), event("acme.beat", id="b1", shop="b"))
    world.settle()
    world.pass_time(40)
    world.publish(event("acme.beat", id="b2", shop="b"))
    world.settle()
    world.pass_time(30)
    world.settle()
    assert world.states() == {"a1": "STARTED", "b1": "SUPPRESSED", "b2": "PENDING"}
    world.pass_time(40)
    world.settle()
    assert world.states() == {"a1": "STARTED", "b1": "SUPPRESSED", "b2": "STARTED"}
    world.pass_time(1000)
    world.settle()
    assert len(world.rows(tables.runs)) == 2
    world.check()


def test_what_never_came_is_missed_since_the_rule_was_made(world: GroupingWorld) -> None:
    from augury.bus import relay

    world.rule("silent", {"type": ["acme.beat"]}, group={"absent": {"for_s": 60}})
    relay.flush(world.database, world.bus)
    world.settle()
    (waits,) = world.rows(tables.outcomes)
    assert (waits.state, waits.epoch) == ("PENDING", "silence")
    world.check()
    world.pass_time(61)
    world.settle()
    (run,) = world.rows(tables.runs)
    (acted,) = world.rows(tables.outcomes)
    assert (acted.state, acted.run_id, run.outcome_id) == ("STARTED", run.id, acted.id)
    world.check()
    # a change of the rule begins it anew, an event ends it
    world.rule("silent", {"type": ["acme.beat"]}, group={"absent": {"for_s": 70}})
    relay.flush(world.database, world.bus)
    world.settle()
    assert len(world.groups("OPEN")) == 1
    world.publish(event("acme.beat", id="beat"))
    world.settle()
    assert world.states() == {"beat": "PENDING"}
    assert len(world.rows(tables.runs)) == 1
    world.check()


def test_a_disabled_rule_hears_no_silence(world: GroupingWorld) -> None:
    pattern, group = {"type": ["acme.beat"]}, {"absent": {"for_s": 60}}
    world.rule("silent", pattern, group=group)
    world.publish(event("acme.beat", id="a"))
    world.settle()
    world.rule("silent", pattern, group=group, enabled=False)
    world.pass_time(61)
    world.settle()
    assert world.states() == {"a": "SUPPRESSED"}
    assert world.groups() == []
    world.check()


# --- slots ----------------------------------------------------------------------------------------


def test_waiting_runs_begin_in_order_when_others_end(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=2)
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(5)))
    world.settle()
    assert world.counts() == {"STARTED": 2, "QUEUED": 3}
    world.settle()
    assert len(world.active()) == 2
    world.check()
    order = []
    while world.active():
        run = min(world.active(), key=lambda run: run.id)
        order.append(run.spec["input"][0]["uri"])
        world.finish(run.id)
        world.settle()
        assert len(world.active()) <= 2
    assert order == [f"file:///in/k{n}" for n in range(5)]
    assert world.counts() == {"STARTED": 5}
    world.check()


def test_waiting_groups_coalesce_into_one_run(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=1, when_full="coalesce")
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(4)))
    world.settle()
    assert world.counts() == {"STARTED": 1, "QUEUED": 3}
    world.check()
    world.finish(world.active()[0].id)
    world.settle()
    assert world.counts() == {"STARTED": 2, "JOINED": 2}
    assert [len(inputs) for inputs in world.inputs()] == [1, 3]
    world.check()


def test_what_is_too_much_is_dropped_and_recorded(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=1, when_full="drop")
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(3)))
    world.settle()
    assert world.states() == {"e0": "STARTED", "e1": "DROPPED", "e2": "DROPPED"}
    assert "max_active" in str(world.outcomes()[1][3])
    world.check()


def test_a_raised_limit_lets_waiting_runs_begin(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=1)
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(3)))
    world.settle()
    world.rule("landing", LANDED, max_active=3)
    world.settle()
    assert world.counts() == {"STARTED": 3}
    world.check()


def test_limits_are_per_key(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, max_active=1, group={"group_by": ["folder(data.key)"]})
    world.publish(
        *(dropped(f"{folder}/{n}", id=f"{folder}{n}") for n in range(2) for folder in "ab")
    )
    world.settle()
    assert world.states() == {"a0": "STARTED", "a1": "QUEUED", "b0": "STARTED", "b1": "QUEUED"}
    world.check()


# --- the rest -------------------------------------------------------------------------------------


def test_a_group_in_shadow_says_what_it_would_do(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"batch": {"max_events": 2}}, max_active=1, shadow=True)
    world.publish(dropped("a", id="1"), dropped("b", id="2"))
    world.settle()
    expected = "would start job 'score' on file:///in/a and 1 more"
    assert [row[2:] for row in world.outcomes()] == [("SHADOW", expected)] * 2
    assert world.rows(tables.runs) == []
    world.check()


def test_a_group_whose_job_is_gone_is_dead_until_it_is_redriven(world: GroupingWorld) -> None:
    actions = [{"start_run": {"job": "gone"}}]
    world.rule("landing", LANDED, actions, group={"batch": {"max_events": 2}}, max_active=1)
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(4)))
    world.settle()
    assert world.counts() == {"JOINED": 2, "DEAD": 2}
    world.check()
    first, second = world.rows(tables.dead_letters)
    assert first.reason == "no job named 'gone'"
    with pytest.raises(InvalidError, match="no job named 'gone'"):
        redriven(world, first.id)
    assert world.counts() == {"JOINED": 2, "DEAD": 2}
    world.job("gone")
    assert redriven(world, first.id) == {"mini_batch": 1}
    assert redriven(world, second.id) == {}  # has to wait, as any other
    assert [len(inputs) for inputs in world.inputs()] == [2]
    assert world.counts() == {"JOINED": 1, "STARTED": 1, "QUEUED": 2}
    world.check()
    world.finish(world.active()[0].id)
    world.settle()
    assert world.counts() == {"JOINED": 2, "STARTED": 2}
    assert [len(inputs) for inputs in world.inputs()] == [2, 2]
    world.check()


def redriven(world: GroupingWorld, letter: str) -> dict[str, int]:
    _, started = world.database.transact(lambda c: redrive(world.database, c, letter))
    return {queue: count for queue, count in started.items() if count}


def test_a_groups_effect_that_failed_is_owed_again_for_the_whole_group(
    world: GroupingWorld,
) -> None:
    action = {"notify": {"webhook": {"url": "https://example.com/${data.no}"}}}
    group = {"batch": {"max_events": 2}}
    world.rule("landing", LANDED, [action], group=group)
    world.publish(dropped("a", id="1"), dropped("b", id="2"))
    world.settle()
    assert world.states() == {"1": "JOINED", "2": "DEAD"}
    action = {"notify": {"webhook": {"url": "https://example.com/"}}}
    world.rule("landing", LANDED, [action], group=group)
    (letter,) = world.rows(tables.dead_letters)
    assert redriven(world, letter.id) == {}
    (effect,) = world.rows(tables.effects)
    assert effect.request["body"]["data"]["num_events"] == 2
    assert world.states() == {"1": "JOINED", "2": "QUEUED"}
    world.check()


def test_a_deleted_rule_lets_go_of_everything(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"batch": {"max_events": 2}}, max_active=1)
    world.publish(*(dropped(f"k{n}", id=f"e{n}") for n in range(5)))
    world.settle()
    world.drop_rule("landing")
    world.settle()
    assert world.counts() == {"DROPPED": 3, "STARTED": 1, "JOINED": 1}
    world.check()


def test_an_effect_is_owed_once_for_a_group(world: GroupingWorld) -> None:
    action = {"notify": {"webhook": {"url": "https://example.com/${data.key}"}}}
    world.rule("landing", LANDED, [action], group={"batch": {"max_events": 2}}, max_active=1)
    world.publish(dropped("a", id="1"), dropped("b", id="2"))
    world.settle()
    (effect,) = world.rows(tables.effects)
    assert effect.request["url"] == "https://example.com/b"
    assert effect.request["body"]["type"] == "augury.group.closed"
    assert effect.request["body"]["data"]["uris"] == ["file:///in/a", "file:///in/b"]
    assert world.states() == {"1": "JOINED", "2": "QUEUED"}
    world.check()


def test_a_change_of_the_rule_goes_for_the_group_that_is_open(world: GroupingWorld) -> None:
    world.rule("landing", LANDED, group={"batch": {"max_events": 9}})
    world.publish(dropped("a", id="1"))
    world.settle()
    world.rule("landing", LANDED, group={"batch": {"max_events": 2}})
    world.publish(dropped("b", id="2"))
    world.settle()
    assert world.contents() == [["1", "2"]]
    assert world.states() == {"1": "JOINED", "2": "STARTED"}
    world.check()
