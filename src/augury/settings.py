"""The only reader of the environment.

Every setting is an environment variable with the prefix `AUGURY_`; all have defaults that make an
embedded engine under `AUGURY_HOME` work with nothing set. `docs/settings.md` lists them, and a
house test fails when one is missing there.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import tempfile
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_SECRET = "AUGURY_SECRET_"  # noqa: S105 - the beginning of a variable's name


class Settings(BaseSettings):
    """All settings of one process; read once, then frozen."""

    model_config = SettingsConfigDict(env_prefix="AUGURY_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".augury"), description="Folder of an embedded engine.")
    namespace: str = Field(default="augury", description="Prefix of all Redis keys.")
    redis_url: str = Field(default="", description="Bus (Redis or Valkey); empty: embedded Valkey.")
    broker_url: str = Field(default="", description="Celery broker; empty: the bus's server.")
    database_url: str = Field(default="", description="Ledger; empty: SQLite under home.")
    store_url: str = Field(default="", description="Object store of artifacts; empty: home/store.")
    cache_dir: Path | None = Field(default=None, description="Model cache; empty: home/cache.")
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8470, ge=0, le=65535, description="Port the API listens on; 0: any.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(default=False, description="Log JSON lines instead of text.")
    router_batch: int = Field(default=500, ge=1, description="Most deliveries in one transaction.")
    router_claim_idle_s: float = Field(
        default=5.0,
        gt=0,
        description="Seconds after which a silent router's deliveries are taken over.",
    )
    heartbeat_s: float = Field(default=2.0, gt=0, description="Seconds between worker heartbeats.")
    lease_timeout_s: float = Field(
        default=8.0, gt=0, description="Seconds without a heartbeat after which leases expire."
    )
    sweep_s: float = Field(default=1.0, gt=0, description="Seconds between two sweeps.")
    relay_s: float = Field(
        default=0.5, gt=0, description="Seconds between two looks at the outbox."
    )
    resend_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds after which an event not yet in the ledger is sent again.",
    )
    list_s: float = Field(
        default=10.0, gt=0, description="Seconds between two listings of a source."
    )
    quiet_s: float = Field(
        default=2.0,
        ge=0,
        description="Seconds without change after which a non-Parquet object is complete.",
    )
    drain_s: float = Field(
        default=10.0, ge=0, description="Seconds a stopping process may finish its work."
    )
    resume_days: float = Field(
        default=7.0,
        ge=0,
        description="Days for which a failed or canceled run keeps its parts, to be resumed.",
    )
    duplicate_window_days: int = Field(
        default=90, ge=1, description="Days for which (source, id) of an event is remembered."
    )
    retain_events_days: float = Field(
        default=0.0,
        ge=0,
        description="Days after which events move from the ledger to files in the store; 0: never.",
    )
    archive_events: int = Field(
        default=5_000, ge=1, description="Most events in one file of the archive."
    )
    scratch_dir: Path | None = Field(
        default=None, description="Folder for the working folders of script runs; empty: home/work."
    )
    worker_cpus: int = Field(default=0, ge=0, description="CPUs of one worker; 0: all of the host.")
    max_event_bytes: int = Field(
        default=262_144, ge=1, description="Largest accepted event, in bytes."
    )
    dispatch_s: float = Field(
        default=0.2, gt=0, description="Seconds between two looks for effects that are due."
    )
    dispatch_concurrency: int = Field(
        default=4, ge=1, description="Deliveries to one target at once, per dispatcher."
    )
    dispatch_threads: int = Field(
        default=32, ge=1, description="Deliveries at once, per dispatcher."
    )
    webhook_networks: str = Field(
        default="",
        description="Private networks that webhooks may reach, as CIDRs separated by commas.",
    )
    functions: str = Field(
        default="",
        description="Modules that register functions for `call`, separated by commas.",
    )
    s3_endpoint: str = Field(default="", description="Endpoint of an S3 server that is not AWS.")
    s3_region: str = Field(default="us-east-1", description="Region for S3.")
    s3_access_key_id: str = Field(default="", description="S3 key id; empty: the usual AWS chain.")
    s3_secret_access_key: str = Field(default="", description="S3 secret.")

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in filter(None, (part.strip() for part in text.split(","))):
            ipaddress.ip_network(part)
        return text

    @cached_property
    def absolute_home(self) -> Path:
        """`home`, independent of later changes of the working folder."""
        return self.home.expanduser().absolute()

    @cached_property
    def runtime_dir(self) -> Path:
        """Short folder for sockets (socket paths end at about 107 bytes), derived from home."""
        tag = hashlib.sha256(str(self.absolute_home).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"augury-{os.getuid()}" / tag

    @property
    def embedded_redis(self) -> bool:
        """True if this engine starts its own Valkey."""
        return not self.redis_url

    @property
    def effective_redis_url(self) -> str:
        """The bus's address."""
        return self.redis_url or f"unix://{self.runtime_dir / 'valkey.sock'}?db=0"

    @property
    def effective_broker_url(self) -> str:
        """The Celery broker's address (kombu's form of a socket address is its own)."""
        url = self.broker_url or self.effective_redis_url
        if url.startswith("unix://"):
            path, _, query = url.removeprefix("unix://").partition("?")
            return f"redis+socket://{path}?virtual_host={query.removeprefix('db=') or 0}"
        return url

    @property
    def effective_database_url(self) -> str:
        """The ledger's address, as SQLAlchemy writes it."""
        url = self.database_url or f"sqlite:///{self.absolute_home / 'augury.db'}"
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    @property
    def effective_store_url(self) -> str:
        """Where Augury keeps artifacts (models) of its own."""
        return self.store_url or f"file://{self.absolute_home / 'store'}"

    @property
    def effective_cache_dir(self) -> Path:
        """Folder on this host where models are unpacked once for all workers."""
        return self.cache_dir or self.absolute_home / "cache"

    @property
    def effective_scratch_dir(self) -> Path:
        """Folder on this host where script runs work."""
        return self.scratch_dir or self.absolute_home / "work"


def unknown_variables() -> list[str]:
    """Variables that look like settings and are none: most often a typing error."""
    known = {f"AUGURY_{name.upper()}" for name in Settings.model_fields}
    found = [name.upper() for name in os.environ]  # noqa: TID251 - the one place
    return sorted(
        name
        for name in found
        if name.startswith("AUGURY_") and name not in known and not name.startswith(_SECRET)
    )


def secret(name: str) -> str | None:
    """The secret that rules call `name`: what `AUGURY_SECRET_{name}` holds; None if not set."""
    return os.environ.get(f"{_SECRET}{name}")  # noqa: TID251 - the one place


def export_environment(values: Mapping[str, str]) -> None:
    """Sets variables for this process, so that what it forks or starts reads them."""
    os.environ.update(values)  # noqa: TID251 - the one place


def child_environment(**overrides: str) -> dict[str, str]:
    """This process's environment for a child process, with `overrides` on top."""
    return {**os.environ, **overrides}  # noqa: TID251 - the one place


def passed_environment(names: Collection[str], *prefixes: str) -> dict[str, str]:
    """Those variables of this process that have one of the names, or begin with a prefix."""
    return {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - the one place
        if name in names or name.startswith(prefixes)
    }
