"""IP addresses and networks, as each dialect sees them.

`augury`: a network of either family, /32 and /128 included, holds the addresses in it; nothing
else is an address.

`eventbridge`: an address is its digits in hexadecimal (8 or 32 of them), a network the range
between two such texts, and a value is in it as soon as its digits decide so. That is why a wide
network there also holds addresses of the other family, and plain numbers whose decimal digits read
as hexadecimal; which this dialect keeps.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_V4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+\Z")
_V6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*\Z")
_LONGEST = 64  # characters of an address, leading zeros included
_MAPPED = bytes(10) + b"\xff\xff"

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network
type Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_network(text: str) -> Network:
    """A network; host bits are ignored, an address alone is itself.

    Raises:
        ValueError: neither.
    """
    if "%" in text:
        raise ValueError("an address with a zone is not a network")
    return ipaddress.ip_network(text, strict=False)


def address_or_none(text: str) -> Address | None:
    """The address that a value is; None if it is none."""
    if not text or len(text) > 45 or text[0] not in "0123456789abcdefABCDEF:":
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def packed_or_none(text: str) -> bytes | None:
    """An address's 4 or 16 bytes as Java's InetAddress reads it; None if it does not."""
    if len(text) > _LONGEST:
        return None
    if _V4.match(text):
        values = [int(octet) for octet in text.split(".")] if len(text) <= 15 else [256]
        return bytes(values) if max(values) < 256 else None
    if not _V6.match(text):
        return None
    try:
        packed = ipaddress.IPv6Address(text).packed
    except ValueError:
        return None
    return packed[12:] if packed[:12] == _MAPPED else packed


@dataclass(frozen=True, slots=True)
class DigitRange:
    """Texts between two texts of hexadecimal digits of one length.

    Attributes:
        bottom, top: upper-case digits, `bottom` < `top`.
        open_bottom, open_top: the end itself does not belong to the range.
    """

    bottom: str
    top: str
    open_bottom: bool = False
    open_top: bool = False

    def holds(self, text: str) -> bool:
        """True as soon as the digits of `text`, read from the left, decide that it is inside."""
        last = len(self.bottom) - 1
        above = below = False  # the digits so far lie above the bottom, below the top
        for position, digit in enumerate(text[: last + 1]):
            if digit not in "0123456789ABCDEF":
                return False
            low, high = self.bottom[position], self.top[position]
            if (not above and digit < low) or (not below and digit > high):
                return False
            above, below = above or digit > low, below or digit < high
            if above and below:
                return True
        if len(text) <= last:
            return False
        return (above or not self.open_bottom) and (below or not self.open_top)


def digits_of_address(text: str) -> DigitRange | None:
    """The range that holds one address only; None if `text` is none."""
    packed = packed_or_none(text)
    if packed is None:
        return None
    digits = packed.hex().upper()
    last = int(digits[-1], 16)
    if last == 15:
        return DigitRange(digits[:-1] + "E", digits, open_bottom=True)
    return DigitRange(digits, f"{digits[:-1]}{last + 1:X}", open_top=True)


def digits_of_network(text: str) -> DigitRange:
    """The range of a network in CIDR form.

    Raises:
        ValueError: not one, or one of a single address, which is refused.
    """
    address, slash, bits = text.partition("/")
    if not slash or "/" in bits.rstrip("/"):
        raise ValueError("a network needs exactly one '/'")
    if not re.fullmatch(r"[+-]?[0-9]+", bits.rstrip("/")):
        raise ValueError("the bits after '/' must be a whole number")
    packed = packed_or_none(address)
    if packed is None:
        raise ValueError(f"{address!r} is not an IP address")
    size, fixed = len(packed) * 8, int(bits.rstrip("/"))
    if not 0 <= fixed < size:
        raise ValueError(f"the bits after '/' must be 0 to {size - 1}")
    free = (1 << (size - fixed)) - 1
    value, width = int.from_bytes(packed), size // 4
    return DigitRange(f"{value & ~free:0{width}X}", f"{value | free:0{width}X}")
