"""Messages into Redis streams, and into whatever broker kombu speaks.

Each waits until the other side has confirmed: Redis by its answer, AMQP by a publisher confirm (and
a message that no queue takes comes back, which is an error and not silence). A second delivery
carries the same id: the field `id` of a stream's entry, the message id of a queue's message.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from augury.actions.failures import DeliveryError
from augury.actions.secrets import Secrets

_AMQP = frozenset({"amqp", "amqps", "pyamqp"})
# access refused, not found, precondition failed, not allowed
_PERMANENT_REPLIES = frozenset({403, 404, 406, 530})


def add_to_redis(effect_id: str, request: Mapping[str, Any], secrets: Secrets) -> None:
    """Adds an effect of kind `redis_stream` once.

    Raises:
        DeliveryError: the server did not take it.
    """
    import redis

    url = request["url"] or secrets.get(request["url_secret"])
    timeout_s = request["timeout_s"]
    fields = {
        "id": effect_id,
        "type": request["event_type"],
        "body": msgspec.json.encode(request["body"]),
    }
    try:
        with redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        ) as client:
            client.xadd(request["stream"], fields, maxlen=request["max_length"])
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise DeliveryError(f"refused: {error}", is_permanent=True) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise DeliveryError(f"no answer: {error}") from error
    except redis.ResponseError as error:
        raise DeliveryError(f"refused: {error}", is_permanent=_is_wrong(error)) from error
    except (redis.RedisError, ValueError) as error:
        raise DeliveryError(f"no request can be made: {error}", is_permanent=True) from error


def _is_wrong(error: Exception) -> bool:
    """True if the request is at fault, not the server's present condition."""
    return str(error).split(" ")[0] in {"WRONGTYPE", "NOPERM", "NOAUTH", "ERR"}


def publish_to_queue(effect_id: str, request: Mapping[str, Any], secrets: Secrets) -> None:
    """Publishes an effect of kind `queue` once.

    Raises:
        DeliveryError: the broker did not take it, or has no queue for it.
    """
    url = request["url"] or secrets.get(request["url_secret"])
    connection = _connection(url, request["timeout_s"])
    try:
        returned = _publish(connection, effect_id, request)
    except (*connection.connection_errors, *connection.channel_errors, OSError) as error:
        is_permanent = getattr(error, "reply_code", None) in _PERMANENT_REPLIES
        raise DeliveryError(f"refused: {error!r}", is_permanent=is_permanent) from error
    finally:
        with suppress(Exception):  # it may be broken; what counts has been confirmed, or not
            connection.release()
    if returned:
        raise DeliveryError(f"no queue takes it: {returned[0]}", is_permanent=True)


def _connection(url: str, timeout_s: float) -> Any:
    import kombu

    options: dict[str, Any] = {"socket_connect_timeout": timeout_s, "socket_timeout": timeout_s}
    if url.partition("://")[0] in _AMQP:
        options = {"confirm_publish": True, "read_timeout": timeout_s, "write_timeout": timeout_s}
    try:
        connection = kombu.Connection(
            url, connect_timeout=timeout_s, transport_options=options, heartbeat=0
        )
        connection.transport  # noqa: B018 - finds the transport, or says that there is none
    except (KeyError, ValueError, ImportError) as error:
        raise DeliveryError(f"no broker of this kind: {error!r}", is_permanent=True) from error
    return connection


def _publish(connection: Any, effect_id: str, request: Mapping[str, Any]) -> list[str]:
    """Publishes and waits for the confirm; returns why the message came back, if it did."""
    import kombu

    returned: list[str] = []

    def on_return(error: Exception, *_: Any) -> None:
        returned.append(str(error))

    channel = connection.channel()
    # only AMQP gives messages back; the others make the queue or refuse at once
    returns = on_return if hasattr(channel, "events") else None
    producer = kombu.Producer(channel, on_return=returns)
    producer.publish(
        msgspec.json.encode(request["body"]),
        exchange=request["exchange"] or "",
        routing_key=request["queue"] or request["routing_key"] or "",
        content_type=request["content_type"],
        content_encoding="utf-8",
        delivery_mode=2,
        mandatory=True,
        message_id=effect_id,
        headers={"augury-id": effect_id, "augury-type": request["event_type"]},
        timeout=request["timeout_s"],
        confirm_timeout=request["timeout_s"],
    )
    return returned
