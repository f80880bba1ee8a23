"""The local store where a disk, a crash or a folder's other users play it foul."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from augury import clock
from augury.errors import (
    ConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    UnavailableError,
)
from augury.settings import Settings
from augury.storage import files, local_objects
from augury.storage.local_objects import LocalObjectStore
from augury.storage.objects import canonical_url, is_stage, locate, open_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path) -> LocalObjectStore:
    return LocalObjectStore(str(root))


def left(root: Path) -> list[str]:
    """Every file there is, ours included."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


# --- no space left --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount; the quota's test covers the same code")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    store = LocalObjectStore(str(small_disk))
    kept = store.put("kept", b"1")
    with pytest.raises(LimitError, match=r"no space left for file://.*/big"):
        store.put("big", b"x" * 2**21)
    assert left(small_disk) == ["kept"]
    staged = store.stage("huge")
    with pytest.raises(OSError, match="No space left"):
        staged.write_bytes(b"x" * 2**21)
    staged.unlink()
    store.put("fits", b"x" * 2**19)
    assert [info.key for info in store.list()] == ["fits", "kept"]
    assert store.head("kept") == kept


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_quota_is_said_and_leaves_nothing(store: LocalObjectStore, root: Path) -> None:
    with largest_file(4096), pytest.raises(LimitError, match="no space left"):
        store.put("a/big", b"x" * 10_000)
    assert left(root) == []
    store.put("a/big", b"x" * 10_000)


# --- crashes --------------------------------------------------------------------------------------

_DIES_AT = """
import os, sys
from augury.storage import files, local_objects
from augury.storage.local_objects import LocalObjectStore

step, root = sys.argv[1:]

def dies(*_):
    os._exit(9)

if step == "sync":
    local_objects.sync = dies
elif step == "rename":
    local_objects.rename_exclusive = dies
elif step == "renamed":
    real = local_objects.rename_exclusive
    local_objects.rename_exclusive = lambda old, new: (real(old, new), os._exit(9))
elif step == "linked":
    files._native = lambda: None
    files.Path.unlink = dies
LocalObjectStore(root).put("folder/k", b"whole content")
os._exit(0)
"""


@pytest.mark.parametrize(
    ("step", "is_there"), [("sync", False), ("rename", False), ("renamed", True), ("linked", True)]
)
def test_a_crash_leaves_the_object_whole_or_absent(
    store: LocalObjectStore, root: Path, step: str, is_there: bool
) -> None:
    died = subprocess.run([sys.executable, "-c", _DIES_AT, step, str(root)], check=False)
    assert died.returncode == 9
    assert [info.key for info in store.list()] == (["folder/k"] if is_there else [])
    store.put("folder/k", b"whole content")
    assert store.read("folder/k") == b"whole content"
    hidden = [name for name in left(root) if is_stage(name)]
    assert len(hidden) == (0 if step == "renamed" else 1)
    assert store.sweep_stages(older_than_s=-60) == len(hidden)
    assert left(root) == ["folder/k"]


def test_what_is_put_is_brought_to_disk_before_and_after_it_shows(
    store: LocalObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, bool]] = []

    def note(path: Path) -> None:
        kind = "folder" if path.is_dir() else "file"
        steps.append((f"{kind} {path.name if kind == 'folder' else ''}".strip(), there()))

    def there() -> bool:
        return (root / "a/k").exists()

    monkeypatch.setattr(local_objects, "sync", note)
    monkeypatch.setattr(files, "sync", note)
    store.put("a/k", b"1")
    assert steps == [
        (f"folder {root.parent.name}", False),  # which now holds the root
        (f"folder {root.name}", False),
        ("file", False),
        ("folder a", True),
    ]


