from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from augury.sources.cron import Cron
from augury.sources.local_time import Autumn, LocalTime, Spring, checked_zone
from augury.sources.rhythm import Every, Once, between


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rhythm(cron: str, zone: str, spring: str = "next", autumn: str = "first") -> Cron:
    return Cron(cron, LocalTime(zone, spring=Spring(spring), autumn=Autumn(autumn)))


def ticks(cron: str, zone: str, start: str, end: str, **policy: str) -> list[str]:
    found = between(rhythm(cron, zone, **policy), at(start), at(end))
    return [f"{t:%m-%d %H:%M}" for t in found]


@pytest.mark.parametrize(
    ("cron", "zone", "start", "end", "expected"),
    [
        # plain days
        ("0 12 * * *", "UTC", "2026-01-01", "2026-01-03", ["01-01 12:00", "01-02 12:00"]),
        ("0 0 * * *", "Asia/Kolkata", "2026-01-01", "2026-01-02", ["01-01 18:30"]),
        ("@hourly", "UTC", "2026-01-01T00:30", "2026-01-01T02:00", ["01-01 01:00", "01-01 02:00"]),
        ("@daily", "UTC", "2026-01-01", "2026-01-02", ["01-02 00:00"]),
        ("0 9 * * MON", "UTC", "2026-01-01", "2026-01-08", ["01-05 09:00"]),
        # clocks go forward in Berlin: 02:00 is 03:00, at 01:00 UTC on March 29th
        (
            "30 1 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            "2026-03-30",
            ["03-29 00:30", "03-29 23:30"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            "2026-03-30T01:00",
            ["03-29 01:00", "03-30 00:30"],
        ),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T23:00", ["03-29 01:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T23:00", ["03-29 01:00"]),
        (
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-03-28T22:30",
            "2026-03-29T03:00",
            ["03-28 23:00", "03-29 01:00", "03-29 02:00"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-28T23:00",
            "2026-03-29T03:00",
            ["03-28 23:30", "03-29 00:30", "03-29 01:30", "03-29 02:30"],
        ),
        # clocks go back in Berlin: 03:00 is 02:00, at 01:00 UTC on October 25th
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00",
            "2026-10-26T12:00",
            ["10-25 00:30", "10-26 01:30"],
        ),
        ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T12:00", ["10-25 02:00"]),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:00",
            "2026-10-25T03:00",
            ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"],
        ),
        # New York: 07:00 UTC on March 8th, 06:00 UTC on November 1st
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00",
            "2026-03-09T12:00",
            ["03-08 07:00", "03-09 06:30"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00",
            "2026-11-02T12:00",
            ["11-01 05:30", "11-02 06:30"],
        ),
        # Lord Howe changes by half an hour: 02:00 is 02:30, at 15:30 UTC on October 3rd
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00",
            "2026-10-04T20:00",
            ["10-03 15:30", "10-04 15:15"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-03T20:00",
            "2026-04-05T20:00",
            ["04-04 14:45", "04-05 15:15"],
        ),
        # midnight itself is skipped in Havana, and comes twice
        (
            "0 0 * * *",
            "America/Havana",
            "2026-03-07T12:00",
            "2026-03-09T12:00",
            ["03-08 05:00", "03-09 04:00"],
        ),
        (
            "0 0 * * *",
            "America/Havana",
            "2026-10-31T12:00",
            "2026-11-02T12:00",
            ["11-01 04:00", "11-02 05:00"],
        ),
        (
            "30 * 1 11 *",
            "America/Havana",
            "2025-12-01",
            "2026-11-01T06:00",
            ["11-01 04:30", "11-01 05:30"],
        ),
        # Samoa crossed the date line and had no December 30th, 2011
        (
            "0 10 * * *",
            "Pacific/Apia",
            "2011-12-28T23:00",
            "2011-12-31T12:00",
            ["12-29 20:00", "12-30 10:00", "12-30 20:00"],
        ),
        (
            "0 * * * *",
            "Pacific/Apia",
            "2011-12-30T08:30",
            "2011-12-30T11:00",
            ["12-30 09:00", "12-30 10:00", "12-30 11:00"],
        ),
    ],
)
def test_instants(cron: str, zone: str, start: str, end: str, expected: list[str]) -> None:
    assert ticks(cron, zone, start, end) == expected


