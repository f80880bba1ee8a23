"""Rows a second through the forest kernel, beside the libraries' own predictors and oneDAL.

Models of 28 features: XGBoost with 100 trees of depth 6 and 500 of depth 8, 100 iterations of
scikit-learn's HistGradientBoosting, a RandomForest of 100 trees of depth 12, and a StandardScaler
with a LogisticRegression (beside what decoding its rows from Parquet costs); trained once, into
benchmarks/out/kernels. Everybody predicts the same batches on one thread, in turns, and the best of
several rounds counts, in CPU seconds of this process, so that a neighbour on the machine disturbs
little. Besides, every prediction is compared with the library's, bit by bit. Run it with

    python benchmarks/bench_kernels.py [--rows 100000] [--check-rows 200000] [--json FILE]

oneDAL is measured where `daal4py.mb` (in scikit-learn-intelex) and `treelite` can be imported;
`--threads 2` measures several threads, by the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import xgboost
from pyarrow import parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from augury.models.columns import Columns
from augury.models.forest import Forest, from_sklearn, instructions, load_xgboost
from augury.models.fused import fuse

FOLDER = Path(__file__).parent / "out" / "kernels"
NUM_FEATURES = 28
TRAIN_ROWS = 60_000
BATCHES = (1_000, 10_000, 100_000, 1_000_000)
CHECK_BATCH = 100_000
ROUNDS = 7

Predict = Callable[[Any], Any]


def make_rows(num_rows: int, seed: int, *, missing: float = 0.0) -> Any:
    """`(num_rows, NUM_FEATURES)` float32."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_rows, NUM_FEATURES), dtype=np.float32)
    if missing:
        rows[rng.random(rows.shape, dtype=np.float32) < missing] = np.nan
    return rows


def make_labels(rows: Any) -> Any:
    rng = np.random.default_rng(2)
    score = rows[:, 0] + rows[:, 1] * rows[:, 2] + np.sin(3 * rows[:, 3])
    score += 0.3 * rows[:, 4:12].sum(axis=1) + 0.5 * rng.standard_normal(len(rows))
    return (score > 0).astype(int)


def boosted(num_trees: int, depth: int, eta: float) -> Callable[[Any, Any], Any]:
    def train(rows: Any, labels: Any) -> Any:
        settings = {"objective": "binary:logistic", "max_depth": depth, "eta": eta, "nthread": 1}
        return xgboost.train(settings, xgboost.DMatrix(rows, labels), num_trees)

    return train


MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "xgboost 100 x depth 6": boosted(100, 6, 0.3),
    "xgboost 500 x depth 8": boosted(500, 8, 0.05),
    "hist gradient boosting 100": HistGradientBoostingClassifier(
        max_iter=100, early_stopping=False, random_state=0
    ).fit,
    "random forest 100 x depth 12": RandomForestClassifier(
        100, max_depth=12, n_jobs=1, random_state=0
    ).fit,
    "scaler + logistic": make_pipeline(StandardScaler(), LogisticRegression()).fit,
}
LINEAR = "scaler + logistic"


def load(name: str) -> Any:
    """Trains the model, if that has not been done yet."""
    path = FOLDER / f"{name.replace(' ', '_')}.joblib"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        rows = make_rows(TRAIN_ROWS, seed=1)
        joblib.dump(MODELS[name](rows, make_labels(rows)), path)
    return joblib.load(path)


def is_booster(model: Any) -> bool:
    return isinstance(model, xgboost.Booster)


def library_predict(model: Any, threads: int) -> Predict:
    if is_booster(model):
        model.set_param({"nthread": threads})
        return lambda rows: model.inplace_predict(rows, validate_features=False)
    if hasattr(model, "n_jobs"):
        model.n_jobs = threads
    return lambda rows: model.predict_proba(rows)[:, 1]


def kernel(model: Any) -> Forest:
    return load_xgboost(bytes(model.save_raw("ubj"))) if is_booster(model) else from_sklearn(model)


