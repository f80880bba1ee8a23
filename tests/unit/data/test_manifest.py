"""The manifest's bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from augury.data.manifest import FileRows, Manifest, Part, Rows, content_digest
from augury.errors import CorruptError

MANIFEST = Manifest(
    run_id="run_1",
    job="j",
    model={"name": "m", "version": 1, "digest": "d", "flavor": "xgboost"},
    rows=Rows(rows_in=3, rows_predicted=3),
    files=(FileRows(uri="file:///f é", tag="t", rows_in=3, rows_predicted=3),),
    parts=(Part(key="part-00000.parquet", size_bytes=9, sha256="ab", num_rows=3, shard=0),),
    unknown_categories={"c": {"z": 2}},
    pins={"backend": "xgboost 3"},
    plan_digest="p",
)


def test_it_reads_back_as_it_was() -> None:
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_its_bytes_are_canonical_json() -> None:
    data = MANIFEST.to_bytes()
    document = json.loads(data)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data == text.encode() + b"\n"
    assert document["version"] == 1
    assert document["rows"] == {"in": 3, "predicted": 3, "rejected": 0, "filtered": 0}
    assert document["content_digest"] == content_digest(["ab"])


def test_its_digests_follow_what_they_stand_for() -> None:
    other = replace(MANIFEST, run_id="run_2")
    assert other.content_digest == MANIFEST.content_digest
    assert other.digest != MANIFEST.digest


def test_an_altered_manifest_is_found_out() -> None:
    altered = MANIFEST.to_bytes().replace(b'"sha256":"ab"', b'"sha256":"cd"')
    with pytest.raises(CorruptError, match="content digest"):
        Manifest.from_bytes(altered)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version":2}', b"\xff"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError):
        Manifest.from_bytes(data)


def test_rows_balance() -> None:
    assert Rows(rows_in=6, rows_predicted=3, rows_rejected=2, rows_filtered=1).balanced
    assert not Rows(rows_in=6, rows_predicted=3, rows_rejected=2).balanced
