"""The S3 store where the server, the bucket or its other users play it foul."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from augury.errors import InvalidError, NotFoundError, UnavailableError
from augury.settings import Settings
from augury.storage import s3_objects
from augury.storage.objects import ObjectStore, open_store

_numbers = itertools.count()


@pytest.fixture
def s3_settings(settings: Settings, s3_server: str) -> Settings:
    return settings.model_copy(
        update={
            "s3_endpoint": s3_server,
            "s3_access_key_id": "test",
            "s3_secret_access_key": "test",
        }
    )


@pytest.fixture
def client(s3_server: str) -> Iterator[Any]:
    import boto3

    made = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield made
    made.close()


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"foul-{os.getpid()}-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(bucket: str, s3_settings: Settings) -> ObjectStore:
    return open_store(f"s3://{bucket}/in/", s3_settings)


def test_a_server_that_is_not_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(s3_objects._RETRY, "max_retries", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        nowhere = settings.model_copy(
            update={"s3_endpoint": url, "s3_access_key_id": "t", "s3_secret_access_key": "t"}
        )
        store = open_store("s3://bucket/in/", nowhere)
        for call in (
            lambda: list(store.list()),
            lambda: store.head("k"),
            lambda: store.read("k"),
            lambda: store.put("k", b"1"),
            lambda: store.delete("k"),
        ):
            with pytest.raises(UnavailableError, match=r"s3://bucket/in/.* did not answer") as said:
                call()
            assert "Debug source" not in str(said.value)


def test_a_bucket_that_is_not_there(s3_settings: Settings) -> None:
    store = open_store("s3://no-such-bucket/in/", s3_settings)
    for call in (lambda: list(store.list()), lambda: store.put("k", b"1")):
        with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'"):
            call()
    with pytest.raises(NotFoundError):
        store.head("k")


def test_a_consoles_mark_of_a_folder_is_no_object(
    store: ObjectStore, client: Any, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="in/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="in/", Body=b"")
    empty = store.put("folder/empty", b"")
    assert list(store.list()) == [empty]


def test_neighbours_of_the_prefix_are_not_seen(
    store: ObjectStore, client: Any, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="in2/x", Body=b"1")
    client.put_object(Bucket=bucket, Key="in", Body=b"1")
    assert list(store.list()) == []


def test_a_key_that_cannot_be_told_is_named(store: ObjectStore, client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="in/a//b", Body=b"1")
    with pytest.raises(InvalidError, match="empty path segment"):
        list(store.list())


def test_an_upload_that_failed_half_way_shows_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_objects, "LARGEST_SINGLE_PUT_BYTES", 10)

    def fails(*_: object, **__: object) -> None:
        raise OSError("the network went away")

    monkeypatch.setattr(s3_objects.obstore, "copy", fails)
    staged = store.stage("big")
    staged.write_bytes(b"x" * 1000)
    with pytest.raises(UnavailableError, match="the network went away"):
        store.put_file("big", staged)
    assert list(store.list()) == []
    assert staged.exists()
    monkeypatch.undo()
    assert store.put_file("big", staged).size_bytes == 1000


def test_one_store_serves_many_threads(store: ObjectStore) -> None:
    faults: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                store.put(f"{number}/{turn}", b"%d" % number)
                assert store.read(f"{number}/{turn}") == b"%d" % number
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(list(store.list())) == 30
