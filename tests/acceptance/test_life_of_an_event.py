"""The ten steps of DESIGN's table, in one installation, with real processes, in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from harness import Augury
from scored import Scored, make_rows, write_file

from augury.storage import tables

pytestmark = pytest.mark.slow
NUM_ROWS = 60_000


def test_life_of_an_event(start_augury: Callable[..., Augury], backend: dict[str, str]) -> None:
    augury = start_augury(workers=2, **backend)
    world = Scored(augury)
    world.apply(mode="distributed", target_shard_rows=20_000)

    # 1  a file lands and becomes an event
    write_file(world.landing / "day.parquet", NUM_ROWS, seed=1, row_group_rows=20_000)
    (run,) = world.until_finished(1)
    world.until_routed()
    (event,) = world.rows(tables.events, tables.events.c.type == "augury.object.created")
    shown = augury.json("events", "show", str(event.position))
    data = shown["event"]["data"]
    assert (data["key"], data["source"]) == ("day.parquet", "landing")
    assert data["uri"] == (world.landing / "day.parquet").as_uri()
    assert shown["event"]["source"] == "augury/sources/landing"

    # 2  the bus carried it: the ledger knows its entry in the stream
    assert event.incarnation and event.entry_id

    # 3  one rule matched, under a known version of the rules
    (rule,) = augury.json("rules", "list")
    assert event.matched == [rule["id"]]
    assert event.ruleset_version == 1

    # 4  its action was decided once
    (outcome,) = world.rows(tables.outcomes, tables.outcomes.c.position == event.position)
    assert (outcome.action, outcome.state, outcome.run_id) == ("start_run", "STARTED", run.id)
    assert shown["outcomes"][0]["run_id"] == run.id

    # 5  a run was accepted for exactly this outcome, and for exactly this content
    assert (run.outcome_id, run.position) == (outcome.id, event.position)
    assert run.spec["input"] == [{"uri": data["uri"], "tag": data["tag"]}]

    # 6  it was planned into shards of whole row groups
    shards = world.shards(run.id)
    assert (run.mode, run.rows_in, run.shards_total) == ("distributed", NUM_ROWS, 3)
    assert [[each["row_group"] for each in s.spec["ranges"]] for s in shards] == [[0], [1], [2]]

    # 7  Celery workers took them
    workers = {worker.id for worker in world.rows(tables.workers)}
    assert {shard.worker_id for shard in shards} <= workers
    assert [(shard.state, shard.attempts) for shard in shards] == [("DONE", 1)] * 3

    # 8  each row was scored, as the library itself scores it
    predictions = world.predictions(run)
    rows = make_rows(NUM_ROWS, seed=1)
    assert predictions.column_names == ["id", "prediction", "probability"]
    assert predictions["id"].equals(rows["id"])
    expected = world.expected(rows)
    assert np.array_equal(predictions["probability"].to_numpy(), expected)
    assert np.array_equal(predictions["prediction"].to_numpy(), (expected > 0.5).astype(np.int64))

    # 9  rows were counted and the output committed
    manifest = world.manifest(run)
    assert manifest["rows"] == {"in": NUM_ROWS, "predicted": NUM_ROWS, "rejected": 0, "filtered": 0}
    assert manifest["files"][0]["uri"] == data["uri"]
    assert run.state == "SUCCEEDED"
    assert run.time_accepted <= run.time_started <= run.time_committed <= run.time_finished

    # 10  and the run's own events are back on the bus, each once
    told = [row.type for row in world.rows(tables.events) if row.subject == f"runs/{run.id}"]
    assert sorted(told) == [
        "augury.run.accepted",
        *["augury.run.progressed"] * 3,
        "augury.run.started",
        "augury.run.succeeded",
    ]

    report = world.audit()
    assert report["violations"] == []
    assert augury.down() == 0
