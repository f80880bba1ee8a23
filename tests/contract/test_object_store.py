"""What every object store promises: run over a local folder and over a real S3 server."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augury.errors import ConflictError, IdentityError, InvalidError, NotFoundError
from augury.ids import digest
from augury.settings import Settings
from augury.storage import s3_objects
from augury.storage.objects import ObjectStore, canonical_url, locate, open_store

_numbers = itertools.count()


def _bucket(s3_server: str) -> str:
    import boto3

    name = f"contract-{os.getpid()}-{next(_numbers)}"
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture(params=["local", "s3"])
def place(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[tuple[str, Settings]]:
    """A URL below which nothing is, and settings that reach it."""
    if request.param == "local":
        yield f"file://{tmp_path}/objects/deep/", settings
        return
    server = request.getfixturevalue("s3_server")
    reach = {
        "s3_endpoint": server,
        "s3_access_key_id": "test",
        "s3_secret_access_key": "test",
    }
    yield f"s3://{_bucket(server)}/objects/deep/", settings.model_copy(update=reach)


@pytest.fixture
def store(place: tuple[str, Settings]) -> ObjectStore:
    return open_store(*place)


def _keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


# --- writing --------------------------------------------------------------------------------------


def test_what_was_put_is_read_and_listed(store: ObjectStore) -> None:
    info = store.put("a/b.bin", b"hello")
    assert store.read("a/b.bin") == b"hello"
    assert list(store.list()) == [info] == [store.head("a/b.bin")]
    assert (info.key, info.size_bytes) == ("a/b.bin", 5)
    assert info.uri == store.uri("a/b.bin") == f"{store.url}a/b.bin"
    assert info.identity == f"{info.uri}#{info.tag}"
    assert info.modified_at.tzinfo is not None


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert _keys(store) == ["empty"]
    assert store.read("empty") == b""


def test_the_same_content_again_is_a_success_and_changes_nothing(store: ObjectStore) -> None:
    first = store.put("k", b"same")
    assert store.put("k", b"same") == first
    staged = store.stage("k")
    staged.write_bytes(b"same")
    assert store.put_file("k", staged) == first
    assert not staged.exists()
    assert list(store.list()) == [first]


def test_other_content_is_refused_with_both_digests(store: ObjectStore) -> None:
    first = store.put("k", b"first")
    with pytest.raises(ConflictError) as refused:
        store.put("k", b"zombie")
    assert refused.value.attributes["expected"] == digest(b"zombie")
    assert refused.value.attributes["found"] == digest(b"first")
    assert str(refused.value.attributes["found"]) in str(refused.value)
    staged = store.stage("k")
    staged.write_bytes(b"zombie")
    with pytest.raises(ConflictError):
        store.put_file("k", staged)
    assert store.head("k") == first
    assert store.read("k") == b"first"


def test_overwriting_is_possible_if_asked_for(store: ObjectStore) -> None:
    first = store.put("k", b"first")
    second = store.put("k", b"other", overwrite=True)
    assert store.read("k") == b"other"
    assert second.tag != first.tag
    assert list(store.list()) == [second]


def test_a_staged_file_is_nowhere_until_it_is_put(store: ObjectStore) -> None:
    staged = store.stage("folder/x.parquet")
    staged.write_bytes(b"content")
    assert _keys(store) == []
    info = store.put_file("folder/x.parquet", staged)
    assert list(store.list()) == [info]
    assert store.read("folder/x.parquet") == b"content"
    assert not staged.exists()


def test_a_large_file_is_put_create_only_too(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_objects, "LARGEST_SINGLE_PUT_BYTES", 1000)
    monkeypatch.setattr(s3_objects, "_PART_BYTES", 5 * 2**20)
    content = os.urandom(11 * 2**20)

    def put(data: bytes) -> None:
        staged = store.stage("big")
        staged.write_bytes(data)
        store.put_file("big", staged)

    put(content)
    put(content)
    with pytest.raises(ConflictError):
        put(content[::-1])
    assert store.read("big") == content
    assert store.sweep_stages(older_than_s=-60) <= 1, "only the refused file may be left"
    assert _keys(store) == ["big"]


def test_of_many_writers_at_once_one_wins_whole(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        barrier.wait()
        try:
            store.put("race", b"%d" % (number % 4) * 1000)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    content = store.read("race")
    winner = int(content[:1])
    assert content == b"%d" % winner * 1000
    assert [number % 4 for number in range(8) if won[number]] == [winner, winner]


def test_what_dead_writers_left_is_swept_by_age(store: ObjectStore) -> None:
    kept = store.put("a/kept", b"1")
    for name in ("a/x", "b/y"):
        store.stage(name).write_bytes(b"half")
    assert store.sweep_stages(older_than_s=3600) == 0
    assert store.sweep_stages(older_than_s=-60) == 2
    assert store.sweep_stages(older_than_s=-60) == 0
    assert list(store.list()) == [kept]


def test_deleting_twice_is_fine(store: ObjectStore) -> None:
    store.put("folder/k", b"1")
    store.delete("folder/k")
    store.delete("folder/k")
    store.delete("never/was")
    assert _keys(store) == []
    store.put("folder/k", b"2")
    assert store.read("folder/k") == b"2"


# --- listing and looking --------------------------------------------------------------------------


def test_listing_is_in_order_of_key(store: ObjectStore) -> None:
    keys = ["a", "a-b", "a/b/c", "a/b-c", "a0", "b/.hidden", "b/_x", "é", "z z", "~"]
    for key in reversed([k for k in keys if k != "a"]):
        store.put(key, b"1")
    assert _keys(store) == sorted(k for k in keys if k != "a")
    assert _keys(store) == sorted(_keys(store), key=str.encode)


def test_a_prefix_is_a_folder(store: ObjectStore) -> None:
    for key in ("data/x", "data/y/z", "database/x", "dat"):
        store.put(key, b"1")
    assert _keys(store, "data") == _keys(store, "data/") == ["data/x", "data/y/z"]
    assert _keys(store, "data/x") == []
    assert _keys(store, "nowhere/at/all") == []


def test_a_store_that_is_not_there_holds_nothing(store: ObjectStore) -> None:
    assert _keys(store) == []
    with pytest.raises(NotFoundError, match=r"no object .*/k"):
        store.head("k")
    with pytest.raises(NotFoundError):
        store.read("k")
    with pytest.raises(NotFoundError):
        store.open("k")


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    store.put("folder/k", b"1")
    with pytest.raises(NotFoundError):
        store.head("folder")
    with pytest.raises(NotFoundError):
        store.read("folder")
    store.delete("folder")
    assert store.read("folder/k") == b"1"


@pytest.mark.parametrize(
    "key",
    ["sp ace", "h#ash", "p%20ct", "pl+us", "q?m", "br[1]", "a=b/c=é", "st*r", "c:n", 'q"t\''],
)  # fmt: skip
def test_keys_are_taken_literally(place: tuple[str, Settings], key: str) -> None:
    store = open_store(*place)
    info = store.put(key, b"1")
    assert _keys(store) == [key]
    assert store.read(key) == b"1"
    found, inner = locate(info.uri, place[1])
    assert found.head(inner).identity == info.identity


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", ".", "a/", "nul\x00"]
)
def test_keys_that_lead_elsewhere_are_refused(store: ObjectStore, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b"1"),
        lambda: store.read(key),
        lambda: store.head(key),
        lambda: store.open(key),
        lambda: store.delete(key),
        lambda: store.stage(key),
    ]
    for call in calls:
        with pytest.raises(InvalidError, match="relative to the store"):
            call()
    if key not in {"", "a/"}:
        with pytest.raises(InvalidError):
            list(store.list(key))


# --- identity -------------------------------------------------------------------------------------


def test_reading_what_was_replaced_names_both(store: ObjectStore) -> None:
    first = store.put("k", b"first")
    second = store.put("k", b"other", overwrite=True)
    reads: list[Callable[[], object]] = [
        lambda: store.read("k", tag=first.tag),
        lambda: store.open("k", tag=first.tag),
    ]
    for read in reads:
        with pytest.raises(IdentityError) as refused:
            read()
        assert refused.value.attributes["expected"] == first.tag
        assert refused.value.attributes["found"] == second.tag
        assert second.uri in str(refused.value)
    assert store.read("k", tag=second.tag) == b"other"


def test_an_open_object_tells_whether_it_stayed_itself(store: ObjectStore) -> None:
    info = store.put("k", b"first")
    with store.open("k", tag=info.tag) as opened:
        assert opened.info == info
        assert opened.read(3) == b"fir"
        opened.verify()
        store.put("k", b"other", overwrite=True)
        with pytest.raises(IdentityError):
            opened.verify()
        store.delete("k")
        with pytest.raises(NotFoundError):
            opened.verify()


def test_random_access(store: ObjectStore) -> None:
    content = bytes(range(256)) * 40
    store.put("k", content)
    with store.open("k") as opened:
        assert opened.size() == len(content)
        opened.seek(-6, 2)
        assert opened.tell() == len(content) - 6
        assert opened.read() == content[-6:]
        assert opened.read(10) == b""
        opened.seek(1000)
        assert opened.read(500) == content[1000:1500]


def test_pyarrow_reads_parquet_from_it(store: ObjectStore) -> None:
    table = pa.table({"x": list(range(1000)), "y": [f"row {i}" for i in range(1000)]})
    staged = store.stage("t.parquet")
    pq.write_table(table, staged, row_group_size=100)
    store.put_file("t.parquet", staged)
    with store.open("t.parquet") as opened:
        file = pq.ParquetFile(opened, pre_buffer=True)
        assert file.metadata.num_row_groups == 10
        assert file.read_row_groups([3, 7], columns=["y"]).num_rows == 200
        assert file.read().equals(table)
        opened.verify()


# --- addresses ------------------------------------------------------------------------------------


def test_a_store_is_found_from_an_object_or_a_prefix(place: tuple[str, Settings]) -> None:
    url, settings = place
    store = open_store(url, settings)
    info = store.put("a/b/c", b"1")
    for uri in (info.uri, store.uri("a/b/"), store.url):
        found, key = locate(uri, settings)
        assert found.uri(key) == uri
        again, _ = locate(uri, settings)
        assert again is found
    found, key = locate(store.uri("a/b/"), settings)
    assert [other.uri for other in found.list(key)] == [info.uri]


def test_urls_have_one_form(place: tuple[str, Settings]) -> None:
    url, settings = place
    assert open_store(url.removesuffix("/"), settings).url == url == open_store(url, settings).url
    assert canonical_url(url) == url
