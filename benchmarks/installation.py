"""A real installation for benchmarks to measure: `augury up` in a temporary home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from augury.engine import Engine
from augury.settings import Settings

AUGURY = str(Path(sys.executable).with_name("augury"))
FEATURES = tuple(f"f{number}" for number in range(8))


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in seconds."""
    return {f"p{share}_s": round(quantile(values, share / 100), 4) for share in (50, 95, 99)}


def until(condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> None:
    """Polls every 10 ms."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {timeout_s} s: {what}")
        time.sleep(0.01)


def train(folder: Path, *, num_trees: int, depth: int = 6) -> None:
    """model.ubj and sample.parquet; seeded."""
    import xgboost

    random = np.random.default_rng(0)
    matrix = random.standard_normal((5_000, len(FEATURES)), dtype=np.float32)
    data = xgboost.DMatrix(matrix, matrix[:, 0] > matrix[:, 1], feature_names=list(FEATURES))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": depth}, data, num_trees)
    booster.save_model(folder / "model.ubj")
    write_rows(folder / "sample.parquet", 100)


def write_rows(path: Path, num_rows: int, *, row_group_rows: int = 100_000, seed: int = 1) -> None:
    """A Parquet file of `num_rows` with an id and the features; appears whole."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((num_rows, len(FEATURES)), dtype=np.float32)
    columns: dict[str, Any] = {"id": np.arange(num_rows)}
    columns |= {name: matrix[:, index] for index, name in enumerate(FEATURES)}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    pq.write_table(pa.table(columns), unfinished, row_group_size=row_group_rows)
    unfinished.rename(path)


@contextmanager
def augury_up(folder: Path, *, workers: int = 2) -> Iterator[Engine]:
    """Starts `augury up`, yields an engine on it, stops it."""
    settings = Settings(home=folder / "home")
    environment = {**os.environ, "AUGURY_HOME": str(settings.home)}
    command = [AUGURY, "up", "--workers", str(workers), "--port", "0", "--json"]
    with (folder / "up.log").open("w") as log:
        up = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        until((settings.home / "ready.json").exists, "augury up is ready")
        with Engine(settings) as engine:
            yield engine
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def notices(folder: Path) -> list[dict[str, Any]]:
    """What `augury up --json` told."""
    lines = (folder / "up.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def apply(folder: Path, document: dict[str, Any]) -> None:
    """`augury apply -f`."""
    path = folder / "augury.yaml"
    path.write_text(yaml.safe_dump(document))
    environment = {**os.environ, "AUGURY_HOME": str(folder / "home")}
    subprocess.run(
        [AUGURY, "apply", "-f", str(path)],
        env=environment,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def model_and_job(**job: Any) -> dict[str, Any]:
    """The document of one model and one job `score`."""
    model = {"name": "bench", "path": "model.ubj", "sample": "sample.parquet", "alias": "champion"}
    spec = {"name": "score", "model": "bench@champion", "output": "./out/", "columns": ["id"]}
    return {"models": [model], "jobs": [{**spec, **job}]}
