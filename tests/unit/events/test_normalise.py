"""What every provider sends, in the one form; and that nothing makes the normaliser fail."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import notifications as sent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.errors import InvalidError
from augury.events.normalise import ObjectNotice, Provider, Untouched, normalise, normalise_json

ETAG = "d41d8cd98f00b204e9800998ecf8427e"
CAFE = f"s3://landing/in/day one/café+1.parquet#{ETAG}"


def only(document: Any, provider: Provider | None = None) -> ObjectNotice:
    (found,) = normalise(document, provider)
    assert isinstance(found, ObjectNotice), found
    return found


@pytest.mark.parametrize(
    ("name", "provider", "change", "identity", "size_bytes", "order"),
    [
        ("s3", "s3", "created", CAFE, 1024, "0055AED6DCD90281E5"),
        ("sns", "s3", "created", CAFE, 1024, "0055AED6DCD90281E5"),
        ("lambda sqs sns", "s3", "created", CAFE, 1024, "0055AED6DCD90281E5"),
        ("lambda sns", "s3", "created", CAFE, 1024, "0055AED6DCD90281E5"),
        ("eventbridge", "s3", "created", CAFE, 1024, "0055AED6DCD90281E5"),
        ("s3 removed", "s3", "deleted", None, None, "0055AED6DCD90281E6"),
        ("eventbridge deleted", "s3", "deleted", None, None, "00A"),
        (
            "minio",
            "minio",
            "created",
            "s3://landing/in/day one.csv#9b2cf535f27731c974343645a3985328",
            2048,
            "16B0F3C2A1B2C3D4",
        ),
        (
            "minio read",
            "minio",
            "read",
            "s3://landing/in/day one.csv#9b2cf535f27731c974343645a3985328",
            2048,
            "16B0F3C2A1B2C3D4",
        ),
        (
            "gcs",
            "gcs",
            "created",
            "gs://landing/in/day one.parquet#1761976800123456",
            1024,
            "00001761976800123456.0000000000000000001",
        ),
        (
            "azure",
            "azure",
            "created",
            "https://acme.blob.core.windows.net/landing/in/day one.parquet#0x8D4BCC2E4835CD0",
            524288,
            "00000000000004420000000000028963",
        ),
        ("azure deleted", "azure", "deleted", None, None, "00000000000004420000000000028964"),
        (
            "oci",
            "oci",
            "created",
            "oci://landing@acme/in/day one.parquet#f8ffb6e9-f602-460f-a6c0-00b5abfa24c7",
            None,
            None,
        ),
    ],
)
def test_every_provider_has_one_form(
    name: str,
    provider: str,
    change: str,
    identity: str | None,
    size_bytes: int | None,
    order: str | None,
) -> None:
    notice = only(sent.EVERY[name])
    assert (notice.provider, notice.change) == (provider, change)
    assert (notice.identity, notice.size_bytes, notice.order) == (identity, size_bytes, order)
    assert notice.bucket == "landing"
    assert (
        notice.time is not None and notice.time.date() == datetime(2026, 11, 1, tzinfo=UTC).date()
    )
    assert only(sent.EVERY[name], Provider(provider)) == notice


@pytest.mark.parametrize(
    "names", [("gcs", "pubsub", "eventarc pubsub"), ("azure", "azure cloudevents")]
)
def test_forms_of_one_provider_say_the_same(names: tuple[str, ...]) -> None:
    found = [only(sent.EVERY[name]) for name in names]
    assert (
        len({(n.identity, n.change, n.key, n.size_bytes, n.order, n.version) for n in found}) == 1
    )


def test_a_version_is_removed_or_the_object() -> None:
    assert only(sent.EVENTBRIDGE_DELETED).removed_version == "v1"
    assert only(sent.S3_REMOVED).removed_version is None
    marker = copy.deepcopy(sent.S3)
    marker["Records"][0]["eventName"] = "ObjectRemoved:DeleteMarkerCreated"
    assert only(marker).removed_version is None


@pytest.mark.parametrize(
    "document",
    [
        sent.S3_TEST,
        sent.PUBSUB_OVERWRITTEN,
        {"Records": [{**sent.S3_RECORD, "eventName": "ObjectRestore:Post"}]},
        {"Records": [{**sent.S3_RECORD, "eventName": "s3:Replication:OperationMissedThreshold"}]},
        {**sent.OCI, "eventType": "com.oraclecloud.objectstorage.createbucket"},
        {**sent.EVENTBRIDGE, "detail-type": "Object Tags Added"},
        {"specversion": "1.0", "type": "shop.order.placed", "id": "1", "source": "shop"},
        {"Records": []},
        [],
        "text",
        17,
        None,
    ],
)
def test_unknown_shapes_pass_through_untouched(document: Any) -> None:
    assert normalise(document) == [Untouched(document=document)]


def test_another_provider_s_notification_passes_through_untouched() -> None:
    assert normalise(sent.S3, Provider.MINIO) == [Untouched(document=sent.S3)]
    assert normalise(sent.MINIO, Provider.S3) == [Untouched(document=sent.MINIO)]


def test_of_several_records_each_is_one_and_the_unknown_one_is_kept() -> None:
    other = {**sent.S3_RECORD, "eventName": "ObjectTagging:Put"}
    later = {**sent.S3_RECORD, "eventTime": "2026-11-01T07:00:00.000Z"}
    first, kept, last = normalise({"Records": [sent.S3_RECORD, other, later]})
    assert isinstance(first, ObjectNotice) and isinstance(last, ObjectNotice)
    assert kept == Untouched(document=other)
    assert first.notice_id != last.notice_id
    message, plain = normalise(sent.SQS_MESSAGES)
    assert isinstance(message, ObjectNotice) and message.identity == CAFE
    assert plain == Untouched(document=sent.SQS_MESSAGES["Messages"][1])


def test_a_record_sent_again_in_another_envelope_has_the_same_id() -> None:
    direct, redelivered = only(sent.S3), only(sent.LAMBDA_SQS_SNS)
    assert direct == redelivered
    shuffled = json.loads(json.dumps(sent.S3, sort_keys=True))
    assert only(shuffled).notice_id == direct.notice_id
    again = {**sent.PUBSUB, "deliveryAttempt": 2}
    assert only(again).notice_id == only(sent.PUBSUB).notice_id


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("0055", "0056"), ("0055", "00551"), ("00559", "0056"), ("00AB", "00abc")],
)
def test_sequencers_of_s3_sort_by_their_order(earlier: str, later: str) -> None:
    def order(sequencer: str) -> str:
        document = copy.deepcopy(sent.S3)
        document["Records"][0]["s3"]["object"]["sequencer"] = sequencer
        return only(document).order or ""

    assert order(earlier) < order(later)
    assert order(earlier) == order(f"{earlier}000")


@pytest.mark.parametrize("key", ["%00", "%ff%fe", "x" * 1025, "", "é" * 600])
def test_keys_that_no_ledger_can_hold_pass_through(key: str) -> None:
    document = copy.deepcopy(sent.S3)
    document["Records"][0]["s3"]["object"]["key"] = key
    assert normalise(document) == [Untouched(document=document)]


def test_what_is_not_json_is_refused() -> None:
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(InvalidError, match="expected a notification in JSON"):
            normalise_json(body)


# --- fuzzing --------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        list(document.items())
        if isinstance(document, dict)
        else list(enumerate(document))
        if isinstance(document, list)
        else []
    )
    return [path, *(inner for name, value in items for inner in _paths(value, (*path, name)))]


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    holder = changed
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return changed


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A real notification of which one to three places hold something else."""
    document = copy.deepcopy(sent.EVERY[draw(st.sampled_from(sorted(sent.EVERY)))])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(document)))
        document = _replaced(document, path, draw(_JSON))
    return document


@given(st.one_of(_JSON, mutated()))
@settings(max_examples=400, deadline=None)
def test_whatever_comes_nothing_fails_and_nothing_is_lost(document: Any) -> None:
    found = normalise(document)
    assert found
    for item in found:
        if isinstance(item, ObjectNotice):
            assert item.key and item.bucket and "\x00" not in item.uri
            assert item.change not in {"created", "updated"} or item.identity
            item.uri.encode()
    if not any(isinstance(item, ObjectNotice) for item in found):
        assert found == [Untouched(document=document)]
    assert normalise(document) == found


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_are_json_or_refused(body: bytes) -> None:
    with suppress(InvalidError):
        assert normalise_json(body)
