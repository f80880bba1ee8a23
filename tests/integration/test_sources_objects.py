"""What an object watcher announces, when, and that it does so once."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sources_world import SourcesWorld, parquet, wait_until

from augury import clock
from augury.errors import UnavailableError
from augury.resources.store import Kind
from augury.settings import Settings
from augury.sources import announce, watcher
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.local_objects import LocalObjectStore
from augury.storage.objects import ObjectStore, open_store


@pytest.fixture
def world(database: Database, live_settings: Settings) -> Iterator[SourcesWorld]:
    world = SourcesWorld(database, live_settings)
    yield world
    world.bus.close()


@pytest.fixture
def lone(sqlite_database: Database, settings: Settings, bus_url: str) -> Iterator[SourcesWorld]:
    """The same on SQLite only, for what does not depend on the database."""
    world = SourcesWorld(
        sqlite_database,
        settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url}),
    )
    yield world
    world.bus.close()


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


# --- what the listing finds -----------------------------------------------------------------------


def test_what_is_there_is_announced_once(world: SourcesWorld, landing: Path) -> None:
    parquet(landing / "a.parquet")
    parquet(landing / "2026" / "b.parquet")
    source = world.source(landing)
    assert world.watcher(source).reconcile() == 2
    first, second = world.emitted()
    assert first["type"] == "augury.object.created"
    assert first["source"] == "augury/sources/landing"
    assert (first["subject"], second["subject"]) == ("2026/b.parquet", "a.parquet")
    path = landing / "a.parquet"
    found = path.stat()
    tag = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"
    assert second["data"] == {
        "source": "landing",
        "bucket": str(landing),
        "key": "a.parquet",
        "uri": f"file://{path}",
        "size_bytes": found.st_size,
        "tag": tag,
        "identity": f"file://{path}#{tag}",
        "event_time": second["data"]["event_time"],
    }
    assert clock.parse(second["data"]["event_time"]).timestamp() == pytest.approx(found.st_mtime)
    assert [event["id"] for event in world.on_bus()] == [first["id"], second["id"]]
    for again in (world.watcher(source), world.watcher(source)):
        assert again.reconcile() == 0
        assert again.reconcile() == 0


def test_new_content_is_an_update_with_a_new_identity(world: SourcesWorld, landing: Path) -> None:
    parquet(landing / "a.parquet", 1)
    watches = world.watcher(world.source(landing))
    watches.reconcile()
    parquet(landing / "a.parquet", 2)
    assert watches.reconcile() == 1
    assert watches.reconcile() == 0
    assert world.told() == [("created", "a.parquet"), ("updated", "a.parquet")]
    first, second = world.emitted()
    assert first["id"] != second["id"]
    assert first["data"]["identity"] != second["data"]["identity"]


def test_an_object_that_went_and_came_again_is_an_update(lone: SourcesWorld, landing: Path) -> None:
    parquet(landing / "a.parquet")
    watches = lone.watcher(lone.source(landing))
    watches.reconcile()
    (landing / "a.parquet").unlink()
    assert watches.reconcile() == 0
    parquet(landing / "a.parquet")
    assert watches.reconcile() == 1
    assert lone.told() == [("created", "a.parquet"), ("updated", "a.parquet")]


def test_what_is_not_meant_is_not_announced(lone: SourcesWorld, landing: Path) -> None:
    for key in ("in/a.parquet", "in/_tmp/a.parquet", ".a.parquet", "in/old/a.parquet", "b.parquet"):
        parquet(landing / key)
    lone.source(landing, include=["in/**"], exclude=["**/old/*"])
    assert lone.watcher().reconcile() == 1
    assert lone.told() == [("created", "in/a.parquet")]
    assert list(lone.states()) == ["in/a.parquet"]


def test_only_the_events_that_are_wanted(lone: SourcesWorld, landing: Path) -> None:
    parquet(landing / "a.parquet", 1)
    watches = lone.watcher(lone.source(landing, events=["updated"]))
    assert watches.reconcile() == 0
    parquet(landing / "a.parquet", 2)
    assert watches.reconcile() == 1
    assert lone.told() == [("updated", "a.parquet")]


def test_many_objects_are_announced_in_short_transactions(
    lone: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(450):
        (landing / f"{number:03}.csv").write_bytes(b"x")
        os.utime(landing / f"{number:03}.csv", (1, 1))
    sizes: list[int] = []
    real = announce.announce

    def counted(database: Any, source: Any, spec: Any, found: Any) -> int:
        sizes.append(len(found))
        return real(database, source, spec, found)

    monkeypatch.setattr(watcher.announce, "announce", counted)
    assert lone.watcher(lone.source(landing)).reconcile() == 450
    assert sizes == [200, 200, 50]
    assert [key for _, key in lone.told()] == [f"{number:03}.csv" for number in range(450)]


def test_a_source_that_was_dropped_announces_nothing_more(
    lone: SourcesWorld, landing: Path
) -> None:
    watches = lone.watcher(lone.source(landing))
    parquet(landing / "a.parquet")
    lone.drop_source()
    assert watches.reconcile() == 0
    assert lone.emitted() == []


# --- completeness ---------------------------------------------------------------------------------


def test_a_file_without_footer_waits_until_it_is_complete(
    world: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "_TELL_AFTER_S", 0.0)
    whole = parquet(landing.parent / "x" / "whole.parquet", 1000).read_bytes()
    growing = landing / "a.parquet"
    watches = world.watcher(world.source(landing))
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        growing.write_bytes(whole[:length])
        assert watches.reconcile() == 0
        assert world.states() == {"a.parquet": "PENDING"}
    assert world.watcher().reconcile() == 0, "another process thinks so, too"
    growing.write_bytes(whole)
    assert watches.reconcile() == 1
    assert world.states() == {"a.parquet": "ANNOUNCED"}
    growing.write_bytes(whole[:1000])
    assert watches.reconcile() == 0
    assert world.states() == {"a.parquet": "PENDING_UPDATE"}
    growing.write_bytes(whole)
    assert watches.reconcile() == 1
    assert world.told() == [("created", "a.parquet"), ("updated", "a.parquet")]


def test_a_file_that_ends_like_parquet_and_is_none_waits(lone: SourcesWorld, landing: Path) -> None:
    (landing / "a.parquet").write_bytes(b"PAR1" + b"\x15" * 40 + b"\x20\x00\x00\x00PAR1")
    (landing / "b.parquet").write_bytes(b"PAR1" + b"\xff\xff\xff\x7fPAR1")
    assert lone.watcher(lone.source(landing)).reconcile() == 0


def test_an_incomplete_file_that_goes_is_forgotten(
    world: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "_TELL_AFTER_S", 0.0)
    whole = parquet(landing / "was.parquet")
    watches = world.watcher(world.source(landing))
    watches.reconcile()
    (landing / "new.parquet").write_bytes(b"half")
    whole.write_bytes(b"half")
    watches.reconcile()
    assert world.states() == {"new.parquet": "PENDING", "was.parquet": "PENDING_UPDATE"}
    (landing / "new.parquet").unlink()
    whole.unlink()
    heir = world.watcher()
    assert heir.reconcile() == 0
    assert world.states() == {"was.parquet": "ANNOUNCED"}


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(
    lone: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalObjectStore.open

    def refused(self: LocalObjectStore, key: str, *, tag: str | None = None) -> Any:
        if key == "a.parquet":  # root may read everything, so it is said for it
            raise UnavailableError("Permission denied")
        return real(self, key, tag=tag)

    monkeypatch.setattr(LocalObjectStore, "open", refused)
    for name in ("a", "b"):
        parquet(landing / f"{name}.parquet")
    watches = lone.watcher(lone.source(landing))
    assert watches.reconcile() == 1
    assert lone.told() == [("created", "b.parquet")]
    monkeypatch.undo()
    assert watches.reconcile() == 1


def test_one_that_stays_incomplete_is_said(
    lone: SourcesWorld,
    landing: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher, "_WARN_AFTER_S", 0.0)
    (landing / "a.parquet").write_bytes(b"never complete")
    watches = lone.watcher(lone.source(landing))
    watches.reconcile()
    watches.reconcile()
    said = [r.message for r in caplog.records if "ends in a Parquet footer" in r.message]
    assert len(said) == 1
    assert f"file://{landing}/a.parquet is incomplete" in said[0]


def test_other_files_are_complete_after_a_quiet_time(lone: SourcesWorld, landing: Path) -> None:
    lone.settings = lone.settings.model_copy(update={"quiet_s": 0.4, "list_s": 60.0})
    watches = lone.watcher(lone.source(landing))
    path = landing / "a.csv"
    path.write_bytes(b"1")
    began_s = clock.monotonic_s()
    assert watches.step() == 0, "this one lists"
    path.write_bytes(b"1,2")
    wait_until(lambda: watches.step(0.1))
    assert clock.monotonic_s() - began_s >= 0.4
    assert lone.emitted()[0]["data"]["size_bytes"] == 3
    watches.close()


def test_an_old_file_needs_no_quiet_time(lone: SourcesWorld, landing: Path) -> None:
    lone.settings = lone.settings.model_copy(update={"quiet_s": 60.0})
    (landing / "a.csv").write_bytes(b"1")
    os.utime(landing / "a.csv", (1_000_000_000, 1_000_000_000))
    (landing / "b.csv").write_bytes(b"1")
    assert lone.watcher(lone.source(landing)).reconcile() == 1
    assert lone.told() == [("created", "a.csv")]


# --- while it runs --------------------------------------------------------------------------------


def test_a_file_is_on_the_bus_long_before_the_next_listing(
    world: SourcesWorld, landing: Path
) -> None:
    world.source(landing)
    with world.running(list_s=600.0):
        wait_until(lambda: world.states() == {} and any_thread("source landing"))
        for number in range(3):
            parquet(landing / "deep" / "er" / f"{number}.parquet")
            wait_until(lambda count=number + 1: len(world.on_bus()) == count)
        moved = landing.parent / "moved"
        parquet(moved / "in" / "x.parquet")
        moved.rename(landing / "moved")
        wait_until(lambda: len(world.on_bus()) == 4)
    assert world.told()[-1] == ("created", "moved/in/x.parquet")
    assert len(world.emitted()) == 4


def any_thread(name: str) -> bool:
    return any(name in thread.name for thread in threading.enumerate())


def test_listing_is_the_safety_net(
    lone: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "FolderNews", _Silent)
    lone.source(landing, list_s=0.2)
    with lone.running():
        parquet(landing / "a.parquet")
        wait_until(lambda: lone.told() == [("created", "a.parquet")])
        parquet(landing / "b.parquet")
        wait_until(lambda: lone.told() == [("created", "a.parquet"), ("created", "b.parquet")])


class _Silent:
    def __init__(self, *_: object) -> None:
        pass

    def is_current(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_a_folder_that_does_not_exist_is_made_and_said(
    lone: SourcesWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "not" / "yet"
    lone.source(folder)
    with lone.running(list_s=600.0):
        wait_until(folder.is_dir)
        parquet(folder / "a.parquet")
        wait_until(lambda: lone.told() == [("created", "a.parquet")])
        shutil.rmtree(folder)
        wait_until(folder.is_dir)
        parquet(folder / "b.parquet")
        wait_until(lambda: ("created", "b.parquet") in lone.told())
    assert f"made the folder {folder}" in caplog.text


def test_resources_are_picked_up_as_they_change(lone: SourcesWorld, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with lone.running(list_s=600.0):
        lone.source(first)
        wait_until(first.is_dir)
        parquet(first / "a.parquet")
        wait_until(lambda: lone.told() == [("created", "a.parquet")])
        lone.source(second)
        wait_until(second.is_dir)
        wait_until(lambda: sum_threads(f"watch {first}") == 0)
        parquet(first / "b.parquet")
        parquet(second / "c.parquet")
        wait_until(lambda: len(lone.told()) == 2)
        lone.source(second, enabled=False)
        wait_until(lambda: sum_threads("source landing") == 0)
        parquet(second / "d.parquet")
        lone.source(second)
        wait_until(lambda: len(lone.told()) == 3)
        lone.drop_source()
        wait_until(lambda: sum_threads("source landing") == 0)
    assert [key for _, key in lone.told()] == ["a.parquet", "c.parquet", "d.parquet"]


def sum_threads(name: str) -> int:
    return sum(name in thread.name for thread in threading.enumerate())


def test_a_source_that_cannot_be_reached_keeps_nobody_waiting(
    lone: SourcesWorld, landing: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"a file where a folder is needed")
    lone.source(blocked, name="broken")
    lone.source(landing)
    with lone.running():
        parquet(landing / "a.parquet")
        wait_until(lambda: lone.told() == [("created", "a.parquet")])
        wait_until(lambda: "source broken waits" in caplog.text)
        blocked.unlink()
        wait_until(blocked.is_dir)
        parquet(blocked / "b.parquet")
        wait_until(lambda: len(lone.told()) == 2)


def test_a_bus_that_does_not_answer_delays_and_loses_nothing(
    lone: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = lone.watcher(lone.source(landing))

    def refused(*_: object) -> None:
        raise UnavailableError("the bus is away")

    monkeypatch.setattr(lone.bus, "publish", refused)
    parquet(landing / "a.parquet")
    assert watches.reconcile() == 1
    assert lone.on_bus() == []
    monkeypatch.undo()
    parquet(landing / "b.parquet")
    assert watches.reconcile() == 1
    assert [event["data"]["key"] for event in lone.on_bus()] == ["a.parquet", "b.parquet"]


def test_a_fault_of_ours_does_not_silence_a_source(
    lone: SourcesWorld, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = announce.announce
    faults = iter([RuntimeError("a bug")])

    def faulty(*arguments: Any) -> int:
        for fault in faults:
            raise fault
        return real(*arguments)

    monkeypatch.setattr(watcher.announce, "announce", faulty)
    parquet(landing / "a.parquet")
    lone.source(landing)
    with lone.running():
        wait_until(lambda: lone.told() == [("created", "a.parquet")])


# --- several at once ------------------------------------------------------------------------------


def test_two_processes_neither_double_nor_lose(world: SourcesWorld, landing: Path) -> None:
    world.source(landing, list_s=0.2)
    with world.running(), world.running():
        for number in range(40):
            parquet(landing / f"{number % 20:02}.parquet", 1 + number // 20)
            if number % 20 == 19:
                wait_until(lambda count=number + 1: len(world.emitted()) >= count)
    told = world.told()
    assert sorted(told) == sorted(
        (what, f"{number:02}.parquet") for what in ("created", "updated") for number in range(20)
    )
    assert {(e["source"], e["id"]) for e in world.on_bus()} == {
        (e["source"], e["id"]) for e in world.emitted()
    }


def test_a_watcher_that_comes_late_takes_nothing_back(world: SourcesWorld, landing: Path) -> None:
    """Two see different contents of one key and both want to tell: each is told once."""
    source = world.source(landing)
    spec = watcher.SourceSpec.model_validate(source.spec)
    store = open_store(spec.uri, world.settings)
    parquet(landing / "a.parquet", 1)
    old = store.head("a.parquet")
    parquet(landing / "a.parquet", 2)
    new = store.head("a.parquet")
    assert announce.announce(world.database, source, spec, [new]) == 1
    assert announce.announce(world.database, source, spec, [new]) == 0
    announce.announce(world.database, source, spec, [old])
    assert world.watcher().reconcile() <= 1
    assert world.rows(tables.source_objects)[0].identity == new.identity
    ids = [event["id"] for event in world.emitted()]
    assert len(ids) == len(set(ids)) == 2


# --- S3 -------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(lone: SourcesWorld, s3_server: str) -> ObjectStore:
    import boto3

    reach = {"s3_endpoint": s3_server, "s3_access_key_id": "t", "s3_secret_access_key": "t"}
    lone.settings = lone.settings.model_copy(update=reach)
    name = f"sources-{lone.settings.namespace.replace('_', '-')}"
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="t",
        aws_secret_access_key="t",
    )
    client.create_bucket(Bucket=name)
    client.close()
    return open_store(f"s3://{name}/in/", lone.settings)


def test_a_bucket_is_watched_by_listing(lone: SourcesWorld, bucket: ObjectStore) -> None:
    lone.source(bucket.url, list_s=0.2)
    with lone.running():
        first = bucket.put("a.parquet", b"whole by itself, whatever it is")
        wait_until(lambda: lone.told() == [("created", "in/a.parquet")])
        bucket.put("b.csv", b"1")
        bucket.put("_b.csv", b"1")
        wait_until(lambda: len(lone.told()) == 2)
        second = bucket.put("a.parquet", b"other", overwrite=True)
        wait_until(lambda: len(lone.told()) == 3)
        bucket.put("b.csv", b"1", overwrite=True)  # the same content: no news
        bucket.put("c.csv", b"1")
        wait_until(lambda: len(lone.told()) == 4)
    assert lone.told()[1:] == [
        ("created", "in/b.csv"),
        ("updated", "in/a.parquet"),
        ("created", "in/c.csv"),
    ]
    created, _, updated, _ = lone.emitted()
    assert created["data"]["bucket"] == updated["data"]["bucket"] == bucket.url.split("/")[2]
    assert created["data"]["identity"] == first.identity
    assert updated["data"]["identity"] == second.identity


def test_a_bucket_that_is_missing_is_waited_for(
    lone: SourcesWorld, bucket: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    lone.source("s3://not-made-yet/", name="missing")
    lone.source(bucket.url, list_s=0.2)
    bucket.put("a", b"1")
    with lone.running():
        wait_until(lambda: lone.told() == [("created", "in/a")])
        wait_until(lambda: "no bucket 'not-made-yet'; create it" in caplog.text)
    assert lone.resource(Kind.SOURCE, "missing").enabled
