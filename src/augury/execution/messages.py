"""The wake-up as a message: what `CeleryExecutor` sends and `celery_app` receives.

Celery's task message (protocol 2, https://docs.celeryq.dev/en/stable/internals/protocol.html) made
by hand, so that processes that only wake workers need not import Celery. Queues hang on the default
exchange, where a queue's name is its address: nothing has to be declared or bound on the broker,
hence a broker that forgot everything goes on working.
"""

from __future__ import annotations

import secrets
from typing import Any

from augury.settings import Settings

TASK = "augury.wake"


def wake_message(queue: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Body, headers and properties of a wake-up."""
    message_id = secrets.token_hex(16)
    headers = {
        "lang": "py",
        "task": TASK,
        "id": message_id,
        "root_id": message_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": f"('{queue}',)",
        "kwargsrepr": "{}",
        "origin": "augury",
        "ignore_result": True,
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return [[queue], {}, embed], headers, {"correlation_id": message_id, "reply_to": ""}


def transport_options(settings: Settings) -> dict[str, Any]:
    """What both ends must agree on; it says something to Redis and Valkey only."""
    if "redis" not in settings.effective_broker_url.partition(":")[0]:
        return {}
    return {
        "global_keyprefix": f"{settings.namespace}:broker:",
        # a message is a wake-up and need not come back: the sweeper sends new ones
        "visibility_timeout": 3600,
        "queue_order_strategy": "round_robin",
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "retry_on_timeout": True,
    }
