"""One attempt to deliver one effect, whatever its kind."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from augury.actions import mail, streams
from augury.actions.effects import Effect
from augury.actions.failures import DeliveryError
from augury.actions.network import parse_networks
from augury.actions.secrets import Secrets
from augury.actions.webhook import Webhooks
from augury.settings import Settings

_log = logging.getLogger(__name__)
_LONGEST_ERROR = 1000

type Send = Callable[[str, Mapping[str, Any], Secrets], None]


class Delivery:
    """Delivers what a dispatcher has claimed; safe to share among threads.

    Args:
        settings: say which private networks may be reached.
    """

    def __init__(self, settings: Settings) -> None:
        webhooks = Webhooks(parse_networks(settings.webhook_networks))
        self._send: Mapping[str, Send] = {
            "webhook": webhooks.send_webhook,
            "slack": webhooks.send_slack,
            "email": mail.send_mail,
            "redis_stream": streams.add_to_redis,
            "queue": streams.publish_to_queue,
        }

    def attempt(self, effect: Effect) -> DeliveryError | None:
        """Delivers an effect once; None if the outside confirmed it, else why it did not."""
        secrets = Secrets()
        try:
            send = self._send.get(effect.kind)
            if send is None:
                raise DeliveryError(f"no effect of kind {effect.kind!r}", is_permanent=True)
            send(effect.id, effect.request, secrets)
        except DeliveryError as error:
            return _scrubbed(error, secrets)
        except Exception as error:  # a fault of ours: not the target's, and perhaps not for ever
            told = secrets.scrub(traceback.format_exc())
            _log.error("%s", told, extra={"action": "delivery_failed", "effect": effect.id})
            return _scrubbed(DeliveryError(f"unexpected: {error!r}"), secrets)
        return None


def _scrubbed(error: DeliveryError, secrets: Secrets) -> DeliveryError:
    return DeliveryError(
        secrets.scrub(error.message)[:_LONGEST_ERROR],
        is_permanent=error.is_permanent,
        retry_after_s=error.retry_after_s,
    )
