"""Fixtures that several files of this folder need."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Cli, command_line
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from effects_world import EffectsWorld, Outside

from augury.settings import Settings
from augury.storage.database import Database


@pytest.fixture
def cli(
    settings: Settings,
    sqlite_database: Database,
    bus_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """The command line in an empty folder, over a ledger and a bus of the test's own."""
    wired = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    folder = tmp_path / "work"
    folder.mkdir()
    with command_line(wired, folder, monkeypatch, capsys) as found:
        yield found


@pytest.fixture
def effects_world(
    sqlite_database: Database, settings: Settings, bus_url: str
) -> Iterator[EffectsWorld]:
    """A ledger on SQLite whose rules act outside."""
    wired = settings.model_copy(update={"database_url": sqlite_database.url, "redis_url": bus_url})
    world = EffectsWorld(sqlite_database, wired)
    yield world
    world.bus.close()


@pytest.fixture(scope="module")
def _outside() -> Iterator[Outside]:
    server = Outside()
    yield server
    server.close()


@pytest.fixture
def outside(_outside: Outside) -> Outside:
    """A real HTTP server that nobody has told anything yet."""
    _outside.received.clear()
    _outside.answers.clear()
    _outside.always.clear()
    return _outside


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path
