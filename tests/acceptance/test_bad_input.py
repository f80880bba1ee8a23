"""Bad input gets a clear error, and nothing is lost: tried as an angry user would."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import AUGURY, Augury
from scored import Scored, make_rows, write_file

from augury.storage import tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    """One installation for all tests of this module: bad input must not disturb the next one."""
    augury = Augury(tmp_path_factory.mktemp("bad-input"), workers=1)
    augury.up()
    world = Scored(augury)
    world.apply()
    yield world
    try:
        world.until_routed()
        assert world.audit()["violations"] == []
    finally:
        assert augury.end() == []


def _start(world: Scored, *arguments: str) -> str:
    run_id: str = world.augury.json("runs", "start", "score", *arguments)["id"]
    return run_id


def _finished(world: Scored, run_id: str, *, timeout_s: float = 60.0) -> Any:
    def run() -> Any:
        (row,) = world.rows(tables.runs, tables.runs.c.id == run_id)
        return row

    over = {"SUCCEEDED", "FAILED", "CANCELED"}
    world.augury.until(lambda: run().state in over, "the run is over", timeout_s=timeout_s)
    return run()


def _fails(world: Scored, path: Path | str, reason: str, *words: str) -> None:
    uri = path if isinstance(path, str) else path.as_uri()
    run = _finished(world, _start(world, "--input", uri))
    assert (run.state, run.reason) == ("FAILED", reason), run
    for word in words:
        assert word in run.lifecycle_details, run.lifecycle_details
    assert not (world.output / run.id / "_manifest.json").exists()


def test_corrupt_footer(world: Scored) -> None:
    path = world.folder / "corrupt-footer.parquet"
    path.write_bytes(b"PAR1 this is not Parquet PAR1")
    _fails(world, path, "corrupt", "corrupt-footer.parquet")


def test_corrupt_page(world: Scored) -> None:
    path = write_file(world.folder / "in" / "corrupt-page.parquet", 20_000)
    content = bytearray(path.read_bytes())
    content[5_000:30_000] = b"\xff" * 25_000
    path.write_bytes(content)
    _fails(world, path, "corrupt", "corrupt-page.parquet")


def test_truncated_file_never_becomes_an_event(world: Scored) -> None:
    whole = write_file(world.folder / "in" / "whole.parquet", 5_000, seed=7).read_bytes()
    landed = world.landing / "slow-upload.parquet"
    landed.write_bytes(whole[: len(whole) // 2])
    write_file(world.landing / "other.parquet", 1_000, seed=8)

    def keys() -> list[str]:
        mine = world.rows(tables.events, tables.events.c.subject.is_not(None))
        return [event.subject for event in mine]

    world.augury.until(lambda: any("other.parquet" in k for k in keys()), "the other one")
    assert not any("slow-upload" in key for key in keys())
    landed.write_bytes(whole)
    world.augury.until(lambda: any("slow-upload" in k for k in keys()), "once it is complete")


def test_wrong_schema_names_every_fault(world: Scored) -> None:
    rows = make_rows(100)
    rows = rows.set_column(1, "a", pa.array(["x"] * 100)).drop_columns(["c", "id"])
    path = world.folder / "wrong-schema.parquet"
    pq.write_table(rows, path)
    _fails(world, path, "contract", "a", "string", "c", "id")


def test_zero_rows_succeed_with_an_empty_output(world: Scored) -> None:
    path = write_file(world.folder / "in" / "empty.parquet", 0)
    run = _finished(world, _start(world, "--input", path.as_uri()))
    assert run.state == "SUCCEEDED"
    assert world.manifest(run)["rows"]["in"] == 0
    assert world.predictions(run).num_rows == 0


def test_prefix_without_objects(world: Scored) -> None:
    (world.folder / "nothing-here").mkdir()
    run = _finished(world, _start(world, "--input", (world.folder / "nothing-here").as_uri() + "/"))
    assert run.state == "SUCCEEDED"
    assert world.manifest(run)["rows"]["in"] == 0


def test_missing_file(world: Scored) -> None:
    _fails(world, world.folder / "never-was.parquet", "not_found", "never-was.parquet")


def test_file_replaced_between_event_and_scoring(world: Scored) -> None:
    """The event pins the content; a file with other content is refused, both are named."""
    path = write_file(world.folder / "in" / "replaced.parquet", 1_000, seed=1)
    stale = f"{path.stat().st_size}-1-1-1"
    event = {
        "specversion": "1.0",
        "source": "/angry",
        "id": "replaced",
        "type": "augury.object.created",
        "data": {
            "source": "landing",
            "key": "replaced.parquet",
            "uri": path.as_uri(),
            "tag": stale,
            "identity": f"{path.as_uri()}#{stale}",
        },
    }
    status, _ = world.augury.http("POST", "/v1/events", event)
    assert status == 202

    def runs() -> list[str]:
        found = world.rows(tables.outcomes, tables.outcomes.c.occurrence.contains("replaced"))
        return [outcome.run_id for outcome in found if outcome.run_id]

    world.augury.until(runs, "a run was started")
    run = _finished(world, runs()[0])
    assert (run.state, run.reason) == ("FAILED", "identity")
    assert stale in run.lifecycle_details
    assert str(path.stat().st_ino) in run.lifecycle_details


def test_unknown_model_names_what_there_is(world: Scored) -> None:
    path = write_file(world.folder / "in" / "fine.parquet", 1_000)
    run_id = _start(world, "--input", path.as_uri(), "--model", "lable@champion")
    run = _finished(world, run_id)
    assert (run.state, run.reason) == ("FAILED", "not_found")
    assert "label" in run.lifecycle_details


def test_disk_full_in_the_output(world: Scored, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs more rights")
    try:
        path = write_file(world.folder / "in" / "large.parquet", 100_000)
        run_id = _start(world, "--input", path.as_uri(), "--output", small.as_uri() + "/")
        run = _finished(world, run_id)
        assert (run.state, run.reason) == ("FAILED", "limit")
        assert "space" in run.lifecycle_details
        left = [each for each in small.rglob("*") if each.is_file()]
        assert left == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_unreachable_store_is_tried_again_and_then_named(world: Scored) -> None:
    world.apply_document(
        {
            "jobs": [
                {
                    "name": "far",
                    "model": "label@champion",
                    "input": [{"uri": "s3://nowhere/in/"}],
                    "output": "./far/",
                    "max_attempts": 2,
                }
            ]
        },
        "far.yaml",
    )
    run_id = world.augury.json("runs", "start", "far")["id"]
    run = _finished(world, run_id, timeout_s=90)
    assert (run.state, run.reason) == ("FAILED", "unavailable")
    assert "nowhere" in run.lifecycle_details


def test_invalid_yaml_names_line_and_field(world: Scored) -> None:
    path = world.folder / "wrong.yaml"
    path.write_text("jobs:\n  - name: j\n    model: m\n    outptu: ./x/\n    shape: {cpus: many}\n")
    done = world.augury.run("apply", "-f", str(path))
    assert done.returncode != 0
    for words in ("line 4", "outptu", "output", "line 5", "cpus"):
        assert words in done.stderr, done.stderr
    path.write_text("jobs: [\n  - what")
    done = world.augury.run("apply", "-f", str(path))
    assert done.returncode != 0
    assert "line 2" in done.stderr
    assert not world.rows(tables.jobs, tables.jobs.c.name == "j")


def test_two_applies_at_once(world: Scored) -> None:
    """One winner's whole spec, never a mixture."""
    paths = []
    for name in ("one", "two"):
        path = world.folder / f"{name}.yaml"
        columns = ["id", "a"] if name == "one" else ["id", "b"]
        path.write_text(
            f"jobs:\n  - name: raced\n    model: label@champion\n    output: ./{name}/\n"
            f"    columns: [{', '.join(columns)}]\n"
        )
        paths.append(path)
    commands = [[AUGURY, "apply", "-f", str(path)] for path in paths]
    environment = world.augury.environment
    started = [
        subprocess.Popen(
            command,
            env=environment,
            cwd=world.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in commands
    ]
    said = [each.communicate(timeout=60) for each in started]
    assert [each.returncode for each in started] == [0, 0], said
    (job,) = world.rows(tables.jobs, tables.jobs.c.name == "raced")
    spec = (job.spec["output"].rstrip("/").rpartition("/")[2], job.spec["columns"])
    assert spec in (("one", ["id", "a"]), ("two", ["id", "b"]))
    assert job.version == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"specversion": "1.0", "type": "a.b"}, ["source", "id"]),
        ({"specversion": "0.3", "source": "/s", "id": "", "type": "a.b"}, ["specversion", "id"]),
        ([{"specversion": "1.0"}], ["[0].source", "[0].type"]),
    ],
)
def test_invalid_event_names_every_fault(world: Scored, body: object, words: list[str]) -> None:
    status, answer = world.augury.http("POST", "/v1/events", body)
    assert 400 <= status < 500
    assert set(words) <= {fault["path"] for fault in answer["faults"]}


