"""The questions that a provider asks before it sends: is this endpoint yours, and do you want this?

Answered without ever following an address from a message, so nobody can make us call what they
like. Event Grid wants its code back in the answer (its validation URL is never opened), CloudEvents
webhooks an allowed origin. SNS wants a call: its address is built from the topic that the *source*
names, only the token is taken from the message, and redirects are not followed.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from augury.errors import InvalidError, UnavailableError
from augury.events.normalise.notice import at, short, text
from augury.sources.signature import Call

_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_SNS_TYPE = "x-amz-sns-message-type"
_CONFIRMATION = "SubscriptionConfirmation"
_TIMEOUT_S = 10.0

type Fetch = Callable[[str, str], int]


def answer_handshake(
    call: Call, document: Any, *, topic: str | None, fetch: Fetch | None = None
) -> Mapping[str, Any] | None:
    """The answer to a handshake; None if the request is none.

    Args:
        call: the request, verified.
        document: its body, decoded.
        topic: ARN of the SNS topic that the source wants to hear of.
        fetch: calls a host and path over TLS and gives the status; None: really.

    Raises:
        InvalidError: SNS asks for another topic than the source names.
        UnavailableError: SNS did not take the confirmation; it asks again.
    """
    if call.headers.get("aeg-event-type") == "SubscriptionValidation":
        return _event_grid(document)
    if call.headers.get(_SNS_TYPE) == _CONFIRMATION or at(document, "Type") == _CONFIRMATION:
        return _sns(document, topic, fetch or _get)
    return None


def allowed_origin(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that answer the OPTIONS request of a CloudEvents webhook.

    Raises:
        InvalidError: it is no such request.
    """
    origin = headers.get("webhook-request-origin", "")
    if not origin or len(origin) > 255 or not origin.isprintable():
        raise InvalidError("expected the header WebHook-Request-Origin of a CloudEvents webhook")
    return {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}


def _event_grid(document: Any) -> Mapping[str, Any]:
    events = document if isinstance(document, list) else [document]
    for event in events:
        code = short(event, "data", "validationCode")
        if text(event, "eventType") == _VALIDATION and code is not None:
            return {"validationResponse": code}
    raise InvalidError(f"expected an event of type {_VALIDATION} with a validationCode")


def _sns(document: Any, topic: str | None, fetch: Fetch) -> Mapping[str, Any]:
    asked, token = short(document, "TopicArn"), text(document, "Token")
    if topic is None or asked != topic:
        raise InvalidError(
            f"expected the subscription of topic {topic or 'that the source names as `topic`'}, "
            f"found {asked!r}; set `topic` of the source, then let SNS ask again"
        )
    if token is None or len(token) > 2048:
        raise InvalidError("expected a Token in the confirmation")
    host, path = confirmation_address(topic, token)
    status = fetch(host, path)
    if status != 200:
        raise UnavailableError(f"SNS answered {status} to the confirmation of {topic}")
    return {"confirmed": topic}


def confirmation_address(topic: str, token: str) -> tuple[str, str]:
    """Host and path that confirm a subscription, from the topic's own ARN."""
    _, partition, _, region, *_ = topic.split(":")
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    query = urlencode({"Action": "ConfirmSubscription", "TopicArn": topic, "Token": token})
    return f"sns.{region}.{suffix}", f"/?{query}"


def _get(host: str, path: str) -> int:
    """Status of a GET over TLS; redirects are not followed."""
    connection = http.client.HTTPSConnection(
        host, timeout=_TIMEOUT_S, context=ssl.create_default_context()
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{host} did not answer: {error}") from error
    finally:
        connection.close()


def decoded(body: bytes) -> Any:
    """The body as JSON.

    Raises:
        InvalidError: it is none.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidError(f"expected a body in JSON: {error}") from error
