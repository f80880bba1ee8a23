import math
import struct

import pytest

from augury.errors import CorruptError
from augury.models import ubjson


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"L" + struct.pack(">q", len(raw)) + raw


def test_every_type_is_read() -> None:
    numbers = (
        b"i\xff" + b"U\xff" + b"I\x01\x00" + b"l\x00\x01\x00\x00" + b"L" + b"\x00" * 7 + b"\x05"
    )
    floats = b"d" + struct.pack(">f", 0.5) + b"D" + struct.pack(">d", math.pi)
    raw = b"[" + numbers + floats + b"TFZ" + b"Ca" + b"S" + _text("ü") + b"]"
    expected = [-1, 255, 256, 65536, 5, 0.5, math.pi, True, False, None, "a", "ü"]
    assert ubjson.decode(raw) == expected


def test_containers_come_with_and_without_a_count() -> None:
    typed = b"[$l#i\x02" + struct.pack(">ii", 7, -1)
    counted = b"[#i\x02TF"
    raw = b"{" + _text("a") + typed + _text("b") + counted + _text("c") + b"{}" + b"}"
    found = ubjson.decode(raw)
    assert found["a"].tolist() == [7, -1]
    assert found["b"] == [True, False]
    assert found["c"] == {}


def test_every_truncation_is_an_error() -> None:
    raw = (
        b"{"
        + _text("a")
        + b"[$l#i\x02"
        + struct.pack(">ii", 7, -1)
        + _text("b")
        + b"S"
        + _text("x")
        + b"}"
    )
    ubjson.decode(raw)
    for length in range(len(raw)):
        with pytest.raises(CorruptError):
            ubjson.decode(raw[:length])


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        b"Ti",
        b"S" + b"L" + struct.pack(">q", 2**60),
        b"S" + b"i\xff",
        b"[$l#L" + struct.pack(">q", 2**60),
        b"[$l]",
        b"SD" + b"\x00" * 8,
        b"Si\x01\xff",
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_ubjson_is_an_error(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        ubjson.decode(raw)
