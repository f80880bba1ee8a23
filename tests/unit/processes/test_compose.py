"""docker-compose.yml says what the programs understand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from augury.settings import Settings

_FILE = Path(__file__).parents[3] / "docker-compose.yml"
_FOUNDATION = {"valkey", "postgres", "seaweedfs"}
_OURS = {"api", "router", "sources", "dispatcher", "sweeper", "relay", "worker", "cli"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text())
    return found


def test_every_process_is_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == _FOUNDATION | _OURS


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    known = {f"AUGURY_{name.upper()}" for name in Settings.model_fields}
    for name in _OURS:
        assert set(compose["services"][name]["environment"]) <= known, name


def test_settings_name_the_services(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in compose["services"]["api"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)}", r"\1", value))
    found = Settings()
    assert found.effective_redis_url == "redis://valkey:6379/0"
    assert found.effective_database_url == "postgresql+psycopg://augury:augury@postgres:5432/augury"
    assert found.s3_endpoint == "http://seaweedfs:8333"
    assert found.port == 8470
    assert compose["services"]["api"]["ports"] == ["127.0.0.1:8470:8470"]


def test_what_is_needed_is_healthy_first(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in _OURS:
        needed = services[name]["depends_on"]
        assert {key: value["condition"] for key, value in needed.items()} == dict.fromkeys(
            _FOUNDATION, "service_healthy"
        )
    for name in _FOUNDATION:
        assert "healthcheck" in services[name]


def test_valkey_keeps_what_was_accepted(compose: dict[str, Any]) -> None:
    command = compose["services"]["valkey"]["command"]
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--appendfsync"] == "always"
    assert flags["--maxmemory-policy"] == "noeviction"


def test_time_to_stop_is_longer_than_the_drain(compose: dict[str, Any]) -> None:
    for name in _OURS:
        grace_s = float(compose["services"][name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > Settings().drain_s


def test_named_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
    }
    assert mounted == set(compose["volumes"])


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for name in _FOUNDATION:
        tag = compose["services"][name]["image"].rpartition(":")[2]
        assert re.match(r"\d", tag), name


def test_the_build_exists(compose: dict[str, Any]) -> None:
    build = compose["services"]["worker"]["build"]
    assert (_FILE.parent / build["context"] / build["dockerfile"]).is_file()


def test_the_compose_schema_accepts_the_file() -> None:
    """The Compose Specification's own schema, as the package check-jsonschema brings it."""
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(_FILE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_itself_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("docker compose is not here")
    command = [docker, "compose", "--file", str(_FILE), "config", "--quiet"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
