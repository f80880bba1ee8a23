"""`POST /v1/webhooks/{source}`: who may send, what it becomes, and that a lost one is found."""

from __future__ import annotations

import copy
import hashlib
import hmac
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import notifications as sent
import pytest
import sqlalchemy as sa
from api_world import Answer, Api, serve
from routing_world import WakeUps

from augury.resources import store
from augury.resources.store import Kind
from augury.routing.router import Router
from augury.settings import Settings
from augury.sources.watcher import ObjectWatcher
from augury.storage import tables
from augury.storage.database import Database

_numbers = itertools.count()
BEARER = {"Authorization": "Bearer open sesame"}


@contextmanager
def serving(settings: Settings, s3_server: str, **changes: Any) -> Iterator[Api]:
    s3 = {"s3_endpoint": s3_server, "s3_access_key_id": "t", "s3_secret_access_key": "t"}
    with serve(settings.model_copy(update={**s3, **changes})) as found:
        yield found


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_SECRET_UPLOADS", "open sesame")


@pytest.fixture
def api(
    sqlite_database: Database, settings: Settings, bus_url: str, s3_server: str
) -> Iterator[Api]:
    urls = {"database_url": sqlite_database.url, "redis_url": bus_url}
    with serving(settings, s3_server, **urls) as found:
        yield found


@pytest.fixture
def postgres_api(
    postgres_database: Database, settings: Settings, bus_url: str, s3_server: str
) -> Iterator[Api]:
    urls = {"database_url": postgres_database.url, "redis_url": bus_url}
    with serving(settings, s3_server, **urls) as found:
        yield found


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Any]:
    """A bucket of this test's own: put and delete by key."""
    import boto3

    keys = {"aws_access_key_id": "t", "aws_secret_access_key": "t"}
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1", **keys)
    name = f"hooked-{os.getpid()}-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    yield boto3.resource("s3", endpoint_url=s3_server, region_name="us-east-1", **keys).Bucket(name)
    client.close()


def hook(api: Api, name: str = "uploads", **fields: Any) -> None:
    spec = {"kind": "webhook", "secret": "UPLOADS", "signature": "token", **fields}
    assert api.request("PUT", f"/v1/sources/{name}", spec).status in {200, 201}


def send(api: Api, body: Any, name: str = "uploads", **headers: str) -> Answer:
    return api.request("POST", f"/v1/webhooks/{name}", body, **(headers or BEARER))


def about(bucket: Any, key: str, tag: str, *, at: str = "01", what: str = "Put") -> dict[str, Any]:
    """S3's notification about an object of the bucket."""
    document = copy.deepcopy(sent.S3)
    (record,) = document["Records"]
    record["s3"]["bucket"]["name"] = bucket.name
    record["s3"]["object"] |= {"key": key, "eTag": tag, "sequencer": at, "versionId": None}
    record["eventName"] = f"ObjectCreated:{what}" if what == "Put" else f"ObjectRemoved:{what}"
    record["eventTime"] = "2038-01-01T00:00:00.000Z"
    return document


def told(api: Api) -> list[tuple[str, str]]:
    """(what, key) of every object event on the bus."""
    return [(e["type"].rpartition(".")[2], e["data"]["key"]) for e in events(api, "augury.object")]


def events(api: Api, prefix: str) -> list[dict[str, Any]]:
    found = [msgspec.json.decode(entry.body) for entry in api.engine.bus.entries("", 10_000)]
    return [event for event in found if event["type"].startswith(prefix)]


def watcher(api: Api, name: str = "uploads") -> ObjectWatcher:
    with api.engine.database.read() as connection:
        source = store.get(connection, Kind.SOURCE, name)
    return ObjectWatcher(api.engine.database, api.engine.bus, api.engine.settings, source)


def route(api: Api) -> None:
    engine = api.engine
    router = Router(engine.database, engine.bus, WakeUps(), engine.settings)
    while router.step(block_s=0.05):
        pass


def test_a_notification_is_durable_when_it_is_answered(api: Api) -> None:
    hook(api, provider="s3")
    answer = send(api, sent.LAMBDA_SQS_SNS)
    assert answer.status == 202
    assert (answer.body["notices"], answer.body["passed"]) == ({"created": 1}, 0)
    (event,) = events(api, "augury.object")
    assert answer.body["ids"] == [event["id"]]
    assert event["source"] == "augury/sources/uploads"
    assert event["data"] == {
        "source": "uploads",
        "bucket": "landing",
        "key": "in/day one/café+1.parquet",
        "uri": "s3://landing/in/day one/café+1.parquet",
        "size_bytes": 1024,
        "tag": "d41d8cd98f00b204e9800998ecf8427e",
        "identity": "s3://landing/in/day one/café+1.parquet#d41d8cd98f00b204e9800998ecf8427e",
        "event_time": "2026-11-01T06:00:00.123000Z",
        "provider": "s3",
        "version": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
        "sequencer": "0055AED6DCD90281E5",
    }
    again = send(api, sent.S3)
    assert (again.status, again.body["notices"]) == (202, {"known": 1})
    assert len(events(api, "augury.object")) == 1


