"""The doctor over healthy and sick installations: it names what is wrong and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from augury.monitoring.doctor import CHECKS, Finding, Level, diagnose
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings

_SAFE_CELERY = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "worker_pool": "solo",
}


def _of(findings: list[Finding], subject: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == subject]


def _problems(findings: list[Finding]) -> list[str]:
    return [
        f"{finding.subject}: {finding.message}"
        for finding in findings
        if finding.level == "problem"
    ]


def test_healthy_installation_has_no_problem(live_settings: Settings) -> None:
    findings = diagnose(live_settings, celery=_SAFE_CELERY)
    relaxed = [text for text in _problems(findings) if not text.startswith("bus: what is accepted")]
    assert relaxed == []  # (the Redis of a developer's machine may be without AOF)
    assert {finding.subject for finding in findings} == set(CHECKS)


def test_new_home_is_told_to_start(settings: Settings) -> None:
    findings = diagnose(settings)
    assert _problems(findings) == []
    for subject in ("database", "bus"):
        (finding,) = _of(findings, subject)
        assert (finding.level, finding.advice[-9:]) == (Level.ADVICE, "augury up")
    assert not (settings.absolute_home / "augury.db").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
def test_unsafe_server_is_named(
    own_valkey: ValkeyServer, settings: Settings, name: str, value: str, expected: str
) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set(name, value)
    found = _of(diagnose(settings.model_copy(update={"redis_url": own_valkey.url})), "bus")
    assert any(f.level is Level.PROBLEM and expected in f.advice for f in found)


def test_silent_services_are_problems(settings: Settings) -> None:
    dead = settings.model_copy(
        update={
            "redis_url": "redis://127.0.0.1:1",
            "broker_url": "redis://127.0.0.1:2",
            "database_url": "postgresql+psycopg://root@127.0.0.1:1/none",
        }
    )
    found = diagnose(dead)
    for subject in ("bus", "broker", "database"):
        assert [finding.level for finding in _of(found, subject)] == [Level.PROBLEM], subject


def test_misspelt_variable_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_REDIS_ULR", "redis://x")
    (finding,) = _of(diagnose(settings), "settings")
    assert "AUGURY_REDIS_ULR" in finding.message
    assert "AUGURY_REDIS_URL" in finding.advice


def test_lease_shorter_than_heartbeats_is_a_problem(settings: Settings) -> None:
    hasty = settings.model_copy(update={"lease_timeout_s": 3.0, "heartbeat_s": 2.0})
    assert [finding.level for finding in _of(diagnose(hasty), "settings")] == [Level.PROBLEM]


@pytest.mark.parametrize("name", [name for name in _SAFE_CELERY if name != "accept_content"])
def test_each_unsafe_celery_setting_is_named(settings: Settings, name: str) -> None:
    found = _of(diagnose(settings, celery={**_SAFE_CELERY, name: "unsafe"}), "celery")
    assert [(f.level, f.message.split()[0]) for f in found] == [(Level.PROBLEM, name)]


def test_celery_that_accepts_pickle_is_named(settings: Settings) -> None:
    unsafe = {**_SAFE_CELERY, "accept_content": ["json", "pickle"]}
    (finding,) = _of(diagnose(settings, celery=unsafe), "celery")
    assert finding.level is Level.PROBLEM
    assert "pickle" in finding.message


def test_home_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = _of(diagnose(Settings(home=tmp_path / "file")), "home")
    assert [finding.level for finding in found] == [Level.PROBLEM]