ZONES = [
    "UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Havana", "Asia/Kolkata",
    "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Africa/Casablanca", "Asia/Tehran",
]  # fmt: skip


def changes(zone: str) -> list[datetime]:
    """Days of 2026 within which the zone's clocks are changed; New Year if there are none."""
    local = ZoneInfo(zone)
    days = [at("2026-01-01") + timedelta(days=number) for number in range(365)]
    found = [d for d in days if offset(d, local) != offset(d + timedelta(days=1), local)]
    return found or days[:1]


def offset(instant: datetime, local: ZoneInfo) -> timedelta | None:
    return instant.astimezone(local).utcoffset()


@pytest.mark.parametrize("zone", ZONES)
def test_a_schedule_of_every_hour_keeps_its_beat(zone: str) -> None:
    """The oracle: every instant whose local minute is divisible by 30."""
    for day in changes(zone):
        start, end = day - timedelta(days=1), day + timedelta(days=2)
        quarters = (start + timedelta(minutes=15 * step) for step in range(1, 3 * 96 + 1))
        expected = [q for q in quarters if q.astimezone(ZoneInfo(zone)).minute in (0, 30)]
        assert list(between(rhythm("*/30 * * * *", zone), start, end)) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", [0, 1, 2, 3, 23])
def test_a_schedule_of_fixed_hours_ticks_once_a_day(zone: str, hour: int) -> None:
    """The oracle: one tick for each day of the local calendar, moved only if it is skipped."""
    local = ZoneInfo(zone)
    found = list(between(rhythm(f"30 {hour} * * *", zone), at("2026-01-02"), at("2027-01-02")))
    days = [instant.astimezone(local).date() for instant in found]
    assert days == [days[0] + timedelta(days=number) for number in range(365)]
    for instant in found:
        wall = instant.astimezone(local)
        if (wall.hour, wall.minute) != (hour, 30):
            assert offset(instant - timedelta(seconds=1), local) != wall.utcoffset()


def test_instants_are_later_never_the_same() -> None:
    cron = rhythm("*/5 * * * *", "Europe/Berlin")
    assert cron.after(at("2026-01-01T00:05")) == at("2026-01-01T00:10")
    assert cron.after(at("2026-01-01T00:04:59.999999")) == at("2026-01-01T00:05")
    assert cron.after(at("2026-01-01T00:05:00.000001")) == at("2026-01-01T00:10")


def test_seconds_come_first() -> None:
    cron = rhythm("*/20 * * * * *", "UTC")
    assert list(between(cron, at("2026-01-01"), at("2026-01-01T00:01"))) == [
        at("2026-01-01T00:00:20"), at("2026-01-01T00:00:40"), at("2026-01-01T00:01:00"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "60 * * * *",
        "a b c d e",
        "R * * * *",
        "H H * * *",
        "@reboot",
        "* * * * * * *",
    ],
)
def test_what_is_no_cron_expression(cron: str) -> None:
    with pytest.raises(ValueError, match="expected a cron expression of five fields"):
        rhythm(cron, "UTC")


def test_a_day_that_never_comes() -> None:
    with pytest.raises(ValueError, match="names no instant"):
        rhythm("0 0 30 2 *", "UTC")


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "europe"])
def test_what_is_no_time_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="expected an IANA time zone"):
        checked_zone(zone)


# --- what happens when clocks are changed: every policy, four zones, both transitions -------------