def test_oversized_event_is_refused(world: Scored) -> None:
    event = {
        "specversion": "1.0",
        "source": "/s",
        "id": "big",
        "type": "a.b",
        "data": "x" * 300_000,
    }
    status, answer = world.augury.http("POST", "/v1/events", event)
    assert status == 413
    assert "262144" in answer["message"]


def test_duplicate_event_is_accepted_and_recorded(world: Scored) -> None:
    event = {"specversion": "1.0", "source": "/twice", "id": "same", "type": "a.b"}
    for _ in range(2):
        assert world.augury.http("POST", "/v1/events", event)[0] == 202

    def found() -> list[Any]:
        return list(world.rows(tables.events, tables.events.c.source == "/twice"))

    world.augury.until(lambda: len(found()) == 2, "both are in the ledger")
    first, second = found()
    assert (first.duplicate_of, second.duplicate_of) == (None, first.position)


def test_pickle_is_refused_without_trust(world: Scored) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression

    rows = make_rows(200)
    matrix = rows.select(["a", "b"]).to_pandas()
    model = LogisticRegression().fit(matrix, rows["label"].to_numpy())
    path = world.folder / "model.joblib"
    joblib.dump(model, path)
    sample = world.folder / "sample2.parquet"
    pq.write_table(rows.select(["a", "b"]), sample)
    command = ["models", "register", "linear", str(path), "--sample", str(sample)]
    refused = world.augury.run(*command)
    assert refused.returncode != 0
    assert "--trust" in refused.stderr
    trusted = world.augury.run(*command, "--trust")
    assert trusted.returncode == 0, trusted.stderr


def test_same_file_again_is_the_same_object(world: Scored) -> None:
    """Listed or announced again unchanged: visible, and suppressed."""
    path = write_file(world.landing / "again.parquet", 500, seed=11)
    claims: Callable[[], int] = lambda: len(  # noqa: E731
        world.rows(tables.object_claims, tables.object_claims.c.object_identity.contains("again"))
    )
    world.augury.until(claims, "it was scored")
    (event,) = [
        row
        for row in world.rows(tables.events, tables.events.c.type == "augury.object.created")
        if row.subject and "again.parquet" in row.subject
    ]
    shown = world.augury.json("events", "show", str(event.position))["event"]
    again = {**shown, "id": "announced-by-somebody-else", "source": "/s3"}
    assert world.augury.http("POST", "/v1/events", again)[0] == 202
    suppressed = tables.outcomes.c.state == "SUPPRESSED"
    world.augury.until(
        lambda: any(
            path.as_uri() in outcome.occurrence and outcome.reason == "same object"
            for outcome in world.rows(tables.outcomes, suppressed)
        ),
        "suppressed and visible",
    )
    assert claims() == 1
