"""What looking for bad rows costs: one bad row in all, against no policy at all.

One process scores the same file again and again, in turn without a policy, with `on_bad_row:
reject` alone, with three expectations for each of 4 columns, and for each of all 28; the model is
100 trees of depth 6, the bad row is one infinity. So the runs share whatever else the machine does,
and the figures are ratios of the least CPU time of each. Run it with

    python benchmarks/bench_rejects.py [--rows 2000000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost
from pyarrow import parquet as pq

from augury.inference.local import score_local
from augury.settings import Settings

_FEATURES = [f"f{number}" for number in range(28)]
_EXPECTED = {"nullable": False, "finite": True, "range": [-1e6, 1e6]}


def prepare(folder: Path, num_rows: int) -> tuple[Path, Path]:
    """A model and a file with one bad row, in its middle."""
    rng = np.random.default_rng(5)
    sample = rng.normal(size=(20_000, 28)).astype(np.float32)
    target = sample[:, 0] + sample[:, 1] * sample[:, 2] > 0
    matrix = xgboost.DMatrix(sample, label=target, feature_names=_FEATURES)
    options = {"max_depth": 6, "objective": "binary:logistic", "seed": 5}
    model = folder / "model.ubj"
    xgboost.train(options, matrix, 100).save_model(model)
    columns = {name: rng.normal(size=num_rows).astype(np.float32) for name in _FEATURES}
    columns["f0"][num_rows // 2] = np.inf
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=500_000)
    return model, folder / "rows.parquet"


def policies() -> dict[str, Mapping[str, Any]]:
    """By name; the first is the one to compare with."""
    return {
        "none": {},
        "reject": {"on_bad_row": "reject"},
        "expect_4": _policy(_FEATURES[:4]),
        "expect_28": _policy(_FEATURES),
    }


def _policy(names: list[str]) -> Mapping[str, Any]:
    return {"on_bad_row": "reject", "expect": dict.fromkeys(names, _EXPECTED)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    took: dict[str, list[float]] = {name: [] for name in policies()}
    rejected = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, path = prepare(folder, arguments.rows)
        settings = Settings(home=folder / "home")
        for number in range(arguments.rounds + 1):
            for policy, fields in policies().items():
                started = time.process_time()
                out = folder / f"{policy}-{number}"
                summary = score_local(model, path, out, settings=settings, policy=fields)
                rejected[policy] = summary.rows_rejected
                if number:  # the first round warms up
                    took[policy].append(time.process_time() - started)
    least = {policy: min(seconds) for policy, seconds in took.items()}
    result = {
        "rows": arguments.rows,
        "cpu_seconds": {policy: round(seconds, 3) for policy, seconds in least.items()},
        "ratio": {policy: round(s / least["none"], 4) for policy, s in least.items()},
        "rows_rejected": rejected,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
