"""Mail by SMTP: one message, encrypted on its way unless its URL says otherwise.

The server's URL is a secret, because a login is part of it. `smtps://` speaks TLS from the first
byte, `smtp+starttls://` refuses to go on without STARTTLS, `smtp://` does neither and refuses to
send a password. The Message-ID is made from the outcome's id, so a second delivery is recognised
by whoever looks.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from augury import clock
from augury.actions.failures import DeliveryError
from augury.actions.secrets import Secrets

_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, kw_only=True)
class Server:
    """An SMTP server as its URL names it."""

    scheme: str
    host: str
    port: int
    user: str
    password: str


def parse_server(url: str) -> Server:
    """Reads `smtp+starttls://user:password@host:587`.

    Raises:
        DeliveryError: it is no such URL; the message does not show it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise DeliveryError(
            "expected a URL such as smtps://user:password@host:465, smtp+starttls://host:587 or "
            "smtp://host:25 as the secret",
            is_permanent=True,
        )
    if parts.scheme == "smtp" and parts.username:
        raise DeliveryError(
            "smtp:// does not encrypt, so no password is sent over it: use smtps:// or "
            "smtp+starttls://",
            is_permanent=True,
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (user + password).isascii():
        raise DeliveryError(
            "SMTP logins are sent as ASCII: user and password must be", is_permanent=True
        )
    return Server(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        user=user,
        password=password,
    )


def send_mail(effect_id: str, request: Mapping[str, Any], secrets: Secrets) -> None:
    """Sends an effect of kind `email` once.

    Raises:
        DeliveryError: the server did not take it for every recipient.
    """
    server = parse_server(secrets.get(request["url_secret"]))
    message = _message(effect_id, request)
    try:
        refused = _send(server, message, request["timeout_s"])
    except smtplib.SMTPRecipientsRefused as error:
        raise _recipients_refused(error.recipients) from error
    except smtplib.SMTPResponseException as error:
        raise _answered(error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        raise DeliveryError(f"the server cannot do it: {error}", is_permanent=True) from error
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryError(f"no answer: {error or type(error).__name__}") from error
    if refused:
        raise _recipients_refused(refused)


def _message(effect_id: str, request: Mapping[str, Any]) -> EmailMessage:
    message = EmailMessage()
    message["From"] = request["sender"]
    message["To"] = ", ".join(request["to"])
    message["Subject"] = request["subject"]
    message["Message-ID"] = f"<{effect_id}@augury>"
    message["Date"] = format_datetime(clock.utc_now())
    message["Auto-Submitted"] = "auto-generated"  # nobody's autoreply should answer
    message.set_content(request["text"])
    return message


def _send(server: Server, message: EmailMessage, timeout_s: float) -> Mapping[str, Any]:
    context = ssl.create_default_context()
    with _connection(server, timeout_s, context) as connection:
        connection.ehlo()
        if server.scheme == "smtp+starttls":
            connection.starttls(context=context)
            connection.ehlo()
        if server.user:
            connection.login(server.user, server.password)
        return connection.send_message(message)


def _connection(server: Server, timeout_s: float, context: ssl.SSLContext) -> smtplib.SMTP:
    if server.scheme == "smtps":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=timeout_s, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=timeout_s)


def _answered(code: int, text: bytes | str) -> DeliveryError:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    # 5xx is the server's word for permanent; -1 stands for a connection that broke
    return DeliveryError(f"answered with {code}: {said}", is_permanent=500 <= code < 600)


def _recipients_refused(refused: Mapping[str, tuple[int, bytes]]) -> DeliveryError:
    said = "; ".join(
        f"{address}: {code} {text.decode('utf-8', 'replace')}"
        for address, (code, text) in sorted(refused.items())
    )
    is_permanent = all(500 <= code < 600 for code, _ in refused.values())
    return DeliveryError(f"recipients were refused: {said}", is_permanent=is_permanent)