def test_one_notification_with_several_records_is_several_events(api: Api) -> None:
    hook(api, provider="s3")
    tagged = {**sent.S3_RECORD, "eventName": "ObjectTagging:Put"}
    body = {"Records": [sent.S3_RECORD, tagged, sent.S3_REMOVED["Records"][0]]}
    first, second = send(api, body), send(api, body)
    assert (first.body["notices"], first.body["passed"]) == ({"created": 1, "deleted": 1}, 1)
    assert told(api) == [("created", "in/day one/café+1.parquet"), ("deleted", "in/a.parquet")]
    assert second.body["notices"] == {"known": 2}
    route(api)
    passed = api.get("/v1/events?type=augury.webhook.received").body["items"]
    assert [event["duplicate_of"] is None for event in passed] == [False, True]
    assert [event["data"] for event in events(api, "augury.webhook")] == [tagged, tagged]


def test_what_is_late_is_told_as_that(api: Api, bucket: Any) -> None:
    hook(api, provider="s3")
    send(api, about(bucket, "k", "B", at="02"))
    late = send(api, about(bucket, "k", "A", at="01"))
    assert late.body["notices"] == {"superseded": 1}
    event = events(api, "augury.object.superseded")[0]
    assert event["data"]["identity"].endswith("#A")
    assert event["data"]["known"].endswith("#B")
    send(api, about(bucket, "k", "", at="03", what="Delete"))
    assert told(api) == [("created", "k"), ("superseded", "k"), ("deleted", "k")]
    send(api, about(bucket, "k", "B", at="04"))
    assert told(api)[-1] == ("created", "k")
    ids = [event["id"] for event in events(api, "augury.object")]
    assert len(set(ids)) == 4


def test_what_nobody_told_of_is_found_and_nothing_is_told_twice(api: Api, bucket: Any) -> None:
    hook(api, provider="s3", reconcile={"uri": f"s3://{bucket.name}/in/"})
    objects = {name: bucket.put_object(Key=f"in/{name}", Body=name.encode()) for name in "abc"}
    tag = {name: found.e_tag.strip('"') for name, found in objects.items()}
    send(api, about(bucket, "in/a", tag["a"]))
    looked = watcher(api)
    assert looked.reconcile() == 2
    assert sorted(told(api)) == [("created", "in/a"), ("created", "in/b"), ("created", "in/c")]
    assert send(api, about(bucket, "in/b", tag["b"])).body["notices"] == {"known": 1}
    assert looked.reconcile() == watcher(api).reconcile() == 0
    bucket.put_object(Key="in/c", Body=b"other")
    assert looked.reconcile() == 1
    assert told(api)[-1] == ("updated", "in/c")
    identities = [event["data"]["identity"] for event in events(api, "augury.object.created")]
    assert f"s3://{bucket.name}/in/b#{tag['b']}" in identities


def test_a_listing_does_not_speak_against_what_was_told_later(api: Api, bucket: Any) -> None:
    hook(api, provider="s3", reconcile={"uri": f"s3://{bucket.name}/in/"})
    put = bucket.put_object(Key="in/a", Body=b"a")
    send(api, about(bucket, "in/a", put.e_tag, what="Delete"))  # in 2038, by its own time
    assert watcher(api).reconcile() == 0
    assert told(api) == [("deleted", "in/a")]


def test_a_watcher_and_a_webhook_lead_to_one_run(api: Api, bucket: Any) -> None:
    hook(api, provider="s3")
    api.request("PUT", "/v1/sources/watched", {"uri": f"s3://{bucket.name}/in/"})
    api.request("PUT", "/v1/jobs/score", {"model": "m", "output": "/out"})
    start = {"actions": [{"start_run": {"job": "score"}}]}
    pattern = {"type": ["augury.object.created"], "data": {"bucket": [bucket.name]}}
    api.request("PUT", "/v1/rules/arrivals", {"pattern": pattern, **start})
    put = bucket.put_object(Key="in/a b.parquet", Body=b"a")
    send(api, about(bucket, "in/a+b.parquet", put.e_tag.strip('"')))
    assert watcher(api, "watched").reconcile() == 1
    api.engine.after_commit()
    route(api)
    outcomes = api.get("/v1/outcomes").body["items"]
    assert sorted((o["state"], o["reason"]) for o in outcomes) == [
        ("STARTED", None),
        ("SUPPRESSED", "same object"),
    ]


def test_everything_else_passes_through_untouched(api: Api) -> None:
    hook(api)
    order = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order.placed"}
    as_itself = send(api, order, Content_Type="application/cloudevents+json", **BEARER)
    assert as_itself.body == {"ids": ["1"], "notices": {}, "passed": 1}
    plain = {"any": ["thing", 1, None]}
    assert send(api, plain).body == send(api, plain).body  # the same id: a duplicate
    assert events(api, "shop") == [order]
    received = events(api, "augury.webhook.received")
    assert [event["data"] for event in received] == [plain, plain]
    assert received[0] == received[1]