def onedal_predict(model: Any, threads: int) -> Predict | None:
    """None where it is not installed, or does not take the model."""
    try:
        import daal4py
        import daal4py.mb
        import treelite
    except ImportError:
        return None
    daal4py.daalinit(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        converted = daal4py.mb.convert_model(
            model if is_booster(model) else treelite.sklearn.import_model(model)
        )
    if converted.is_classifier_:
        return lambda rows: converted.predict_proba(rows)[:, 1]
    # a random forest comes over as a regressor of the probability
    return lambda rows: converted.predict(rows).ravel()


def contenders(model: Any, threads: int) -> dict[str, Predict]:
    forest = kernel(model)
    found = {
        "augury": lambda rows: forest.predict(rows, num_threads=threads),
        "library": library_predict(model, threads),
        "oneDAL": onedal_predict(model, threads),
    }
    return {name: predict for name, predict in found.items() if predict is not None}


def rates(predicts: dict[str, Predict], rows: Any, clock: Callable[[], float]) -> dict[str, float]:
    """Rows a second: the best of several rounds, everybody once in each."""
    best = dict.fromkeys(predicts, float("inf"))
    for _ in range(ROUNDS):
        for name, predict in predicts.items():
            repeats = max(1, 20_000 // len(rows))
            start = clock()
            for _ in range(repeats):
                predict(rows)
            best[name] = min(best[name], (clock() - start) / repeats)
    return {name: len(rows) / seconds for name, seconds in best.items()}


def check_batches(num_rows: int, *, missing: bool) -> Iterator[Any]:
    for first in range(0, num_rows, CHECK_BATCH):
        size = min(CHECK_BATCH, num_rows - first)
        share = 0.03 if missing and first // CHECK_BATCH % 2 else 0.0
        yield make_rows(size, seed=1000 + first, missing=share)


def differences(predicts: dict[str, Predict], num_rows: int, *, missing: bool) -> dict[str, Any]:
    """Rows of which a bit differs from the library's, and of which the prediction differs."""
    found = {name: {"bits": 0, "decisions": 0} for name in predicts if name != "library"}
    for rows in check_batches(num_rows, missing=missing):
        expected = predicts["library"](rows)
        for name, counts in found.items():
            predicted = predicts[name](rows)
            apart = np.abs(predicted - expected)
            counts["bits"] += int((predicted != expected).sum())
            # another leaf, not only another order of the sum
            counts["decisions"] += int((apart > 1e-5).sum())
    return found


def bench_linear(options: argparse.Namespace) -> dict[str, Any]:
    """The columns as they are decoded, beside a matrix of doubles in scikit-learn."""
    model = load(LINEAR)
    fused, library = fuse(model), library_predict(model, 1)
    path = FOLDER / "rows.parquet"
    rows_per_s = {}
    for size in [size for size in BATCHES if size <= options.rows]:
        rows = make_rows(size, seed=7)
        columns, matrix = Columns.of(np.asfortranarray(rows)), rows.astype(np.float64)
        pq.write_table(pa.table(dict(enumerate_columns(rows))), path, compression="snappy")
        predicts = {
            "augury": lambda _, columns=columns: fused.predict(columns),
            "library": lambda _, matrix=matrix: library(matrix),
            "decoding": lambda _: decode(path),
        }
        rows_per_s[size] = rates(predicts, rows, time.process_time)
    found = fused.predict(Columns.of(make_rows(options.check_rows, seed=8)))
    expected = library(make_rows(options.check_rows, seed=8).astype(np.float64))
    decisions = int(((found > 0.5) != (expected > 0.5)).sum())
    differing = {"augury": {"bits": int((found != expected).sum()), "decisions": decisions}}
    return {"rows_per_s": rows_per_s, "differing_rows": differing}


def enumerate_columns(rows: Any) -> Iterator[tuple[str, Any]]:
    for number in range(rows.shape[1]):
        yield f"f{number}", np.ascontiguousarray(rows[:, number])


def decode(path: Path) -> None:
    for _ in pq.ParquetFile(path).iter_batches(batch_size=65_536, use_threads=False):
        pass


def bench(name: str, options: argparse.Namespace) -> dict[str, Any]:
    model = load(name)
    predicts = contenders(model, options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    batches = [size for size in BATCHES if size <= options.rows]
    # a random forest that was grown without missing values is compared without them
    missing = not isinstance(model, RandomForestClassifier)
    return {
        "rows_per_s": {size: rates(predicts, make_rows(size, seed=7), clock) for size in batches},
        "differing_rows": differences(predicts, options.check_rows, missing=missing),
        "kernel": kernel(model).describe(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="of the largest batch")
    parser.add_argument("--check-rows", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures: dict[str, Any] = {"instructions": instructions(), "threads": options.threads}
    with threadpool_limits(options.threads):
        for name in options.models:
            figures[name] = bench_linear(options) if name == LINEAR else bench(name, options)
            _show(name, figures[name], options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _show(name: str, figures: dict[str, Any], options: argparse.Namespace) -> None:
    print(f"{name}, {options.threads} thread(s), million rows/s")
    for size, found in figures["rows_per_s"].items():
        others = [
            f"{other} {rate / 1e6:.3f} (x {found['augury'] / rate:.1f})"
            for other, rate in found.items()
            if other != "augury"
        ]
        print(f"  batches of {size:>9,}: augury {found['augury'] / 1e6:.2f}, {', '.join(others)}")
    for other, counts in figures["differing_rows"].items():
        print(
            f"  {other}: of {options.check_rows:,} rows {counts['bits']:,} differ from the "
            f"library's in some bit, {counts['decisions']:,} by more than 1e-5"
        )


if __name__ == "__main__":
    main()
