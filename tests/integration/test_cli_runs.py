"""`augury runs`, `models`, `plan` and `score`, with real models over real files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from cli_world import Cli

from augury import clock
from augury.jobs.logs import append
from augury.jobs.states import RunState
from augury.storage import tables

_FEATURES = ("a", "b")


def _data(folder: Path, num_rows: int = 1000) -> None:
    random = np.random.default_rng(7)
    columns = {name: random.standard_normal(num_rows, dtype=np.float32) for name in _FEATURES}
    table = pa.table({"id": np.arange(num_rows), **columns})
    (folder / "in").mkdir()
    pq.write_table(table, folder / "in" / "x.parquet", row_group_size=100)
    pq.write_table(table.select([*_FEATURES]), folder / "sample.parquet")


def _model(folder: Path) -> None:
    import xgboost

    table = pq.read_table(folder / "sample.parquet")
    matrix = np.column_stack([table[name].to_numpy() for name in _FEATURES])
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0, feature_names=list(_FEATURES))
    xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 3).save_model(
        folder / "m.ubj"
    )


@pytest.fixture
def scored(cli: Cli) -> Cli:
    """A command line with a model, registered, and a job that uses it."""
    _data(cli.folder)
    _model(cli.folder)
    cli.write(
        "augury.yaml",
        "models: [{name: m, path: m.ubj, sample: sample.parquet, alias: champion}]\n"
        "jobs:\n- {name: score, model: m@champion, input: [{uri: in/}], output: out/,\n"
        "   columns: [id], target_shard_rows: 300}\n",
    )
    said = cli.run("apply", "-f", "augury.yaml")
    assert (said.code, said.err) == (0, ""), said
    return cli


def test_models(scored: Cli) -> None:
    (listed,) = scored.json("models", "list")
    assert (listed["name"], listed["version"], listed["flavor"]) == ("m", 1, "xgboost")
    assert scored.json("models", "show", "m")["aliases"] == {"champion": 1}
    assert scored.json("models", "show", "m@champion")["signature"]["task"] == "binary"
    assert "champion" in scored.ok("models", "show", "m")
    command = ("models", "register", "m", "m.ubj", "--sample", "sample.parquet")
    assert scored.json(*command)["change"] == "unchanged"
    assert "version 1" in scored.ok("models", "alias", "m", "challenger", "1")
    refused = scored.run("models", "alias", "m", "champion", "9")
    assert (refused.code, "9" in refused.err) == (1, True)
    assert scored.run("models", "show", "nobody").code == 1
    assert "deleted" in scored.ok("models", "delete", "m")
    assert scored.json("models", "list") == []


def test_a_file_that_is_no_model_is_named_with_its_line(scored: Cli) -> None:
    scored.write("bad.ubj", "no model")
    scored.write("bad.yaml", "models:\n- name: m\n  path: bad.ubj\n")
    said = scored.run("apply", "-f", "bad.yaml")
    assert said.code == 1
    assert "line 3: models.m.path" in said.err


def test_plan_of_a_job(scored: Cli) -> None:
    plan = scored.json("plan", "score")
    assert (plan["mode"], plan["rows_in"], len(plan["shards"])) == ("mini_batch", 1000, 4)
    assert [shard["num_rows"] for shard in plan["shards"]] == [300, 300, 300, 100]
    text = scored.ok("plan", "score", "--mode", "batch")
    assert "mode     batch" in text
    assert "id, prediction, probability" in text
    assert scored.json("runs", "list") == []


def test_plan_of_a_file_needs_no_engine(scored: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_DATABASE_URL", "postgresql://127.0.0.1:1/nobody")
    plan = scored.json("plan", "--model", "m.ubj", "--input", "in/", "--columns", "id")
    assert (plan["rows_in"], plan["columns"]) == (1000, ["id"])


def test_plan_names_every_fault(scored: Cli) -> None:
    pq.write_table(pa.table({"a": ["x"], "c": [1]}), scored.folder / "wrong.parquet")
    said = scored.run("plan", "score", "--input", "wrong.parquet")
    assert said.code == 1
    assert len(said.err.splitlines()) >= 4, said.err  # a has a wrong type; b and id are missing
    assert scored.run("plan", "score", "--input", "nowhere.parquet").code == 1
    assert scored.run("plan", "nobody").code == 1


def test_score_prints_one_line(scored: Cli) -> None:
    command = ("score", "--model", "m.ubj", "--input", "in/", "--output", "out", "--columns", "id")
    said = scored.json(*command)
    assert (said["rows_in"], said["rows_predicted"], said["rows_rejected"]) == (1000, 1000, 0)
    assert {"seconds", "rows_per_second", "peak_rss_bytes", "backend"} <= said.keys()
    found = pq.read_table(scored.folder / "out" / "part-00000.parquet")
    assert found.column_names == ["id", "prediction", "probability"]
    assert "1,000 of 1,000 rows predicted" in scored.ok(*command)  # the same bytes again
    other = scored.run("score", "--model", "m.ubj", "--input", "in/x.parquet", "--output", "in/")
    assert other.code == 1
    assert "Traceback" not in other.err


def test_score_refuses_pickles_without_trust(scored: Cli) -> None:
    (scored.folder / "m.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    command = ("score", "--model", "m.pkl", "--input", "in/", "--output", "out2")
    said = scored.run(*command)
    assert said.code == 1
    assert "--trust" in said.err
    assert not (scored.folder / "pwned").exists()


def test_runs_are_started_once_per_key(scored: Cli) -> None:
    command = (
        "runs",
        "start",
        "score",
        "--idempotency-key",
        "k",
        "--mode",
        "batch",
        "--env",
        "A=b",
    )
    first = scored.json(*command)
    assert first["spec"]["environment"] == {"A": "b"}
    again = scored.run(*command)
    assert again.out == f"{first['id']}\n"
    assert "started run" in again.err
    assert scored.run("runs", "start", "score", "--idempotency-key", "k").code == 1
    listed = scored.json("runs", "list", "--job", "score")
    assert [run["id"] for run in listed] == [first["id"]]
    assert scored.run("runs", "start", "nobody").code == 1
    assert scored.run("runs", "start", "score", "--mode", "bath").code == 1


def test_inputs_are_relative_to_here(scored: Cli) -> None:
    run = scored.json("runs", "start", "score", "--input", "in/x.parquet", "--output", "o/")
    assert run["spec"]["input"] == [{"uri": f"file://{scored.folder}/in/x.parquet", "tag": None}]
    assert run["spec"]["output"] == f"file://{scored.folder}/o/"


def test_cancel_and_delete(scored: Cli) -> None:
    run = scored.ok("runs", "start", "score").strip()
    assert scored.run("runs", "delete", run).code == 1
    assert scored.ok("runs", "cancel", run) == f"{run} CANCELED\n"
    again = scored.run("runs", "cancel", run)
    assert (again.code, "CANCELED" in again.err) == (1, True)
    assert "CANCELED" in scored.ok("runs", "list")
    assert scored.json("runs", "list", "--state", "succeeded") == []
    shown = scored.json("runs", "show", run)
    assert (shown["state"], shown["plan"], shown["manifest"]) == ("CANCELED", None, None)
    assert "accepted" in scored.ok("runs", "logs", run).lower()
    assert scored.ok("runs", "delete", run) == f"{run} DELETED\n"
    assert scored.json("runs", "list") == []
    assert scored.run("runs", "show", "run_x").code == 1


def _end(cli: Cli, run: str, state: RunState) -> None:
    """Ends a run as workers would, for the eyes of whoever watches."""
    values = {"state": state, "time_started": clock.utc_now(), "time_finished": clock.utc_now()}
    if state is RunState.SUCCEEDED:
        values |= {"manifest": "{}", "rows_in": 1000, "rows_done": 1000, "rows_predicted": 1000}

    def end(connection: sa.Connection) -> None:
        connection.execute(sa.update(tables.runs).where(tables.runs.c.id == run).values(values))
        append(connection, run, "info", f"Run ended: {state}.")

    cli.engine.database.transact(end)


@pytest.mark.parametrize(("state", "code"), [(RunState.FAILED, 1), (RunState.SUCCEEDED, 0)])
def test_watch_ends_with_the_run(scored: Cli, state: RunState, code: int) -> None:
    run = scored.ok("runs", "start", "score").strip()
    ending = threading.Timer(0.5, _end, (scored, run, state))
    ending.start()
    said = scored.run("runs", "watch")
    ending.join()
    assert said.code == code
    lines = said.out.splitlines()
    assert "ACCEPTED" in lines[0]
    assert any(line.startswith(f"{run} {state}") for line in lines)


def test_a_terminal_sees_progress(scored: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    run = scored.ok("runs", "start", "score").strip()
    ending = threading.Timer(0.5, _end, (scored, run, RunState.SUCCEEDED))
    ending.start()
    out = scored.ok("runs", "watch", run)
    ending.join()
    assert "1000/1000" in out
    assert "SUCCEEDED" in out
    said = scored.run("score", "--model", "m.ubj", "--input", "in/", "--output", "o2", "--json")
    assert json.loads(said.out)["rows_in"] == 1000
    assert scored.run("audit", "--shallow").out


def test_watch_tells_steps_as_json(scored: Cli) -> None:
    run = scored.ok("runs", "start", "score").strip()
    _end(scored, run, RunState.FAILED)
    said = scored.run("runs", "watch", run, "--json")
    assert [json.loads(line)["state"] for line in said.out.splitlines()] == ["FAILED"]


def test_watch_waits_for_the_next_run(scored: Cli) -> None:
    def start_and_end() -> None:
        run, _ = scored.engine.start_run("score")
        _end(scored, run.id, RunState.SUCCEEDED)

    starting = threading.Timer(0.5, start_and_end)
    starting.start()
    said = scored.run("runs", "watch")
    starting.join()
    assert said.code == 0
    assert "waiting for a run" in said.err
    assert "SUCCEEDED: 1,000 rows predicted" in said.out
    assert "_manifest.json" in said.out.splitlines()[-1]


def test_logs_follow_to_the_end(scored: Cli) -> None:
    run = scored.ok("runs", "start", "score").strip()
    ending = threading.Timer(0.3, _end, (scored, run, RunState.FAILED))
    ending.start()
    out = scored.ok("runs", "logs", run, "--follow")
    ending.join()
    assert "Run accepted." in out.splitlines()[0]
    assert "Run ended: FAILED." in out.splitlines()[-1]