def test_github_signs_and_names_its_requests(api: Api) -> None:
    hook(api, signature="github")
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    code = hmac.new(b"open sesame", body, hashlib.sha256).hexdigest()
    headers = {
        "X_Hub_Signature_256": f"sha256={code}",
        "X_GitHub_Delivery": "72d3162e",
        "X_GitHub_Event": "push",
    }
    answer = api.request("POST", "/v1/webhooks/uploads", raw=body, **headers)
    assert answer.status == 202
    (event,) = events(api, "augury.webhook.received")
    assert event["subject"] == "push"
    forged = api.request("POST", "/v1/webhooks/uploads", raw=body + b" ", **headers)
    assert (forged.status, forged.body["code"]) == (401, "unauthorized")
    assert len(events(api, "augury.webhook.received")) == 1


def test_who_may_not_and_what_cannot(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    hook(api)
    assert send(api, {}, Authorization="Bearer wrong").status == 401
    assert send(api, {}, name="nobody").status == 404
    api.request("PUT", "/v1/sources/files", {"uri": "/tmp/x"})
    assert send(api, {}, name="files").status == 404
    refused = api.request("POST", "/v1/webhooks/uploads", raw=b"{", **BEARER)
    assert (refused.status, refused.body["code"]) == (400, "invalid")
    large = send(api, {"x": "x" * 300_000})
    assert large.status == 413
    bad = send(api, {"specversion": "1.0"}, Content_Type="application/cloudevents+json", **BEARER)
    assert {fault["path"] for fault in bad.body["faults"]} == {"source", "id", "type"}
    api.request("POST", "/v1/sources/uploads/disable")
    closed = send(api, {})
    assert (closed.status, closed.headers["retry-after"]) == (503, "1")
    monkeypatch.delenv("AUGURY_SECRET_UPLOADS")
    api.request("POST", "/v1/sources/uploads/enable")
    secretless = send(api, {})
    assert secretless.status == 503
    assert "AUGURY_SECRET_UPLOADS" in secretless.body["message"]
    assert events(api, "augury.webhook") == []


def test_handshakes_are_answered_to_who_knows_the_secret(api: Api) -> None:
    hook(api, provider="azure")
    document = [
        {
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "data": {"validationCode": "512d38b6", "validationUrl": "http://127.0.0.1:1/"},
        }
    ]
    url = "/v1/webhooks/uploads?access_token=open%20sesame"
    handshake = {"aeg_event_type": "SubscriptionValidation"}
    answer = api.request("POST", url, document, **handshake)
    assert (answer.status, answer.body) == (200, {"validationResponse": "512d38b6"})
    assert api.request("POST", "/v1/webhooks/uploads", document, **handshake).status == 401
    allowed = api.request("OPTIONS", url, WebHook_Request_Origin="eventgrid.azure.net")
    assert (allowed.status, allowed.headers["webhook-allowed-origin"]) == (
        200,
        "eventgrid.azure.net",
    )
    assert api.request("OPTIONS", "/v1/webhooks/uploads").status == 401


def test_a_told_object_is_a_row_and_audit_misses_its_event(api: Api, bucket: Any) -> None:
    from augury.monitoring.audit import audit

    hook(api, provider="s3")
    send(api, about(bucket, "a", "A"))
    send(api, about(bucket, "b", "B"))
    send(api, about(bucket, "b", "", at="02", what="Delete"))
    route(api)
    engine = api.engine

    def broken() -> set[str]:
        report = audit(engine.database, engine.bus, engine.settings, deep=False)
        return {violation.check for violation in report.violations}

    assert broken() == set()
    for key, check in (("%/a", "object_event"), ("%/b", "deletion_event")):
        changed = sa.update(tables.source_objects).where(tables.source_objects.c.key.like(key))
        engine.database.transact(lambda c, s=changed: c.execute(s.values(life=7)))
        assert check in broken()


def test_many_senders_at_once_on_postgres_tell_each_change_once(
    postgres_api: Api, bucket: Any
) -> None:
    hook(postgres_api, provider="s3")
    documents = [
        about(bucket, key, f"{key}{at}", at=f"{at:02}") for at in range(1, 5) for key in "ab"
    ]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda d: send(postgres_api, d), documents * 4))
    assert {answer.status for answer in answers} == {202}
    last = [send(postgres_api, document).body for document in documents[-2:]]
    assert [body["notices"] for body in last] == [{"known": 1}, {"known": 1}]
    postgres_api.engine.after_commit()
    contents = [
        e["data"]["tag"]
        for e in events(postgres_api, "augury.object.")
        if e["type"] != "augury.object.superseded"
    ]
    assert len(contents) == len(set(contents))
    assert {"a4", "b4"} <= set(contents)
