"""Seconds until each part of `augury up` is ready; of `augury --help`; of `augury score`.

It scores a file of 10,000 rows, for the first time (the model is checked against its library), and
again.

Run it with

    python benchmarks/bench_startup.py [--times 5] [--workers 1]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import xgboost
from pyarrow import parquet as pq

from bench_kernels import make_labels, make_rows
from installation import AUGURY, augury_up, notices

PARTS = ("valkey", "api", "router", "worker-1")


def once(workers: int) -> dict[str, float]:
    """One start: seconds until each part said that it was ready."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        started = time.monotonic()
        with augury_up(folder, workers=workers):
            everything_s = time.monotonic() - started
        told = notices(folder)
    ready = {n["child"]: n["after_s"] for n in told if n["action"] == "child_ready"}
    all_after = next(n["after_s"] for n in told if n["action"] == "all_ready")
    launch_s = everything_s - all_after  # the interpreter and its imports, before any notice
    return {part: ready[part] + launch_s for part in PARTS} | {"everything": everything_s}


def help_s() -> float:
    """Seconds of `augury --help`."""
    started = time.monotonic()
    subprocess.run([AUGURY, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def score_s(folder: Path, times: int) -> dict[str, float]:
    """Seconds of `augury score`, 100 trees of depth 6 over 28 columns."""
    rows = make_rows(10_000, seed=1)
    names = [f"f{number}" for number in range(rows.shape[1])]
    data = xgboost.DMatrix(rows, make_labels(rows), feature_names=names)
    settings = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1}
    xgboost.train(settings, data, 100).save_model(folder / "model.json")
    columns = {name: rows[:, number].copy() for number, name in enumerate(names)}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    seconds = [_score_once(folder, number) for number in range(times + 1)]
    return {"score_first_s": round(seconds[0], 2),
            "score_s": round(statistics.median(seconds[1:]), 2)}  # fmt: skip


def _score_once(folder: Path, number: int) -> float:
    given = {"model": "model.json", "input": "rows.parquet", "output": f"out{number}"}
    options = [part for name, file in given.items() for part in (f"--{name}", folder / file)]
    environment = os.environ | {"AUGURY_HOME": str(folder / "home")}
    started = time.monotonic()
    subprocess.run(
        [AUGURY, "score", *options], check=True, stdout=subprocess.DEVNULL, env=environment
    )
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    starts = [once(options.workers) for _ in range(options.times)]
    median = {part: statistics.median(start[part] for start in starts) for part in starts[0]}
    result = {f"{part}_ready_s": round(seconds, 2) for part, seconds in median.items()}
    helps = [help_s() for _ in range(options.times)]
    result["help_s"] = round(statistics.median(helps), 3)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        result |= score_s(Path(name), options.times)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