# zone, day of the change, a time that is skipped or doubled, its instants: of the change or none;
# the first, the second
SPRING = [
    ("Europe/Berlin", "2026-03-28T12:00", "30 2 * * *", "03-29 01:00", "03-30 00:30"),
    ("America/New_York", "2026-03-07T12:00", "30 2 * * *", "03-08 07:00", "03-09 06:30"),
    ("Australia/Lord_Howe", "2026-10-03T00:00", "15 2 * * *", "10-03 15:30", "10-04 15:15"),
    ("America/Havana", "2026-03-07T12:00", "30 0 * * *", "03-08 05:00", "03-09 04:30"),
]
AUTUMN = [
    ("Europe/Berlin", "2026-10-24T12:00", "30 2 * * *", "10-25 00:30", "10-25 01:30"),
    ("America/New_York", "2026-10-31T12:00", "30 1 * * *", "11-01 05:30", "11-01 06:30"),
    ("Australia/Lord_Howe", "2026-04-04T00:00", "45 1 * * *", "04-04 14:45", "04-04 15:15"),
    ("America/Havana", "2026-10-31T12:00", "30 0 * * *", "11-01 04:30", "11-01 05:30"),
]


@pytest.mark.parametrize(("zone", "start", "cron", "change", "next_day"), SPRING)
@pytest.mark.parametrize("autumn", list(Autumn))
def test_a_skipped_time(
    zone: str, start: str, cron: str, change: str, next_day: str, autumn: str
) -> None:
    end = (at(start) + timedelta(hours=45)).isoformat()[:16]
    moved = ticks(cron, zone, start, end, spring="next", autumn=autumn)
    left_out = ticks(cron, zone, start, end, spring="skip", autumn=autumn)
    assert moved == [change, next_day]
    assert left_out == [next_day]


@pytest.mark.parametrize(("zone", "start", "cron", "first", "second"), AUTUMN)
@pytest.mark.parametrize("spring", list(Spring))
def test_a_doubled_time(
    zone: str, start: str, cron: str, first: str, second: str, spring: str
) -> None:
    end = (at(start) + timedelta(hours=24)).isoformat()[:16]
    for autumn, expected in [("first", [first]), ("second", [second]), ("both", [first, second])]:
        assert ticks(cron, zone, start, end, spring=spring, autumn=autumn) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("spring", list(Spring))
@pytest.mark.parametrize("autumn", list(Autumn))
def test_many_fixed_times_against_a_naive_oracle(zone: str, spring: str, autumn: str) -> None:
    """The oracle takes every quarter of an hour that the schedule names, and asks for instants."""
    local = LocalTime(zone, spring=Spring(spring), autumn=Autumn(autumn))
    for day in changes(zone):
        start, end = day - timedelta(days=1), day + timedelta(days=2)
        naive = (
            start.replace(tzinfo=None) - timedelta(days=2) + timedelta(minutes=15 * n)
            for n in range(96 * 7)
        )
        named = [wall for wall in naive if wall.hour in {0, 1, 2, 3, 23}]
        expected = sorted({i for wall in named for i in local.instants(wall) if start < i <= end})
        assert list(between(Cron("*/15 0-3,23 * * *", local), start, end)) == expected


def test_every_so_many_seconds_counts_from_the_epoch() -> None:
    found = list(between(Every(90), at("2026-01-01T00:00:01"), at("2026-01-01T00:04:30")))
    assert [f"{t:%M:%S}" for t in found] == ["01:30", "03:00", "04:30"]
    assert Every(86_400).after(at("2026-01-01T12:00")) == at("2026-01-02")


def test_once() -> None:
    berlin = LocalTime("Europe/Berlin")
    for text in ("2026-12-01T06:00", "2026-12-01T05:00:00Z", "2026-12-01T00:00-05:00"):
        once = Once(text, berlin)
        assert once.after(at("2026-01-01")) == at("2026-12-01T05:00")
        assert once.after(at("2026-12-01T05:00")) is None
    never = Once("2026-03-29T02:30", LocalTime("Europe/Berlin", spring=Spring.SKIP))
    assert never.after(at("2026-01-01")) is None
    for text in ("tomorrow", "2026-13-01", "0001-01-01T00:00+23:00", "9999-12-31T23:59"):
        with pytest.raises(ValueError, match="expected a time such as"):
            Once(text, berlin)
