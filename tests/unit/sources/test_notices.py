"""What a notification means, whatever came before it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.events.normalise import Change, ObjectNotice, Provider
from augury.sources.notices import Known, Meaning, after, meaning

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
_ids = itertools.count()


def notice(change: str = "created", tag: str | None = "A", **more: Any) -> ObjectNotice:
    return ObjectNotice(
        provider=Provider.S3,
        change=Change(change),
        uri="s3://b/k",
        bucket="b",
        key="k",
        notice_id=str(next(_ids)),
        tag=tag,
        **more,
    )


def known(tag: str = "A", **more: Any) -> Known:
    return Known(identity=f"s3://b/k#{tag}", **{"exists": True, **more})


GONE = {"exists": False, "life": 1}
EARLIER, LATER = NOON - timedelta(minutes=1), NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("before", "told", "expected"),
    [
        # the first word
        (None, notice(), "created"),
        (None, notice("updated"), "updated"),
        (None, notice("deleted", None), "deleted"),
        (None, notice("read"), "read"),
        # by the provider's order
        (known(order="5"), notice(order="5"), "known"),
        (known(order="5"), notice(order="6"), "known"),
        (known(order="5"), notice(tag="B", order="6"), "updated"),
        (known(order="5"), notice(tag="B", order="4"), "superseded"),
        (known(order="5"), notice("deleted", None, order="4"), "superseded"),
        (known(order="5"), notice("deleted", None, order="5"), "deleted"),
        (known(order="5"), notice("deleted", None, order="6"), "deleted"),
        (known(order="5", **GONE), notice(order="4"), "superseded"),
        (known(order="5", **GONE), notice(order="5"), "superseded"),
        (known(order="5", **GONE), notice(order="6"), "created"),
        (known(order="5", **GONE), notice("deleted", None, order="5"), "known"),
        (known(order="5"), notice("read", order="1"), "read"),
        # something else than the content
        (known(order="5"), notice("updated", order="5"), "known"),
        (known(order="5"), notice("updated", order="6"), "touched"),
        (known(at=NOON), notice("updated", time=NOON), "known"),
        (known(at=NOON), notice("updated", time=LATER), "touched"),
        # by the store's time, where one has no order
        (known(at=NOON), notice(tag="B", time=LATER), "updated"),
        (known(at=NOON), notice(tag="B", time=EARLIER), "superseded"),
        (known(at=NOON), notice(tag="B", time=NOON - timedelta(milliseconds=900)), "updated"),
        (known(at=NOON), notice(tag="B", time=EARLIER, order="9"), "superseded"),
        (known(), notice(tag="B"), "updated"),
        # one version of several
        (known(version="2"), notice("deleted", None, removed_version="1"), "version_deleted"),
        (known(version="2"), notice("deleted", None, removed_version="2"), "deleted"),
        (known(version="2"), notice("deleted", None, version="3"), "deleted"),
    ],
)
def test_what_it_means(before: Known | None, told: ObjectNotice, expected: str) -> None:
    assert meaning(before, told) == expected


def test_what_is_on_record_afterwards() -> None:
    first = after(None, notice(order="1", time=NOON), Meaning.CREATED)
    assert first == known(order="1", at=NOON)
    gone = after(first, notice("deleted", None, order="2"), Meaning.DELETED)
    assert gone == known(order="2", exists=False, life=1)
    back = after(gone, notice(order="3"), Meaning.CREATED)
    assert back == known(order="3", life=1)
    for nothing in (Meaning.SUPERSEDED, Meaning.READ, Meaning.VERSION_DELETED):
        assert after(back, notice(order="9"), nothing) == back


@given(st.data())
def test_whatever_the_order_of_arrival_the_newest_is_on_record(data: st.DataObject) -> None:
    """Changes of one key, each delivered up to three times, shuffled: the record ends the same."""
    kinds = data.draw(st.lists(st.sampled_from(["A", "B", "C", "-"]), min_size=1, max_size=6))
    changes = [
        notice("deleted", None, order=str(n)) if tag == "-" else notice(tag=tag, order=str(n))
        for n, tag in enumerate(kinds)
    ]
    times = data.draw(st.lists(st.integers(1, 3), min_size=len(changes), max_size=len(changes)))
    arrivals = [c for c, count in zip(changes, times, strict=True) for _ in range(count)]
    record: Known | None = None
    told = []
    for arrival in data.draw(st.permutations(arrivals)):
        found = meaning(record, arrival)
        record = after(record, arrival, found)
        told.append((found, arrival.order))
    assert record is not None
    assert record.exists == (kinds[-1] != "-")
    if record.exists:
        assert record.identity == f"s3://b/k#{kinds[-1]}"
    orders = [order for found, order in told if found in {Meaning.CREATED, Meaning.UPDATED}]
    assert orders == sorted(orders or [])
    assert len(orders) == len(set(orders))
