from __future__ import annotations

import pytest

from augury.actions.template import TemplateError, check, fill, value

EVENT = {
    "id": "e1",
    "data": {
        "key": "in/a.parquet",
        "size": 12,
        "big": True,
        "uris": ["a", "b"],
        "none": None,
        "x": {},
    },
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("${id}", "e1"),
        ("out/${data.key}/${data.size}-${data.big}", "out/in/a.parquet/12-true"),
        ("${data.uris.1}", "b"),
        ("$${data.key}", "${data.key}"),
        ("$${x} ${id}", "${x} e1"),
        ("costs $5 {really}", "costs $5 {really}"),
    ],
)
def test_holes_are_filled(text: str, filled: str) -> None:
    assert check(text) == text
    assert fill(text, EVENT) == filled


@pytest.mark.parametrize(
    "text", ["${", "${}", "${data.key", "${a b}", "${.a}", "${a..b}", "${ a }"]
)
def test_malformed_holes_are_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${data.kex}", "nothing at data.kex: data has no 'kex'"),
        ("${nope.x}", "the event has no 'nope'"),
        ("${data.key.more}", "data.key has no 'more'"),
        ("${data.uris.7}", "has no '7'"),
        ("${data.uris.²}", "has no '²'"),
        ("x${data.uris}", r'expected a string, number or boolean at data.uris, found \["a","b"\]'),
        ("x${data.none}", "found null"),
    ],
)
def test_what_an_event_does_not_fill_is_named(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        fill(text, EVENT)


def test_one_hole_alone_takes_the_value_itself() -> None:
    assert value("${data.uris}", EVENT) == ["a", "b"]
    assert value("${data.none}", EVENT) is None
    assert value("$${id}", EVENT) == "${id}"
    assert value("x${id}", EVENT) == "xe1"
