"""Identifiers: sortable ones for things that are made, hashes for things that are derived.

`new_id` gives `run_01JD3...`: a prefix that says what it is, 48 bits of milliseconds and 80 random
bits in Crockford's base 32 (the ULID layout, https://github.com/ulid/spec), so ids sort by time
of creation and may be made anywhere without asking anybody. `digest` and `derived_id` are for
identities that must come out the same wherever and whenever they are computed.
"""

from __future__ import annotations

import hashlib
import secrets

from augury import clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """A new, unique, time-sortable id such as `run_01JD3Z9K8M2V5QWERTYABCDEFG`."""
    value = int(clock.utc_now().timestamp() * 1000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def digest(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def derived_id(prefix: str, *parts: str) -> str:
    """An id that follows from `parts` alone: the same parts give the same id, everywhere.

    Parts are length-prefixed before hashing, so that ("a", "bc") and ("ab", "c") differ.
    """
    joined = b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode() for part in parts))
    return f"{prefix}_{hashlib.sha256(joined).hexdigest()[:32]}"
