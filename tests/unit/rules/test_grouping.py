"""Groups follow from the stream alone: against a plain reading of the rules, in any pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from augury.rules.group_spec import GroupSpec
from augury.rules.grouping import Closed, Member, Open, Policy, advance, policy_of
from augury.rules.membership import membership

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def members(*seconds: float, **attributes: Any) -> list[Member]:
    return [
        Member(name=f"m{n}", order=f"{n:04}", at=at(second), subject=f"s{n}", **attributes)
        for n, second in enumerate(seconds)
    ]


def policy(**spec: Any) -> Policy:
    return policy_of(GroupSpec.model_validate(spec))


class Folded:
    """What a fold in some pieces made: groups with their members by name, and who passed."""

    def __init__(self) -> None:
        self.open: Open | None = None
        self.closed: list[Closed] = []
        self.joined: dict[str, str] = {}
        self.passed: dict[str, bool] = {}

    def advance(self, how: Policy, members: Sequence[Member], now: datetime) -> None:
        progress = advance(how, self.open, members, now)
        self.open = progress.open
        self.closed += progress.closed
        self.joined |= progress.joined
        self.passed |= progress.passed
        for name in progress.passed:
            self.joined.pop(name, None)

    @property
    def groups(self) -> list[tuple[list[str], str, bool]]:
        """(names, why, acts) of each closed group."""
        return [
            ([n for n, first in self.joined.items() if first == c.first], str(c.why), c.acts)
            for c in self.closed
        ]


def fold(how: Policy, found: Sequence[Member], now: datetime) -> Folded:
    folded = Folded()
    folded.advance(how, found, now)
    return folded


# --- each kind by example -------------------------------------------------------------------------


def test_each_event_alone() -> None:
    folded = fold(policy_of(None), members(0, 0, 1), at(1))
    assert folded.groups == [(["m0"], "full", True), (["m1"], "full", True), (["m2"], "full", True)]


def test_a_batch_closes_when_full_or_when_its_time_is_up() -> None:
    how = policy(batch={"max_events": 2, "max_wait_s": 10})
    folded = fold(how, members(0, 1, 2, 12, 13), at(22))
    assert folded.groups == [
        (["m0", "m1"], "full", True),
        (["m2"], "waited", True),  # an event at the very end is the next group's
        (["m3", "m4"], "full", True),
    ]
    assert [closed.at for closed in folded.closed] == [at(1), at(12), at(13)]
    assert fold(how, members(0), at(9.999)).groups == []
    assert fold(how, members(0), at(10)).groups == [(["m0"], "waited", True)]


def test_a_batch_never_holds_more_bytes_unless_one_object_does() -> None:
    how = policy(batch={"max_bytes": "100 B"})
    sizes = [60, 40, 60, 60, 300, 1]
    found = [
        Member(name=f"m{n}", order=f"{n:04}", at=at(n), size_bytes=size)
        for n, size in enumerate(sizes)
    ]
    names = [group[0] for group in fold(how, found, at(9)).groups]
    assert names == [["m0", "m1"], ["m2"], ["m3"], ["m4"]]


def test_quiet_waits_for_silence_but_not_for_ever() -> None:
    how = policy(quiet={"after_s": 5, "max_wait_s": 12})
    folded = fold(how, members(0, 4, 8, 11, 13, 30), at(40))
    assert folded.groups == [
        (["m0", "m1", "m2", "m3"], "waited", True),
        (["m4"], "quiet", True),
        (["m5"], "quiet", True),
    ]


def test_complete_closes_with_its_marker() -> None:
    how = policy(complete={"marker": "_SUCCESS"})
    found = members(0, 1, 2)
    found.append(Member(name="marker", order="0009", at=at(3), is_marker=True))
    folded = fold(how, [*found, *members(4)], at(100))
    assert folded.groups[0][1:] == ("marker", True)
    assert folded.open is not None


def test_complete_counts_distinct_objects() -> None:
    how = policy(complete={"expected": 3})
    found = members(0, 1, 2, 3, expected=3)
    twice = [found[0], Member(name="again", order="00001", at=at(0.5), subject="s0"), *found[1:]]
    folded = fold(how, twice, at(9))
    assert folded.groups == [(["m0", "again", "m1", "m2"], "complete", True)]


@pytest.mark.parametrize(("said", "acts"), [("drop", False), ("start", True)])
def test_an_incomplete_group_ends_as_its_rule_says(said: str, acts: bool) -> None:
    how = policy(complete={"expected": 3, "max_wait_s": 10, "if_incomplete": said})
    assert fold(how, members(0, 1, expected=3), at(10)).groups == [
        (["m0", "m1"], "incomplete", acts)
    ]


def test_at_least_slides() -> None:
    how = policy(at_least={"events": 3, "within_s": 10})
    folded = fold(how, members(0, 8, 10, 12, 12, 13), at(100))
    # the first is out when the third comes; after it has acted it counts anew
    assert folded.groups == [(["m1", "m2", "m3"], "counted", True)]
    assert folded.passed == {"m0": True, "m4": True, "m5": True}
    assert folded.open is None


def test_absent_acts_once_for_each_silence() -> None:
    how = policy(absent={"for_s": 10})
    folded = fold(how, members(0, 5, 15, 16), at(100))
    assert folded.groups == [(["m1"], "silent", True), (["m3"], "silent", True)]
    assert folded.passed == {"m0": False, "m2": False}
    assert [closed.at for closed in folded.closed] == [at(15), at(26)]
    assert folded.open is None


def test_time_stands_where_a_bus_goes_back() -> None:
    how = policy(batch={"max_events": 9, "max_wait_s": 10})
    folded = fold(how, members(0, 5, 2), at(9))
    assert folded.open is not None
    assert folded.open.last_at == at(5)


# --- in any pieces --------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {"each": {}},
    {"batch": {"max_events": 3, "max_wait_s": 4}},
    {"batch": {"max_bytes": 7, "max_wait_s": 9}},
    {"quiet": {"after_s": 2, "max_wait_s": 7}},
    {"quiet": {"after_s": 2, "max_events": 4}},
    {"complete": {"marker": "_SUCCESS", "max_wait_s": 8}},
    {"complete": {"expected": 3, "max_wait_s": 6, "if_incomplete": "start"}},
    {"latest": {"after_s": 1, "max_wait_s": 3}},
    {"at_least": {"events": 3, "within_s": 4}},
    {"absent": {"for_s": 2}},
]


@st.composite
def streams(draw: st.DrawFn) -> list[Member]:
    gaps = draw(st.lists(st.sampled_from([0, 0, 0.5, 1, 2, 3, 5]), max_size=25))
    now, found = 0.0, []
    for n, gap in enumerate(gaps):
        now += gap
        found.append(
            Member(
                name=f"m{n}",
                order=f"{n:04}",
                at=at(now),
                size_bytes=draw(st.integers(0, 5)),
                subject=f"s{draw(st.integers(0, 4))}",
                is_marker=draw(st.integers(0, 5)) == 0,
                expected=3,
            )
        )
    return found


def _fitted(spec: dict[str, Any], found: list[Member]) -> list[Member]:
    """As `membership` makes them: only `complete` has markers and numbers."""
    complete = spec.get("complete", {})
    return [
        Member(
            name=m.name,
            order=m.order,
            at=m.at,
            size_bytes=m.size_bytes,
            subject=m.subject,
            is_marker=m.is_marker and "marker" in complete,
            expected=m.expected if "expected" in complete else None,
        )
        for m in found
    ]


@settings(max_examples=150, deadline=None)
@given(spec=st.sampled_from(KINDS), found=streams(), seed=st.integers(0, 10**6))
def test_any_pieces_give_the_same_groups(
    spec: dict[str, Any], found: list[Member], seed: int
) -> None:
    how, found, chance = policy(**spec), _fitted(spec, found), random.Random(seed)
    end = found[-1].at + timedelta(seconds=50) if found else at(0)
    whole = fold(how, found, end)
    pieces, rest = Folded(), list(found)
    while rest:
        # a look of its own at any time up to the next event
        latest = rest[0].at
        earlier = pieces.open.last_at if pieces.open else START
        moment = earlier + chance.random() * max(latest - earlier, timedelta())
        pieces.advance(how, [], moment)
        count = chance.randint(1, len(rest))
        pieces.advance(how, rest[:count], rest[count - 1].at)
        rest = rest[count:]
    pieces.advance(how, [], end)
    assert pieces.groups == whole.groups
    assert pieces.closed == whole.closed
    assert pieces.passed == whole.passed
    assert pieces.open == whole.open


@settings(max_examples=150, deadline=None)
@given(spec=st.sampled_from(KINDS), found=streams())
def test_every_member_is_in_one_group_or_passed(spec: dict[str, Any], found: list[Member]) -> None:
    how, found = policy(**spec), _fitted(spec, found)
    folded = fold(how, found, found[-1].at if found else START)
    grouped = {name for names, _, _ in folded.groups for name in names}
    opened = {n for n, first in folded.joined.items() if folded.open and folded.open.first == first}
    parts = [grouped, opened, set(folded.passed)]
    assert sum(map(len, parts)) == len(found)
    assert set().union(*parts) == {member.name for member in found}
    for names, _, _ in folded.groups:
        assert len(names) <= how.max_events
    assert [c.num_events for c in folded.closed] == [len(names) for names, _, _ in folded.groups]


def naive_batches(found: Sequence[Member], most: int, wait_s: float, end: datetime) -> list[Any]:
    """What docs/grouping.md says of `batch`, written down without state."""
    rest, groups = list(found), []
    while rest:
        until = rest[0].at + timedelta(seconds=wait_s)
        group = [member for member in rest[:most] if member.at < until]
        if len(group) == most or until <= end:
            groups.append([member.name for member in group])
        rest = rest[len(group) :]
    return groups


@settings(max_examples=150, deadline=None)
@given(found=streams(), most=st.integers(1, 5), wait_s=st.sampled_from([0.5, 1, 3, 6]))
def test_batches_are_what_a_plain_reading_makes(
    found: list[Member], most: int, wait_s: float
) -> None:
    how = policy(batch={"max_events": most, "max_wait_s": wait_s})
    end = found[-1].at if found else START
    found = _fitted({}, found)
    assert [group[0] for group in fold(how, found, end).groups] == naive_batches(
        found, most, wait_s, end
    )


# --- what an event is to a group ------------------------------------------------------------------


def landed(key: str, **data: Any) -> dict[str, Any]:
    uri = f"s3://bucket/{key}"
    return {
        "source": "s",
        "id": "1",
        "type": "augury.object.created",
        "data": {"key": key, "uri": uri, "tag": "t", "size_bytes": 5, **data},
    }


def spec(**fields: Any) -> GroupSpec:
    return GroupSpec.model_validate(fields)


def test_keys_are_fields_and_folders() -> None:
    by = spec(each={}, group_by=["folder(data.key)", "data.bucket"])
    assert membership(by, landed("a/b/c.parquet", bucket="x")).key == '["a/b","x"]'
    assert membership(by, landed("c.parquet")).key == '["",null]'
    assert membership(None, landed("c")).key == "[]"
    long = membership(by, landed("c", bucket="y" * 3000)).key
    assert len(long) < 100


def test_a_marker_is_a_file_name() -> None:
    marked = spec(complete={"marker": "_SUCC*"})
    assert membership(marked, landed("a/_SUCCESS")).is_marker
    assert not membership(marked, landed("_SUCCESS/a")).is_marker


def test_expected_may_stand_in_the_event() -> None:
    said = spec(complete={"expected": "data.num_parts"})
    assert membership(said, landed("a", num_parts=7)).expected == 7
    for nonsense in (None, True, "7", 0, -1, 10**9):
        assert membership(said, landed("a", num_parts=nonsense)).expected is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of"),
        ({"batch": {}, "quiet": {"after_s": 1}}, "found batch and quiet"),
        ({"batch": {"max_events": 0}}, "greater than or equal to 1"),
        ({"batch": {"max_byte": 1}}, "Extra inputs"),
        ({"complete": {}}, "either marker or expected"),
        ({"complete": {"marker": "a/b"}}, "without folders"),
        ({"complete": {"expected": 0}}, "1 to 10,000"),
        ({"complete": {"expected": "no path"}}, "a path such as data.num_parts"),
        ({"latest": {}}, "after_s or max_wait_s"),
        ({"quiet": {"after_s": 0}}, "greater than 0"),
        ({"each": {}, "group_by": ["folder(a"]}, "folder\\(data.key\\)"),
        ({"each": {}, "group_by": ["${data.key}"]}, "a path such as"),
    ],
)
def test_faults_say_what_is_expected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GroupSpec.model_validate(fields)


def test_only_what_is_set_is_stored() -> None:
    assert spec(batch={"max_bytes": "1 KiB"}).model_dump(mode="json") == {
        "batch": {"max_events": 10_000, "max_bytes": 1024, "max_wait_s": 300.0},
        "group_by": [],
    }