def test_a_file_system_without_exclusive_rename_works_too(
    store: LocalObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_native", lambda: None)
    first = store.put("k", b"1")
    assert store.put("k", b"1") == first
    with pytest.raises(ConflictError):
        store.put("k", b"2")
    assert left(root) == ["k"]


def test_a_file_of_another_file_system_is_copied(
    store: LocalObjectStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"content")
    real = files.rename_exclusive

    def across(source: Path, target: Path) -> None:
        if source == elsewhere:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(local_objects, "rename_exclusive", across)
    store.put_file("k", elsewhere)
    assert store.read("k") == b"content"
    assert left(root) == ["k"]
    assert not elsewhere.exists()


def test_young_stages_are_left_to_their_writers(store: LocalObjectStore) -> None:
    old, young = store.stage("a/old"), store.stage("a/young")
    old.write_bytes(b"1")
    young.write_bytes(b"1")
    an_hour_ago = clock.utc_now().timestamp() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert store.sweep_stages(older_than_s=600) == 1
    assert young.exists()


# --- what is in the way ---------------------------------------------------------------------------


def test_a_file_where_a_folder_is_needed(store: LocalObjectStore) -> None:
    store.put("a", b"1")
    with pytest.raises(ConflictError, match="a file stands where"):
        store.put("a/b", b"1")
    with pytest.raises(NotFoundError):
        store.head("a/b")
    assert [info.key for info in store.list("a")] == []
    store.delete("a/b")


def test_a_folder_where_an_object_is_put(store: LocalObjectStore) -> None:
    store.put("a/b", b"1")
    for overwrite in (False, True):
        with pytest.raises(ConflictError, match="is a folder"):
            store.put("a", b"1", overwrite=overwrite)


def test_names_that_no_file_can_have(store: LocalObjectStore) -> None:
    with pytest.raises(InvalidError, match="cannot be a file here"):
        store.put("x" * 300, b"1")
    with pytest.raises(InvalidError, match="at most 1024 bytes"):
        store.put("x/" * 600 + "x", b"1")


def test_a_store_without_permission_is_unavailable(
    store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("k", b"1")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refused)  # root may everything, so it is said for it
        with pytest.raises(UnavailableError, match="cannot be used: Permission denied"):
            store.head("k")
        with pytest.raises(UnavailableError, match="Permission denied"):
            list(store.list())


# --- listing --------------------------------------------------------------------------------------


def test_links_are_followed_and_loops_are_not(store: LocalObjectStore, root: Path) -> None:
    store.put("real/x", b"1")
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "y").write_bytes(b"22")
    (root / "linked").symlink_to(outside)
    (root / "real" / "loop").symlink_to(root)
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "file").symlink_to(outside / "y")
    assert [info.key for info in store.list()] == ["file", "linked/y", "real/x"]
    assert store.head("file").size_bytes == 2


def test_what_is_no_file_is_not_listed(store: LocalObjectStore, root: Path) -> None:
    store.put("k", b"1")
    os.mkfifo(root / "pipe")
    assert [info.key for info in store.list()] == ["k"]
    with pytest.raises(NotFoundError):
        store.read("pipe")
    with pytest.raises(NotFoundError):
        store.open("pipe")


def test_a_name_that_is_not_utf8_is_said(
    store: LocalObjectStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("k", b"1")
    (root / os.fsdecode(b"bad\xff.parquet")).write_bytes(b"1")
    assert [info.key for info in store.list()] == ["k"]
    assert "not UTF-8" in caplog.text


def test_a_folder_that_vanishes_while_it_is_listed(store: LocalObjectStore, root: Path) -> None:
    for key in ("a/1", "b/1", "c/1"):
        store.put(key, b"1")
    listing = store.list()
    assert next(listing).key == "a/1"
    shutil.rmtree(root / "b")
    assert [info.key for info in listing] == ["c/1"]


# --- addresses ------------------------------------------------------------------------------------


def test_paths_are_made_absolute(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("data/in", settings).url == f"file://{tmp_path}/data/in/"
    assert canonical_url("data/../in/") == f"file://{tmp_path}/in/"
    assert canonical_url(f"file://{tmp_path}/a b%20#x") == f"file://{tmp_path}/a b%20#x"
    assert canonical_url("s3://bucket") == "s3://bucket/"


def test_a_local_folder_is_a_prefix(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"1")
    store, key = locate(str(tmp_path / "data"), settings)
    assert (store.url, key) == (f"file://{tmp_path}/data/", "")
    store, key = locate(f"file://{tmp_path}/data/x", settings)
    assert (store.url, key) == (f"file://{tmp_path}/data/", "x")


def test_stores_of_other_settings_are_others(settings: Settings, tmp_path: Path) -> None:
    here, _ = locate("s3://bucket/x", settings)
    assert locate("s3://bucket/y", settings.model_copy())[0] is here
    elsewhere = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1"})
    assert locate("s3://bucket/x", elsewhere)[0] is not here


@pytest.mark.parametrize(
    "url", ["", "gs://bucket/x", "file://relative/x", "file://", "s3://", "s3:///x", "http://x/y"]
)
def test_other_addresses_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(InvalidError, match="expected"):
        open_store(url, settings)
    with pytest.raises(InvalidError, match="expected"):
        locate(url, settings)
