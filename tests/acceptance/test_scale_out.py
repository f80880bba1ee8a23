"""The cluster of docker-compose.yml without containers: its commands, its environment variables.

PostgreSQL, Redis and an S3 server are this machine's; each process is started as its service
says, with only the addresses replaced. A host of this cluster shares nothing with another but
these three.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
import yaml
from scored import make_rows, slow_model

from augury import clock
from augury.settings import Settings, child_environment
from augury.storage import tables
from augury.storage.database import Database
from augury.storage.objects import ObjectStore, open_store

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_SERVICES = ("api", "router", "sources", "dispatcher", "sweeper", "relay", "worker")
NUM_ROWS = 72_000
NUM_SHARDS = 12


class Cluster:
    """Processes as docker-compose.yml starts them, each with a home (a "host") of its own.

    Args:
        folder: for homes and logs.
        database: an own PostgreSQL database.
        variables: what replaces the compose file's addresses, without the prefix `AUGURY_`.
    """

    def __init__(self, folder: Path, database: Database, **variables: str) -> None:
        self.folder = folder
        self.database = database
        self.compose = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
        self.variables = {f"AUGURY_{name.upper()}": value for name, value in variables.items()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str, host: str) -> dict[str, str]:
        """The service's own variables, with this machine's addresses."""
        theirs = {
            name: str(value)
            for name, value in self.compose["services"][service]["environment"].items()
        }
        home = str(self.folder / host)
        return child_environment(**{**theirs, **self.variables, "AUGURY_HOME": home})

    def start(self, service: str, name: str = "") -> None:
        """Starts one process of a service."""
        name = name or service
        program, *arguments = self.compose["services"][service]["command"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(_BIN / program), *arguments],
                cwd=_ROOT,
                env=self.environment(service, name),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run cli ...`."""
        program = self.compose["services"]["cli"]["entrypoint"]
        return subprocess.run(
            [str(_BIN / program[0]), *arguments],
            cwd=self.folder,
            env=self.environment("cli", "cli"),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def stop(self) -> dict[str, int]:
        """SIGTERM to all, as `docker compose down` does; exit codes by name."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return {name: process.wait(30) for name, process in self.processes.items()}

    def kill_all(self) -> None:
        """Whatever still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def until(self, condition: Callable[[], Any], what: str, *, timeout_s: float = 60.0) -> None:
        """Waits for a condition; fails with the ends of all logs."""
        deadline = clock.monotonic_s() + timeout_s
        while not condition():
            ended = [name for name, one in self.processes.items() if one.poll() not in {None, -9}]
            if ended or clock.monotonic_s() > deadline:
                raise AssertionError(f"{what}: ended {ended}\n{self.story()}")
            clock.sleep_s(0.05)

    def story(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(
            f"--- {p.name}\n" + "\n".join(p.read_text().splitlines()[-12:]) for p in logs
        )

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[Any]:
        """Rows of the ledger."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(table).where(*where)))


@pytest.fixture
def store(s3_server: str, settings: Settings) -> Iterator[ObjectStore]:
    """A bucket of this test's own."""
    import boto3

    bucket = settings.namespace.replace("_", "-")
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    yield open_store(
        f"s3://{bucket}/",
        settings.model_copy(
            update={
                "s3_endpoint": s3_server,
                "s3_access_key_id": "k",
                "s3_secret_access_key": "s",
            }
        ),
    )


@pytest.fixture
def cluster(
    tmp_path: Path,
    postgres_database: Database,
    redis_url: str,
    s3_server: str,
    store: ObjectStore,
    settings: Settings,
) -> Iterator[Cluster]:
    """All services, and a second worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    cluster = Cluster(
        tmp_path,
        postgres_database,
        database_url=postgres_database.url,
        redis_url=redis_url,
        namespace=settings.namespace,
        store_url=f"{store.url}store/",
        s3_endpoint=s3_server,
        s3_access_key_id="k",
        s3_secret_access_key="s",
        host="127.0.0.1",
        port=port,
        list_s="0.5",
    )
    for service in _SERVICES:
        cluster.start(service)
    cluster.start("worker", "worker-2")
    yield cluster
    cluster.kill_all()


def _is_healthy(cluster: Cluster) -> bool:
    """As the compose file's own health check asks."""
    check = cluster.compose["services"]["api"]["healthcheck"]["test"][-1]
    port = cluster.variables["AUGURY_PORT"]
    url = check.partition("urlopen('")[2].partition("'")[0].replace("8470", port)
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _document(store: ObjectStore) -> dict[str, Any]:
    model = {"name": "label", "path": "model/model.pkl", "sample": "model/sample.parquet"}
    return {
        "models": [{**model, "alias": "champion", "trust": True}],
        "sources": [{"name": "landing", "uri": f"{store.url}landing/"}],
        "jobs": [
            {
                "name": "score",
                "model": "label@champion",
                "output": f"{store.url}predictions/",
                "columns": ["id"],
                "mode": "distributed",
                "target_shard_rows": NUM_ROWS // NUM_SHARDS,
            }
        ],
        "rules": [
            {
                "name": "arrivals",
                "pattern": {"type": ["augury.object.created"], "data": {"source": ["landing"]}},
                "actions": [{"start_run": {"job": "score"}}],
            }
        ],
    }


def test_the_compose_file_as_processes(cluster: Cluster, store: ObjectStore) -> None:
    slow_model(cluster.folder / "model")
    cluster.until(lambda: _is_healthy(cluster), "the API is healthy")
    (cluster.folder / "augury.yaml").write_text(yaml.safe_dump(_document(store)))
    applied = cluster.cli("apply", "-f", "augury.yaml")
    assert applied.returncode == 0, applied.stderr

    rows = make_rows(NUM_ROWS, seed=4)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=NUM_ROWS // NUM_SHARDS)
    store.put("landing/day.parquet", sink.getvalue().to_pybytes())

    def done() -> int:
        items = cluster.rows(tables.work, tables.work.c.kind == "shard")
        return sum(item.state == "DONE" for item in items)

    cluster.until(lambda: done() >= 2, "two shards are done")
    cluster.processes["worker-2"].kill()
    cluster.until(
        lambda: [run.state for run in cluster.rows(tables.runs)] == ["SUCCEEDED"],
        "the run succeeded without its second worker",
        timeout_s=90,
    )
    (run,) = cluster.rows(tables.runs)
    base = f"predictions/{run.id}/"
    manifest = json.loads(store.read(f"{base}_manifest.json"))
    parts = [
        pq.read_table(pa.BufferReader(store.read(base + part["key"]))) for part in manifest["parts"]
    ]
    assert pa.concat_tables(parts)["id"].equals(rows["id"])

    cluster.until(lambda: not cluster.rows(tables.outbox), "every event of ours is routed")
    audited = cluster.cli("audit", "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    doctor = cluster.cli("doctor", "--json")
    levels = {(each["subject"], each["level"]) for each in json.loads(doctor.stdout)}
    assert {("database", "ok"), ("store", "ok"), ("celery", "ok")} <= levels
    codes = cluster.stop()
    assert codes.pop("worker-2") == -9
    assert set(codes.values()) == {0}, f"{codes}\n{cluster.story()}"


def test_every_command_of_the_compose_file_is_a_program() -> None:
    compose = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    for service in _SERVICES:
        program, *arguments = compose["services"][service]["command"]
        help_text = subprocess.run(
            [str(_BIN / program), *arguments, "--help"],
            cwd=_ROOT,
            capture_output=True,
            check=False,
            text=True,
        )
        assert help_text.returncode == 0, shlex.join([program, *arguments])
