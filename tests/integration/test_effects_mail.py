"""Mail to a real SMTP server: encryption, login, refusals."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from effects_world import QUICK, EffectsWorld
from routing_world import event

from augury.actions.failures import DeliveryError
from augury.actions.mail import parse_server
from augury.storage import tables

LOGIN = ("augury", "pa:ss/word")


class Mailbox:
    """What arrived, and what is refused."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.recipients: list[list[str]] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refusals: dict[str, list[str]] = {}

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, _: Any
    ) -> str:
        refusals = self.refusals.get(address)
        if refusals:
            return refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.append(message_from_bytes(envelope.content, policy=default))
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"

    def authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _kind: Any, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        right = (data.login.decode(), data.password.decode()) == LOGIN
        return AuthResult(success=right, handled=False)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def serve(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    with socket.socket() as probe:  # the controller wants to know its port before
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture
def plain(mailbox: Mailbox) -> Iterator[int]:
    yield from serve(mailbox)


@pytest.fixture
def starttls(mailbox: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    yield from serve(
        mailbox, tls_context=context, require_starttls=True, authenticator=mailbox.authenticate
    )


@pytest.fixture
def tls(mailbox: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    yield from serve(mailbox, ssl_context=context)


def mail(**fields: Any) -> dict[str, Any]:
    usual = {
        "sender": "Augury <augury@example.com>",
        "to": ["ops@example.com", "${data.owner}"],
        "subject": "Run ${data.run} faïled",
        "text": "See ${data.run}.\n\nBye",
    }
    return {"notify": {"email": usual | fields, "retry": QUICK}}


FAILED = event(id="a", run="r7", owner="owner@example.com")


def test_a_mail_arrives_over_starttls_after_a_login(
    effects_world: EffectsWorld, mailbox: Mailbox, starttls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"smtp+starttls://augury:pa%3Ass%2Fword@localhost:{starttls}"
    monkeypatch.setenv("AUGURY_SECRET_SMTP", url)
    effects_world.owe(mail(), events=[FAILED])
    effects_world.settle(effects_world.dispatcher())
    (message,) = mailbox.received
    (effect,) = effects_world.effects()
    assert message["from"] == "Augury <augury@example.com>"
    assert message["subject"] == "Run r7 faïled"
    assert message["message-id"] == f"<{effect.id}@augury>"
    assert message.get_content().replace("\r\n", "\n") == "See r7.\n\nBye\n"
    assert mailbox.recipients == [["ops@example.com", "owner@example.com"]]
    assert mailbox.logins == [(LOGIN[0].encode(), LOGIN[1].encode())]
    assert effects_world.states() == [("a", "DELIVERED", None)]


def test_a_mail_arrives_over_tls(
    effects_world: EffectsWorld, mailbox: Mailbox, tls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_SECRET_SMTP", f"smtps://localhost:{tls}")
    effects_world.owe(mail(), events=[FAILED])
    effects_world.settle(effects_world.dispatcher())
    assert len(mailbox.received) == 1


def test_a_wrong_password_is_dead_at_once_and_not_shown(
    effects_world: EffectsWorld, starttls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"smtp+starttls://augury:wrong-password@localhost:{starttls}"
    monkeypatch.setenv("AUGURY_SECRET_SMTP", url)
    effects_world.owe(mail(), events=[FAILED])
    effects_world.settle(effects_world.dispatcher())
    ((_, state, reason),) = effects_world.states()
    assert (state, "535" in str(reason)) == ("DEAD", True)
    assert "wrong-password" not in str(effects_world.rows(tables.dead_letters))


def test_without_encryption_nothing_is_sent_where_it_was_promised(
    effects_world: EffectsWorld, mailbox: Mailbox, plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_SECRET_SMTP", f"smtp+starttls://localhost:{plain}")
    monkeypatch.setenv("AUGURY_SECRET_OPEN", f"smtp://u:pass-word@localhost:{plain}")
    effects_world.owe(mail(), mail(url_secret="OPEN") | {"name": "open"}, events=[FAILED])
    effects_world.settle(effects_world.dispatcher())
    reasons = {action: str(reason) for _, action, _, reason in effects_world.outcomes()}
    assert "the server cannot do it: STARTTLS" in reasons["notify"]
    assert "no password is sent over it" in reasons["open"]
    assert mailbox.received == []


def test_refusals_are_told_apart(
    effects_world: EffectsWorld, mailbox: Mailbox, plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_SECRET_SMTP", f"smtp://localhost:{plain}")
    mailbox.refusals = {
        "busy@example.com": ["451 try later"],
        "nobody@example.com": ["550 no such user"],
    }
    effects_world.owe(
        mail(to="busy@example.com"),
        mail(to="nobody@example.com") | {"name": "gone"},
        events=[FAILED],
    )
    effects_world.settle(effects_world.dispatcher())
    found = {action: (state, reason) for _, action, state, reason in effects_world.outcomes()}
    assert found["notify"] == ("DELIVERED", None)
    assert found["gone"][0] == "DEAD"
    assert "nobody@example.com: 550 no such user" in str(found["gone"][1])
    attempts = {effect.action: effect.attempts for effect in effects_world.effects()}
    assert attempts == {"notify": 2, "gone": 1}


def test_a_server_that_is_away_is_tried_again(
    effects_world: EffectsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGURY_SECRET_SMTP", "smtp://localhost:1")
    effects_world.owe(mail(), events=[FAILED])
    dispatcher = effects_world.dispatcher()
    effects_world.until(lambda: effects_world.states()[0][1] == "RETRYING", dispatcher)
    assert "Connection refused" in str(effects_world.states()[0][2])


@pytest.mark.parametrize("url", ["localhost", "http://localhost", "smtp://", "smtps://h:x"])
def test_what_is_no_server_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(DeliveryError, match="smtps://user:password@host:465") as caught:
        parse_server(url)
    assert caught.value.is_permanent


def test_a_login_that_smtp_cannot_send_is_refused() -> None:
    with pytest.raises(DeliveryError, match="ASCII"):
        parse_server("smtps://u:p%C3%B6@localhost")
