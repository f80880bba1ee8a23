"""Rejected rows scored again: a new generation of the output, which verify and audit understand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audit_world import Corruptions, ScoredWorld, Snapshot, sqlite_settings
from execution_world import ExecutionWorld, train
from pyarrow import parquet as pq
from scoring_world import Sums, Version

from augury.data.manifest import Manifest
from augury.data.verification import verify_output
from augury.errors import ConflictError, CorruptError, InvalidError
from augury.inference import retry
from augury.inference.retry import retry_rejected
from augury.jobs.runs import Run
from augury.jobs.spec import RunOverrides
from augury.jobs.states import RunState
from augury.models.backends import UNCHECKED
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.objects import open_store
from augury.storage.tables import outbox, runs

# --- by the real engine ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("model") / "quick.ubj")


@pytest.fixture
def world(
    sqlite_database: Database, settings: Settings, bus_url: str, model: Path
) -> Iterator[ExecutionWorld]:
    changes = {"database_url": sqlite_database.url, "redis_url": bus_url}
    made = ExecutionWorld(sqlite_database, settings.model_copy(update=changes), model)
    made.local_workers()
    policy = {"on_bad_row": "reject", "expect": {"b": {"range": [0, 5]}}}
    made.job("strict", target_shard_rows=1100, **policy)
    yield made
    made.close()


def again(world: ExecutionWorld, run: Run, **overrides: Any) -> Run:
    fields = RunOverrides.model_validate(overrides)
    return retry_rejected(world.database, run.id, world.settings, overrides=fields)


def violations(run: Run, settings: Settings) -> list[str]:
    found = verify_output(open_store(run.output_uri, settings))
    return [violation.check for violation in found.violations]


def by_id(tables: Any) -> list[tuple[int, float]]:
    return sorted(zip(tables["id"].to_pylist(), tables["prediction"].to_pylist(), strict=True))


def test_rejected_rows_are_scored_again_generation_by_generation(world: ExecutionWorld) -> None:
    path = world.drop("a.parquet", 3300, row_group=1100)
    undisturbed = world.succeeded(world.start(path))
    run = world.succeeded(world.start(path, job="strict"))
    assert (run.rows_predicted, run.rows_rejected, run.generation) == (1800, 1500, 1)
    folder = Path(run.output_uri.removeprefix("file://"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    second = again(world, run, expect={"b": {"range": [0, 8]}})
    assert (second.rows_predicted, second.rows_rejected, second.generation) == (2700, 600, 2)
    assert second.state is RunState.SUCCEEDED
    assert second.manifest_uri == f"{run.output_uri}_manifest.2.json"
    assert violations(second, world.settings) == []

    third = again(world, run, expect={})
    assert (third.rows_predicted, third.rows_rejected, third.generation) == (3300, 0, 3)
    assert violations(third, world.settings) == []
    assert by_id(world.predictions(run)) == by_id(world.predictions(undisturbed))
    assert {path: path.read_bytes() for path in before} == before
    manifest = Manifest.from_bytes((third.manifest or "").encode())
    assert (len(manifest.parts), len(manifest.superseded)) == (6, 5)
    told = world.rows(outbox, outbox.c.event_id.like(f"{run.id}:RETRIED:%"))
    assert [row.event_id.rpartition(":")[2] for row in told] == ["2", "3"]
    with pytest.raises(ConflictError, match="rejected no row"):
        again(world, run)


def test_rows_that_are_rejected_again_say_where_they_came_from_first(
    world: ExecutionWorld,
) -> None:
    path = world.drop("a.parquet", 22)
    run = world.succeeded(world.start(path, job="strict"))
    again(world, run, expect={"b": {"range": [0, 9]}})
    folder = Path(run.output_uri.removeprefix("file://")) / "_rejected"
    (newest,) = folder.glob("part-g2-*")
    rows = pq.read_table(newest).to_pylist()
    assert [(row["_file"], row["_row"]) for row in rows] == [
        (f"file://{path}", n) for n in (10, 21)
    ]
    assert [row["_detail"] for row in rows] == ["expected a number from 0 to 9"] * 2


def test_nothing_is_committed_if_all_are_rejected_again(world: ExecutionWorld) -> None:
    run = world.succeeded(world.start(world.drop("a.parquet", 22), job="strict"))
    before = world.output(run)
    with pytest.raises(InvalidError, match=r"all 10 rows were rejected again.*row 6 of file"):
        again(world, run)
    assert world.output(run) == before
    assert world.run(run).generation == 1


def test_of_two_retries_one_commits_and_the_other_leaves_nothing(
    world: ExecutionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.succeeded(world.start(world.drop("a.parquet", 22), job="strict"))
    faster = retry._commit

    def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(retry, "_commit", faster)
        again(world, run, expect={})
        return faster(*arguments)

    monkeypatch.setattr(retry, "_commit", overtaken)
    with pytest.raises(ConflictError, match="is not of generation 1 any more"):
        again(world, run, expect={})
    assert violations(run, world.settings) == []
    assert world.run(run).generation == 2


def test_a_manifest_that_could_not_be_put_is_put_next_time(world: ExecutionWorld) -> None:
    run = world.succeeded(world.start(world.drop("a.parquet", 22), job="strict"))
    again(world, run, expect={"b": {"range": [0, 8]}})
    path = Path(run.output_uri.removeprefix("file://")) / "_manifest.2.json"
    kept = path.read_bytes()
    path.unlink()
    again(world, run, expect={})
    assert path.read_bytes() == kept
    assert violations(run, world.settings) == []


def test_only_what_was_committed_is_scored_again(world: ExecutionWorld) -> None:
    run = world.succeeded(world.start(world.drop("a.parquet", 22), job="strict"))
    (part,) = (Path(run.output_uri.removeprefix("file://")) / "_rejected").iterdir()
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(CorruptError, match="is not the part that was committed"):
        again(world, run, expect={})
    canceled = world.cancel(world.start(world.drop("b.parquet", 5), wake=False))
    with pytest.raises(ConflictError, match="is CANCELED"):
        again(world, canceled)


# --- in the eyes of the audit ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CheckedVersion(Version):
    """As the registry has it."""

    verdict: Any = UNCHECKED


class Loaded:
    """A cache that holds the tests' own model."""

    def __init__(self, *_: object) -> None:
        pass

    def load(self, *, signature: Any, **_: object) -> Sums:
        return Sums(signature)


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[ScoredWorld, Snapshot]]:
    folder = tmp_path_factory.mktemp("audit")
    settings = sqlite_settings(folder, _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    made = ScoredWorld(database, settings, folder)
    made.fill()
    with pytest.MonkeyPatch.context() as patch:
        version = CheckedVersion(signature=made.signature)
        patch.setattr(retry, "resolve", lambda connection, reference: version)
        patch.setattr(retry, "ModelCache", Loaded)
        fields = RunOverrides.model_validate({"expect": {}})
        retry_rejected(database, _retried(made).id, settings, overrides=fields)
    made.work_off()
    shutil.copytree(folder / "out", folder / "saved")
    yield made, Snapshot(database)
    made.bus.close()
    database.close()


@pytest.fixture
def audited(_shared: tuple[ScoredWorld, Snapshot]) -> Iterator[ScoredWorld]:
    made, snapshot = _shared
    yield made
    snapshot.restore()
    shutil.rmtree(made.folder / "out", ignore_errors=True)
    shutil.copytree(made.folder / "saved", made.folder / "out")


def _retried(world: ScoredWorld) -> sa.Row[Any]:
    return next(run for run in world.runs() if run.position is None)


def _folder(world: ScoredWorld) -> Path:
    return Path(_retried(world).output_uri.removeprefix("file://"))


_CORRUPTIONS = Corruptions[ScoredWorld]()


def _rewrite(world: ScoredWorld, change: Callable[[Manifest], Manifest]) -> None:
    run = _retried(world)
    manifest = change(Manifest.from_bytes(run.manifest.encode()))
    values = {"manifest": manifest.to_bytes().decode(), "manifest_digest": manifest.digest}
    world.change(sa.update(runs).where(runs.c.id == run.id).values(**values))
    (_folder(world) / "_manifest.2.json").write_bytes(manifest.to_bytes())


@_CORRUPTIONS.breaks("generations")
def the_first_manifest_is_gone(world: ScoredWorld) -> None:
    (_folder(world) / "_manifest.json").unlink()


@_CORRUPTIONS.breaks("generations")
def a_generation_that_follows_from_another(world: ScoredWorld) -> None:
    _rewrite(world, lambda manifest: replace(manifest, previous="0" * 64))


@_CORRUPTIONS.breaks("generations")
def a_generation_with_its_parts_in_another_order(world: ScoredWorld) -> None:
    _rewrite(world, lambda manifest: replace(manifest, parts=manifest.parts[::-1]))


@_CORRUPTIONS.breaks("manifest_text")
def a_ledger_of_another_generation(world: ScoredWorld) -> None:
    _rewrite(world, lambda manifest: replace(manifest, run_id="run_other"))


@_CORRUPTIONS.breaks("manifest_object")
def the_last_manifest_is_gone(world: ScoredWorld) -> None:
    (_folder(world) / "_manifest.2.json").unlink()


@_CORRUPTIONS.breaks("part_object")
def a_superseded_reject_part_is_gone(world: ScoredWorld) -> None:
    (_folder(world) / "_rejected/part-00004.parquet").unlink()


@_CORRUPTIONS.breaks("part_object")
def a_part_of_the_second_generation_is_gone(world: ScoredWorld) -> None:
    next(_folder(world).glob("part-g2-*")).unlink()


@_CORRUPTIONS.breaks("stray_object")
def a_part_that_a_killed_retry_left(world: ScoredWorld) -> None:
    folder = _folder(world)
    shutil.copyfile(folder / "part-00000.parquet", folder / "part-g3-0badcafe-00000.parquet")


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_the_audit_names_what_is_broken(
    audited: ScoredWorld, check: str, corrupt: Callable[[ScoredWorld], None]
) -> None:
    corrupt(audited)
    report = audited.audit(deep=True)
    assert {violation.check for violation in report.violations} == {check}


def test_a_second_generation_is_sound(audited: ScoredWorld) -> None:
    assert audited.audit(deep=True).violations == ()


@pytest.mark.parametrize(
    ("corrupt", "checks"),
    [
        (the_first_manifest_is_gone, {"manifest"}),
        (a_generation_that_follows_from_another, {"generation"}),
        (a_superseded_reject_part_is_gone, {"missing"}),
        (a_part_that_a_killed_retry_left, {"extra"}),
        (the_last_manifest_is_gone, {"extra"}),
    ],
)
def test_so_does_verify(
    audited: ScoredWorld, corrupt: Callable[[ScoredWorld], None], checks: set[str]
) -> None:
    corrupt(audited)
    found = verify_output(open_store(f"{_folder(audited)}/", audited.settings))
    assert {violation.check for violation in found.violations} == checks
