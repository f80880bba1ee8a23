"""Each invariant of rows and files: broken alone, audit names it and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from audit_world import Corruptions, ScoredWorld, Snapshot, sqlite_settings
from scoring_world import numbers, write

from augury import clock
from augury.data.manifest import MANIFEST_KEY, FileRows, Manifest
from augury.ids import digest
from augury.jobs.runs import delete_run
from augury.monitoring.audit import AuditReport
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings
from augury.storage import objects
from augury.storage.database import Database
from augury.storage.objects import open_store
from augury.storage.tables import model_versions, models, runs, work

type Corruption = Callable[[ScoredWorld], None]
_CORRUPTIONS = Corruptions[ScoredWorld]()


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[tuple[ScoredWorld, Snapshot]]:
    folder = tmp_path_factory.mktemp("audit")
    settings = sqlite_settings(folder, _sqlite_template, valkey.url)
    database = Database(settings.effective_database_url)
    world = ScoredWorld(database, settings, folder)
    world.fill()
    shutil.copytree(folder / "out", folder / "saved")
    yield world, Snapshot(database)
    world.bus.close()
    database.close()


@pytest.fixture
def world(_shared: tuple[ScoredWorld, Snapshot]) -> Iterator[ScoredWorld]:
    """A filled world; what a test changes in its ledger and its outputs is put back."""
    world, snapshot = _shared
    yield world
    snapshot.restore()
    shutil.rmtree(world.folder / "out", ignore_errors=True)
    shutil.copytree(world.folder / "saved", world.folder / "out")


def _two_files(world: ScoredWorld) -> sa.Row[Any]:
    """The run over two files, of 30 and of 20 rows, and two damaged ones."""
    return next(run for run in world.runs() if run.position is None)


def _folder(run: sa.Row[Any]) -> Path:
    return Path(run.output_uri.removeprefix("file://"))


def _shards(world: ScoredWorld, run: sa.Row[Any]) -> list[sa.Row[Any]]:
    rows = world.rows(work, work.c.run_id == run.id, work.c.kind == "shard")
    return sorted(rows, key=lambda row: int(row.seq))


def _rewrite(world: ScoredWorld, run: sa.Row[Any], manifest: Manifest) -> None:
    """Replaces a manifest everywhere, so that ledger and object agree."""
    data = manifest.to_bytes()
    changed = sa.update(runs).where(runs.c.id == run.id)
    world.change(changed.values(manifest=data.decode(), manifest_digest=manifest.digest))
    (_folder(run) / MANIFEST_KEY).write_bytes(data)


def _manifest(run: sa.Row[Any]) -> Manifest:
    return Manifest.from_bytes(run.manifest.encode())


def _respec(world: ScoredWorld, shard: sa.Row[Any], **values: Any) -> None:
    world.change(sa.update(work).where(work.c.id == shard.id).values(**values))


@_CORRUPTIONS.breaks("manifest_text")
def a_digest_that_is_not_the_manifests(world: ScoredWorld) -> None:
    run = _two_files(world)
    world.change(sa.update(runs).where(runs.c.id == run.id).values(manifest_digest="0" * 64))


@_CORRUPTIONS.breaks("manifest_text")
def a_plan_that_is_not_the_manifests(world: ScoredWorld) -> None:
    run = _two_files(world)
    world.change(sa.update(runs).where(runs.c.id == run.id).values(plan=run.plan + " "))


@_CORRUPTIONS.breaks("manifest_text")
def a_manifest_that_is_none(world: ScoredWorld) -> None:
    run = _two_files(world)
    (_folder(run) / MANIFEST_KEY).write_bytes(b"{}")
    world.change(sa.update(runs).where(runs.c.id == run.id).values(manifest="{}"))


@_CORRUPTIONS.breaks("manifest_object")
def a_manifest_object_deleted(world: ScoredWorld) -> None:
    (_folder(_two_files(world)) / MANIFEST_KEY).unlink()


@_CORRUPTIONS.breaks("manifest_object")
def a_manifest_object_edited(world: ScoredWorld) -> None:
    path = _folder(_two_files(world)) / MANIFEST_KEY
    path.write_bytes(path.read_bytes() + b"\n")


@_CORRUPTIONS.breaks("part_object")
def a_part_deleted(world: ScoredWorld) -> None:
    (_folder(_two_files(world)) / "part-00001.parquet").unlink()


@_CORRUPTIONS.breaks("part_object")
def a_part_with_one_bit_turned(world: ScoredWorld) -> None:
    path = _folder(_two_files(world)) / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@_CORRUPTIONS.breaks("part_object")
def a_part_cut_short(world: ScoredWorld) -> None:
    path = _folder(_two_files(world)) / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1])


@_CORRUPTIONS.breaks("part_object")
def a_reject_part_deleted(world: ScoredWorld) -> None:
    (_folder(_two_files(world)) / "_rejected/part-00004.parquet").unlink()


@_CORRUPTIONS.breaks("part_object")
def a_reject_part_with_one_bit_turned(world: ScoredWorld) -> None:
    path = _folder(_two_files(world)) / "_rejected/part-00004.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@_CORRUPTIONS.breaks("stray_object")
def a_reject_part_that_no_manifest_names(world: ScoredWorld) -> None:
    folder = _folder(_two_files(world)) / "_rejected"
    shutil.copyfile(folder / "part-00004.parquet", folder / "part-00000.parquet")


@_CORRUPTIONS.breaks("output_rows")
def rejected_rows_that_no_reject_part_holds(world: ScoredWorld) -> None:
    run = _two_files(world)
    manifest = _manifest(run)
    first, second, *others = manifest.files
    fewer = replace(second, rows_rejected=0, rows_predicted=second.rows_in)
    rows = replace(manifest.rows, rows_rejected=0, rows_predicted=manifest.rows.rows_in)
    _rewrite(world, run, replace(manifest, files=(first, fewer, *others), rows=rows))
    counts = {"rows_rejected": 0, "rows_predicted": rows.rows_in}
    world.change(sa.update(runs).where(runs.c.id == run.id).values(**counts))
    shard = _shards(world, run)[4]
    _respec(world, shard, result={**shard.result, **counts, "rows_predicted": 10})


@_CORRUPTIONS.breaks("shard_rows")
def a_shard_that_reports_another_reject_part(world: ScoredWorld) -> None:
    shard = _shards(world, _two_files(world))[4]
    part = {**shard.result["reject_part"], "sha256": "0" * 64}
    _respec(world, shard, result={**shard.result, "reject_part": part})


@_CORRUPTIONS.breaks("part_rows")
def parts_with_other_rows_than_the_manifest_says(world: ScoredWorld) -> None:
    run = _two_files(world)
    manifest = _manifest(run)
    first, second, *others = manifest.parts
    moved = (
        replace(first, num_rows=first.num_rows + 1),
        replace(second, num_rows=second.num_rows - 1),
    )
    _rewrite(world, run, replace(manifest, parts=(*moved, *others)))


def _moved(manifest: Manifest, **changes: int) -> Manifest:
    """Rows moved from the second file to the first."""
    first, second, *others = manifest.files

    def add(file: FileRows, sign: int) -> FileRows:
        values = {name: getattr(file, name) + sign * by for name, by in changes.items()}
        return replace(file, **values)  # type: ignore[arg-type]

    return replace(manifest, files=(add(first, 1), add(second, -1), *others))


@_CORRUPTIONS.breaks("output_rows")
def a_file_whose_rows_are_unaccounted_for(world: ScoredWorld) -> None:
    run = _two_files(world)
    _rewrite(world, run, _moved(_manifest(run), rows_predicted=1))


@_CORRUPTIONS.breaks("output_rows")
def a_sum_that_its_files_do_not_give(world: ScoredWorld) -> None:
    run = _two_files(world)
    manifest = _manifest(run)
    first, second, *others = manifest.files
    fewer = replace(first, rows_rejected=1, rows_predicted=first.rows_predicted - 1)
    _rewrite(world, run, replace(manifest, files=(fewer, second, *others)))


@_CORRUPTIONS.breaks("output_rows")
def a_ledger_with_other_rows_than_the_manifest(world: ScoredWorld) -> None:
    run = _two_files(world)
    changed = sa.update(runs).where(runs.c.id == run.id)
    world.change(changed.values(rows_in=run.rows_in + 1, rows_rejected=2))


@_CORRUPTIONS.breaks("input_rows")
def rows_that_the_input_does_not_have(world: ScoredWorld) -> None:
    run = _two_files(world)
    _rewrite(world, run, _moved(_manifest(run), rows_predicted=1, rows_in=1))
    for uri, by in zip((file.uri for file in _manifest(run).files[:2]), (1, -1), strict=True):
        shard = next(s for s in _shards(world, run) if s.spec["ranges"][0]["uri"] == uri)
        (each,) = shard.spec["ranges"]
        spec = {**shard.spec, "ranges": [{**each, "num_rows": each["num_rows"] + by}]}
        _respec(world, shard, spec=spec)


@_CORRUPTIONS.breaks("stray_object")
def a_part_that_no_manifest_names(world: ScoredWorld) -> None:
    folder = _folder(_two_files(world))
    shutil.copyfile(folder / "part-00000.parquet", folder / "part-00099.parquet")


@_CORRUPTIONS.breaks("shard_rows")
def a_shard_that_reports_other_rows(world: ScoredWorld) -> None:
    shard = _shards(world, _two_files(world))[0]
    _respec(world, shard, result={**shard.result, "rows_in": 11})


@_CORRUPTIONS.breaks("shard_rows")
def a_shard_that_reports_another_part(world: ScoredWorld) -> None:
    shard = _shards(world, _two_files(world))[0]
    part = {**shard.result["part"], "sha256": "0" * 64}
    _respec(world, shard, result={**shard.result, "part": part})


@_CORRUPTIONS.breaks("shard_ranges")
def a_row_group_in_two_shards(world: ScoredWorld) -> None:
    first, second, *_ = _shards(world, _two_files(world))
    both = [*second.spec["ranges"], *first.spec["ranges"]]
    _respec(world, second, spec={**second.spec, "ranges": both})


@_CORRUPTIONS.breaks("shard_ranges")
def a_row_group_in_no_shard(world: ScoredWorld) -> None:
    shard = _shards(world, _two_files(world))[0]
    _respec(world, shard, spec={**shard.spec, "ranges": []})


@_CORRUPTIONS.breaks("quarantine")
def a_partial_result_that_does_not_say_so(world: ScoredWorld) -> None:
    run = _two_files(world)
    _rewrite(world, run, replace(_manifest(run), complete=True))


@_CORRUPTIONS.breaks("quarantine")
def a_ledger_that_does_not_know_what_was_quarantined(world: ScoredWorld) -> None:
    run = _two_files(world)
    world.change(sa.update(runs).where(runs.c.id == run.id).values(num_quarantined=0))


@_CORRUPTIONS.breaks("quarantine")
def a_sound_row_group_left_out(world: ScoredWorld) -> None:
    run = _two_files(world)
    manifest = _manifest(run)
    whole, lost = manifest.quarantined
    _rewrite(world, run, replace(manifest, quarantined=(whole, replace(lost, row_group=0))))


@_CORRUPTIONS.breaks("manifest_orphan")
def a_manifest_of_a_run_that_failed(world: ScoredWorld) -> None:
    (run,) = world.runs("FAILED")
    _folder(run).mkdir(parents=True)
    (_folder(run) / MANIFEST_KEY).write_bytes(b"{}")


@pytest.mark.parametrize(("check", "corrupt"), _CORRUPTIONS, ids=_CORRUPTIONS.ids)
def test_what_is_broken_is_named(world: ScoredWorld, check: str, corrupt: Corruption) -> None:
    corrupt(world)
    report = world.audit(deep=True)
    assert {violation.check for violation in report.violations} == {check}
    assert not report.ok
    assert report.unknown == ()


def test_an_output_that_cannot_be_reached_is_named(world: ScoredWorld) -> None:
    run = _two_files(world)
    world.change(
        sa.update(runs).where(runs.c.id == run.id).values(output_uri="s3://gone/out/"),
    )
    nobody = {"s3_endpoint": "http://127.0.0.1:1", "s3_access_key_id": "k"}
    report = world.audit(deep=True, **nobody, s3_secret_access_key="s")
    assert [violation.check for violation in report.violations] == ["output_store"]
    assert "s3://gone/out/" in report.violations[0].expected


def test_a_model_artifact_has_the_digest_by_which_it_is_known(world: ScoredWorld) -> None:
    store = open_store(world.settings.effective_store_url, world.settings)
    info = store.put("models/m.ubj", b"trees", overwrite=True)
    now = clock.utc_now()
    version = {
        "model_id": "model_1", "version": 1, "digest": digest(b"trees"), "flavor": "xgboost",
        "signature": {}, "uri": info.uri, "size_bytes": 5, "trusted": False, "created_at": now,
    }  # fmt: skip
    world.change(
        sa.insert(models).values(id="model_1", name="m", created_at=now),
        sa.insert(model_versions).values(**version),
    )
    report = world.audit(deep=True)
    assert (report.ok, report.checked["model_artifact"]) == (True, 1)
    store.put("models/m.ubj", b"other trees", overwrite=True)
    assert world.broken(deep=True) == {"model_artifact"}
    store.delete("models/m.ubj")
    assert world.broken(deep=True) == {"model_artifact"}
    assert world.broken(deep=False) == set()


def test_outputs_in_s3_are_read_too(
    sqlite_database: Database, settings: Settings, bus_url: str, s3_server: str, tmp_path: Path
) -> None:
    changes = {
        "database_url": sqlite_database.url,
        "redis_url": bus_url,
        "s3_endpoint": s3_server,
        "s3_access_key_id": "k",
        "s3_secret_access_key": "s",
    }
    settings = settings.model_copy(update=changes)
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="audited")
    world = ScoredWorld(sqlite_database, settings, tmp_path, output="s3://audited/out/")
    world.fill()
    report = world.audit(deep=True)
    assert (report.ok, report.unknown) == (True, ())
    assert report.checked["part_object"] == 2
    key = f"out/{_two_files(world).id}/part-00001.parquet"
    client.put_object(Bucket="audited", Key=key, Body=b"something else")
    assert world.broken(deep=True) == {"part_object"}
    client.delete_object(Bucket="audited", Key=key)
    assert world.broken(deep=True) == {"part_object"}
    world.bus.close()
    client.close()


def test_a_shallow_audit_reads_no_output(world: ScoredWorld) -> None:
    a_part_deleted(world)
    report = world.audit(deep=False)
    assert report.ok
    assert "part_object" not in report.checked


def _unknown(report: AuditReport) -> set[tuple[str, str]]:
    return {(unknown.check, unknown.reason) for unknown in report.unknown}


def test_an_input_that_changed_since_is_unknown(world: ScoredWorld) -> None:
    path = world.folder / "in" / "b.parquet"
    saved = path.read_bytes()
    try:
        write(path, numbers(7))
        report = world.audit(deep=True)
        assert report.ok
        assert {check for check, _ in _unknown(report)} == {"input_rows"}
        assert "other content than planned" in report.unknown[0].reason
        path.unlink()
        report = world.audit(deep=True)
        assert report.ok
        assert report.num_unknown == {"input_rows": 1}
    finally:
        path.write_bytes(saved)
    # from here on it has another identity, whatever its content
    assert world.audit(deep=True).num_unknown == {"input_rows": 1}


def test_a_deleted_run_is_its_owners(world: ScoredWorld) -> None:
    run = _two_files(world)
    world.database.transact(lambda c: delete_run(world.database, c, run.id))
    shutil.rmtree(_folder(run))
    assert world.audit(deep=True).ok


def test_a_run_deleted_while_it_is_looked_at_is_no_violation(
    world: ScoredWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _two_files(world)
    read = objects.ObjectStore

    def deleting(url: str, settings: Any) -> read:
        if url == run.output_uri and _folder(run).exists():
            shutil.rmtree(_folder(run))
            world.database.transact(lambda c: delete_run(world.database, c, run.id))
        return objects.open_store(url, settings)

    monkeypatch.setattr("augury.monitoring.audit.outputs.open_store", deleting)
    report = world.audit(deep=True)
    assert report.ok
    assert not _folder(run).exists()


def test_readers_skip_names_with_an_underscore_and_so_does_audit(world: ScoredWorld) -> None:
    folder = _folder(_two_files(world)) / "_notes"
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(b"somebody's own")
    assert world.audit(deep=True).ok


def test_evidence_too_broken_to_look_at_is_a_finding_and_stops_nothing(
    world: ScoredWorld,
) -> None:
    shard = _shards(world, _two_files(world))[0]
    _respec(world, shard, result={**shard.result, "part": 7}, spec={"ranges": 7})
    report = world.audit(deep=True)
    assert {v.check for v in report.violations} == {"shard_rows", "shard_ranges"}
    assert all("TypeError" in violation.found for violation in report.violations)
