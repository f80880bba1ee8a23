"""Only who knows the secret gets in, and only now."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest

from augury.errors import InvalidError, UnauthorizedError, UnavailableError
from augury.sources.handshake import allowed_origin, answer_handshake, confirmation_address
from augury.sources.signature import Call, verify
from augury.sources.spec import Signature

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BODY = b'{"n":1}'
KEY = b"0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()


def standard(body: bytes = BODY, key: bytes = KEY, at: int | str | None = None, **h: str) -> Call:
    timestamp = str(int(NOW.timestamp()) if at is None else at)
    signed = b"msg_1." + timestamp.encode() + b"." + body
    coded = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": timestamp}
    return Call(headers={**headers, "webhook-signature": f"v1,{coded}", **h}, body=BODY)


def github(body: bytes = BODY, key: bytes = KEY) -> Call:
    code = hmac.new(key, body, hashlib.sha256).hexdigest()
    return Call(headers={"x-hub-signature-256": f"sha256={code}"}, body=BODY)


def token(scheme: str, value: str) -> Call:
    return Call(headers={"authorization": f"{scheme} {value}"}, body=BODY)


def basic(password: str) -> Call:
    return token("Basic", base64.b64encode(f"user:{password}".encode()).decode())


def check(call: Call, signature: str, secret: str = KEY.decode()) -> None:
    verify(call, signature=Signature(signature), secret=secret, now=NOW, tolerance_s=300)


@pytest.mark.parametrize(
    ("signature", "call", "secret"),
    [
        ("standard", standard(), WHSEC),
        ("standard", standard(), KEY.decode()),
        ("standard", standard(at=int(NOW.timestamp()) - 299), WHSEC),
        ("standard", standard(at=int(NOW.timestamp()) + 299), WHSEC),
        ("github", github(), KEY.decode()),
        ("token", token("Bearer", KEY.decode()), KEY.decode()),
        ("token", token("bearer", KEY.decode()), KEY.decode()),
        ("token", basic(KEY.decode()), KEY.decode()),
        ("token", Call(headers={}, body=BODY, token=KEY.decode()), KEY.decode()),
    ],
)
def test_who_knows_the_secret_gets_in(signature: str, call: Call, secret: str) -> None:
    check(call, signature, secret)


def test_one_of_several_signatures_is_enough() -> None:
    call = standard()
    good = call.headers["webhook-signature"]
    check(standard(**{"webhook-signature": f"v1,AAAA v2,x {good}"}), "standard", WHSEC)


@pytest.mark.parametrize(
    ("signature", "call"),
    [
        ("standard", standard(body=b'{"n":2}')),
        ("standard", standard(key=b"another")),
        ("standard", standard(at=int(NOW.timestamp()) - 301)),
        ("standard", standard(at=int(NOW.timestamp()) + 301)),
        ("standard", standard(at="-5")),
        ("standard", standard(at="1e9")),
        ("standard", standard(at="9" * 30)),
        ("standard", standard(**{"webhook-id": ""})),
        ("standard", standard(**{"webhook-id": "msg_2"})),
        ("standard", standard(**{"webhook-signature": "v1,é"})),
        ("standard", Call(headers={}, body=BODY)),
        ("github", github(body=b'{"n":2}')),
        ("github", github(key=b"another")),
        ("github", Call(headers={"x-hub-signature-256": "sha256="}, body=BODY)),
        ("github", Call(headers={"x-hub-signature": "sha1=00"}, body=BODY)),
        ("token", token("Bearer", "wrong")),
        ("token", token("Bearer", "")),
        ("token", basic("wrong")),
        ("token", token("Basic", "%%%")),
        ("token", Call(headers={}, body=BODY)),
        ("token", standard()),
    ],
)
def test_who_does_not_is_refused(signature: str, call: Call) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        check(call, signature)
    assert KEY.decode() not in str(refused.value)


TOPIC = "arn:aws:sns:eu-central-1:123456789012:arrivals"
CONFIRMATION = {
    "Type": "SubscriptionConfirmation",
    "MessageId": "165545c9",
    "Token": "2336412f37&Action=Publish",
    "TopicArn": TOPIC,
    "SubscribeURL": "http://169.254.169.254/latest/meta-data/",
}


def call(**headers: str) -> Call:
    return Call(
        headers={name.replace("_", "-"): value for name, value in headers.items()}, body=b""
    )


def test_event_grid_gets_its_code_back() -> None:
    document = [
        {
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "data": {"validationCode": "512d38b6", "validationUrl": "http://127.0.0.1/"},
        }
    ]
    found = answer_handshake(call(aeg_event_type="SubscriptionValidation"), document, topic=None)
    assert found == {"validationResponse": "512d38b6"}
    with pytest.raises(InvalidError, match="validationCode"):
        answer_handshake(call(aeg_event_type="SubscriptionValidation"), [{}], topic=None)


def test_sns_is_called_where_the_source_says_and_nowhere_else() -> None:
    called: list[tuple[str, str]] = []

    def fetch(host: str, path: str) -> int:
        called.append((host, path))
        return 200

    headers = {"x_amz_sns_message_type": "SubscriptionConfirmation"}
    assert answer_handshake(call(**headers), CONFIRMATION, topic=TOPIC, fetch=fetch)
    ((host, path),) = called
    assert host == "sns.eu-central-1.amazonaws.com"
    assert path.count("Action=") == 1 and "Token=2336412f37%26Action%3DPublish" in path
    for topic in (None, TOPIC + "2"):
        with pytest.raises(InvalidError, match="set `topic` of the source"):
            answer_handshake(call(**headers), CONFIRMATION, topic=topic, fetch=fetch)
    assert len(called) == 1
    with pytest.raises(UnavailableError, match="SNS answered 403"):
        answer_handshake(call(), CONFIRMATION, topic=TOPIC, fetch=lambda _host, _path: 403)


def test_the_address_follows_from_the_topic() -> None:
    host, _ = confirmation_address("arn:aws-cn:sns:cn-north-1:123456789012:t", "x")
    assert host == "sns.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("document", [{}, [], None, 1, {"Type": "Notification"}])
def test_what_is_no_handshake(document: Any) -> None:
    assert answer_handshake(call(), document, topic=TOPIC) is None


def test_cloudevents_webhooks_are_allowed() -> None:
    found = allowed_origin({"webhook-request-origin": "eventgrid.azure.net"})
    assert found["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    for origin in ("", "a\nb", "x" * 300):
        with pytest.raises(InvalidError):
            allowed_origin({"webhook-request-origin": origin})
