from __future__ import annotations

from typing import Any

import pytest

from augury.actions.occurrence import object_identity, occurrence
from augury.actions.spec import ActionSpec, StartRun, parse_actions
from augury.actions.start_run import resolve_run as resolve
from augury.errors import InvalidError
from augury.jobs.spec import Input, MaxRejected, Mode, RunOverrides


def event(**data: Any) -> dict[str, Any]:
    object_data = {"uri": "file:///in/a.parquet", "tag": "t1", "key": "a.parquet", **data}
    return {
        "specversion": "1.0",
        "source": "augury/sources/landing",
        "id": "e1",
        "type": "augury.object.created",
        "data": {"identity": "file:///in/a.parquet#t1", **object_data},
    }


def action(**start_run: Any) -> ActionSpec:
    return ActionSpec.model_validate({"start_run": {"job": "score", **start_run}})


def test_the_input_is_the_events_object_at_its_content() -> None:
    request = resolve(action(), event())
    assert request.job_name == "score"
    assert request.overrides.input == (Input(uri="file:///in/a.parquet", tag="t1"),)
    assert request.overrides.output is None
    assert request.overrides.mode is None


def test_an_event_without_an_object_leaves_the_jobs_input() -> None:
    tick = {"source": "augury/schedules/x", "id": "1", "type": "augury.schedule.ticked", "data": {}}
    assert resolve(action(), tick).overrides.input is None
    assert resolve(action(), {**tick, "data": "text"}).overrides.input is None
    assert resolve(action(), {**tick, "data": {"uri": ""}}).overrides.input is None


def test_a_named_object_without_tag_is_taken_as_found() -> None:
    assert resolve(action(), event(tag=None)).overrides.input == (
        Input(uri="file:///in/a.parquet"),
    )


def test_overrides_are_filled_from_the_event() -> None:
    request = resolve(
        action(
            job="score-${data.kind}",
            input=["${data.uri}", "s3://b/extra.parquet"],
            output="s3://out/${data.key}/",
            mode="batch",
            columns=["id", "${data.column}"],
            model="m@${data.alias}",
            environment={"KEY": "${data.key}"},
            max_concurrency=3,
            maximum_runtime_s=60,
            display_name="run of ${data.key}",
        ),
        event(kind="x", column="day", alias="champion"),
    )
    overrides = request.overrides
    assert request.job_name == "score-x"
    assert overrides.input == (
        Input(uri="file:///in/a.parquet", tag="t1"),  # the event's object stays pinned
        Input(uri="s3://b/extra.parquet"),
    )
    assert overrides.output == "s3://out/a.parquet/"
    assert overrides.mode is Mode.BATCH
    assert overrides.columns == ("id", "day")
    assert overrides.model == "m@champion"
    assert overrides.environment == {"KEY": "a.parquet"}
    assert (overrides.max_concurrency, overrides.maximum_runtime_s) == (3, 60)
    assert overrides.display_name == "run of a.parquet"


def test_a_run_of_any_kind_is_overridden_by_everything_that_a_run_may_say() -> None:
    fields = set(RunOverrides.model_fields)
    assert fields == set(StartRun.model_fields) - {"job"}
    request = resolve(
        action(
            arguments="--key '${data.key} x' --size ${data.size_bytes}",
            tags={"day": "${data.day}", "empty": ""},
            on_bad_row="reject",
            expect={"a": {"nullable": False}},
            max_rejected={"share": 0.1},
            maximum_shard_runtime_s=9,
            on_corrupt_file="quarantine",
            logging={"lines_per_s": 5},
        ),
        event(key="a b", day="d", size_bytes=7),
    )
    overrides = request.overrides
    assert overrides.arguments == ("--key", "a b x", "--size", "7")
    assert overrides.tags == {"day": "d", "empty": ""}
    assert overrides.max_rejected == MaxRejected(share=0.1)
    assert overrides.expect is not None
    assert not overrides.expect["a"].nullable
    assert (overrides.on_bad_row, overrides.on_corrupt_file) == ("reject", "quarantine")


def test_a_list_in_the_event_becomes_several_inputs() -> None:
    request = resolve(action(input="${data.files}"), event(files=["s3://b/1", "s3://b/2"]))
    assert request.overrides.input == (Input(uri="s3://b/1"), Input(uri="s3://b/2"))


def test_every_field_that_is_not_filled_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        resolve(
            action(job="${data.a}", output="${data.b}", input="${data.files}"), event(files=[1])
        )
    assert [fault.path for fault in caught.value.faults] == [
        "start_run.job",
        "start_run.input",
        "start_run.output",
    ]


def test_a_filled_value_that_no_run_may_have_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"start_run\.display_name"):
        resolve(action(display_name="${data.long}"), event(long="x" * 300))


def test_actions_are_validated_with_every_fault() -> None:
    assert parse_actions([{"start_run": {"job": "a"}}])[0].name == "start_run"
    with pytest.raises(InvalidError) as caught:
        parse_actions(
            [
                {"start_run": {"job": "a", "mode": "fast", "inputt": "x"}},
                {"name": "bad name!", "start_run": {"job": "${x"}},
                {"notify": {}},
                {"call": {"function": "f"}, "start_run": {"job": "a"}},
                {},
            ]
        )
    assert {fault.path for fault in caught.value.faults} == {
        "actions.0.start_run.mode",
        "actions.0.start_run.inputt",
        "actions.1.name",
        "actions.1.start_run.job",
        "actions.2.notify",
        "actions.3",
        "actions.4",
    }


def test_two_actions_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidError, match="two actions are named 'start_run'"):
        parse_actions([{"start_run": {"job": "a"}}, {"start_run": {"job": "b"}}])


def test_the_occurrence_of_an_object_event_is_the_object() -> None:
    assert occurrence(event()).text == "object:file:///in/a.parquet#t1"


@pytest.mark.parametrize("identity", [None, "", 7, "a\x00b"])
def test_without_a_usable_identity_the_event_is_its_own_occurrence(identity: Any) -> None:
    assert object_identity(event(identity=identity)) is None
    assert occurrence(event(identity=identity)).text == 'event:["augury/sources/landing","e1"]'


def test_only_object_events_name_objects() -> None:
    assert occurrence({**event(), "type": "acme.person.seen"}).kind == "event"
    assert occurrence({**event(), "data": None}).kind == "event"


def test_source_and_id_cannot_be_confused() -> None:
    one = occurrence({"source": "a", "id": 'b","c', "type": "t"})
    two = occurrence({"source": 'a","b', "id": "c", "type": "t"})
    assert one != two


def test_long_identities_fit_an_index() -> None:
    one, two = (occurrence(event(identity="x" * 5000 + tail)) for tail in "ab")
    assert len(one.value) < 100
    assert one != two
