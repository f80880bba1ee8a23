"""Webhooks and Slack: one POST, signed, to an address that was looked at, without redirects.

The signature is that of https://www.standardwebhooks.com (version v1, symmetric): HMAC-SHA256 over
`{webhook-id}.{webhook-timestamp}.{body}`. The id is the outcome's and the same in every attempt, so
a receiver that remembers ids acts once; the timestamp is the attempt's, so one that refuses old
ones cannot be fed a recorded request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpcore
import msgspec

from augury import clock
from augury.actions.failures import DeliveryError, retry_after_s, status_is_permanent
from augury.actions.network import CheckedBackend, Network
from augury.actions.secrets import Secrets

_PREFIX = "whsec_"
# of an answer, for people; the rest is not read
_EXCERPT_BYTES = 300
# what a URL may hold; everything else is percent-encoded, as browsers do
_URL_SAFE = "%/:?#[]@!$&'()*+,;=~"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`.

    Args:
        secret: `whsec_` and the key in base 64; anything else is taken as the key itself.
        message_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`, seconds since 1970.
        body: exactly as sent.

    Raises:
        ValueError: what follows `whsec_` is not base 64.
    """
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError(f"expected base 64 after {_PREFIX}: {error}") from error
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhooks:
    """Sends webhooks; safe to share among threads.

    Args:
        networks: that may be reached although they are not public.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self._tls = ssl.create_default_context()

    def send_webhook(self, effect_id: str, request: Mapping[str, Any], secrets: Secrets) -> None:
        """Sends an effect of kind `webhook` once.

        Raises:
            DeliveryError: anything but 2xx.
        """
        headers = dict(request["headers"])
        for name, secret in request["secret_headers"].items():
            headers[name] = secrets.get(secret)
        body = msgspec.json.encode(request["body"])
        timestamp = int(clock.utc_now().timestamp())
        headers |= {"webhook-id": effect_id, "webhook-timestamp": str(timestamp)}
        if request["signing_secret"] is not None:
            key = secrets.get(request["signing_secret"])
            headers["webhook-signature"] = _signature(key, effect_id, timestamp, body)
        url = request["url"] or secrets.get(request["url_secret"])
        headers = {"content-type": request["content_type"], **headers}
        self._post(url, headers, body, request["timeout_s"])

    def send_slack(self, effect_id: str, request: Mapping[str, Any], secrets: Secrets) -> None:
        """Sends an effect of kind `slack` once.

        Raises:
            DeliveryError: anything but 2xx.
        """
        body = msgspec.json.encode({"text": request["text"]})
        headers = {"content-type": "application/json", "webhook-id": effect_id}
        self._post(secrets.get(request["url_secret"]), headers, body, request["timeout_s"])

    def _post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
        try:
            status, answered, excerpt = self._exchange(url, headers, body, timeout_s)
        except httpcore.TimeoutException as error:
            raise DeliveryError(f"no answer within {timeout_s:g} s") from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError, OSError) as error:
            raise DeliveryError(f"no answer: {error or type(error).__name__}") from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
            raise DeliveryError(f"no request can be made: {error}", is_permanent=True) from error
        if not 200 <= status < 300:
            raise _refused(status, answered, excerpt)

    def _exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> tuple[int, dict[str, str], str]:
        ours = {"host": _host(url), "user-agent": "augury", "connection": "close"}
        whole = [*ours.items(), ("content-length", str(len(body))), *headers.items()]
        request = httpcore.Request("POST", quote(url, safe=_URL_SAFE), headers=whole, content=body)
        connection = httpcore.HTTPConnection(
            request.url.origin,
            ssl_context=self._tls,
            network_backend=CheckedBackend(self._networks, timeout_s),
        )
        try:
            response = connection.handle_request(request)
            answered = {
                name.decode().lower(): text.decode("latin-1") for name, text in response.headers
            }
            return response.status, answered, _excerpt(response)
        finally:
            connection.close()


def _signature(key: str, effect_id: str, timestamp: int, body: bytes) -> str:
    try:
        return sign(key, effect_id, timestamp, body)
    except ValueError as error:
        raise DeliveryError(f"no signature can be made: {error}", is_permanent=True) from error


def _host(url: str) -> str:
    """The header `host`: name and port as the URL has them, without user and password."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]


def _excerpt(response: httpcore.Response) -> str:
    """The beginning of the answer, if it comes; what it says decides nothing."""
    read = b""
    if not 200 <= response.status < 300:
        for part in response.iter_stream():
            read += part
            if len(read) >= _EXCERPT_BYTES:
                break
    return read[:_EXCERPT_BYTES].decode("utf-8", "replace").strip()


def _refused(status: int, headers: Mapping[str, str], excerpt: str) -> DeliveryError:
    said = f": {excerpt}" if excerpt else ""
    if 300 <= status < 400:
        said = f": a redirect to {headers.get('location', 'nowhere')}, which is never followed"
    return DeliveryError(
        f"answered with {status}{said}",
        is_permanent=status_is_permanent(status),
        retry_after_s=retry_after_s(headers.get("retry-after"), clock.utc_now()),
    )
