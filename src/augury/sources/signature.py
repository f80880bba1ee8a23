"""Whether a webhook's sender knows the shared secret: pure.

Three ways, each as its senders do it. Standard Webhooks (https://www.standardwebhooks.com) sign id,
timestamp and body, so an old request cannot be sent again later; GitHub's signs the body, and a
repeated request is known by its id; where a sender can sign nothing (SNS, Event Grid, Pub/Sub, OCI,
MinIO) the secret itself travels, which needs TLS. Everything is compared in constant time, and no
message says how near a wrong signature was.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from augury.errors import UnauthorizedError
from augury.sources.spec import Signature

_PREFIX = "whsec_"
_MOST_SIGNATURES = 20


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request to a webhook.

    Attributes:
        headers: by lower-case name.
        body: as received.
        token: `access_token` of the URL; empty if there is none.
    """

    headers: Mapping[str, str]
    body: bytes
    token: str = ""


def verify(
    call: Call, *, signature: Signature, secret: str, now: datetime, tolerance_s: float
) -> None:
    """Returns if the sender knows the secret.

    Args:
        call: the request.
        signature: how its sender proves it.
        secret: the shared secret; for Standard Webhooks also as `whsec_` with base 64 behind it.
        now: what a timestamp is compared with.
        tolerance_s: how far a timestamp may be from now, before or behind.

    Raises:
        UnauthorizedError: it does not; the message says what was expected, never what would fit.
    """
    if signature is Signature.STANDARD:
        _standard(call, secret, now, tolerance_s)
    elif signature is Signature.GITHUB:
        _github(call, secret)
    else:
        _token(call, secret)


def _standard(call: Call, secret: str, now: datetime, tolerance_s: float) -> None:
    message_id = call.headers.get("webhook-id", "")
    timestamp = call.headers.get("webhook-timestamp", "")
    given = call.headers.get("webhook-signature", "")
    if not (message_id and given and timestamp.isascii() and timestamp.isdigit()):
        raise UnauthorizedError(
            "expected the headers webhook-id, webhook-timestamp (seconds since 1970) and "
            "webhook-signature of Standard Webhooks"
        )
    if len(timestamp) > 12 or abs(now.timestamp() - int(timestamp)) > tolerance_s:
        raise UnauthorizedError(
            f"expected a webhook-timestamp within {tolerance_s:.0f} s of now, found {timestamp:.12}"
        )
    signed = f"{message_id}.{timestamp}.".encode() + call.body
    expected = base64.b64encode(_hmac(_key(secret), signed))
    found = [part.removeprefix("v1,") for part in given.split(" ")[:_MOST_SIGNATURES]]
    _demand(any([_same(each.encode(), expected) for each in found]))  # noqa: C419 - all, always


def _github(call: Call, secret: str) -> None:
    given = call.headers.get("x-hub-signature-256", "")
    if not given.startswith("sha256="):
        raise UnauthorizedError("expected the header X-Hub-Signature-256: sha256=...")
    expected = _hmac(secret.encode(), call.body).hex()
    _demand(_same(given.removeprefix("sha256=").encode(), expected.encode()))


def _token(call: Call, secret: str) -> None:
    scheme, _, given = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        given = _password(given)
    found = given or call.token
    if not found:
        raise UnauthorizedError(
            "expected the secret as Authorization: Bearer ..., as the password of Authorization: "
            "Basic ..., or as access_token in the URL"
        )
    _demand(_same(found.encode(), secret.encode()))


def _password(coded: str) -> str:
    try:
        return base64.b64decode(coded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return secret.encode()


def _hmac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def _same(found: bytes, expected: bytes) -> bool:
    return hmac.compare_digest(found, expected)


def _demand(fits: bool) -> None:
    if not fits:
        raise UnauthorizedError("the signature or token does not fit this body and our secret")
