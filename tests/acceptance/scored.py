"""An installation that scores files: a small model, files with known rows, and what came of them.

The model is a real one. Where a test asks for a slow one, so that a crash finds work in hand, it
is a support vector machine: some 20,000 rows a second. Everything is seeded: the same files give
the same output, bit for bit.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
import yaml
from harness import Augury

from augury.storage import tables
from augury.storage.database import Database

FEATURES = ("a", "b", "c", "d")
FINAL = {"SUCCEEDED", "FAILED", "CANCELED"}


def make_rows(num_rows: int, *, seed: int = 0) -> pa.Table:
    """Rows with an id, four features and a label."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((num_rows, len(FEATURES)), dtype=np.float32)
    columns: dict[str, Any] = {"id": np.arange(num_rows, dtype=np.int64) + seed * 10_000_000}
    columns |= {name: matrix[:, index] for index, name in enumerate(FEATURES)}
    columns["label"] = (matrix[:, 0] * matrix[:, 1] > matrix[:, 2]).astype(np.int8)
    return pa.table(columns)


def write_file(path: Path, num_rows: int, *, seed: int = 0, row_group_rows: int = 50_000) -> Path:
    """A Parquet file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    pq.write_table(make_rows(num_rows, seed=seed), unfinished, row_group_size=row_group_rows)
    unfinished.rename(path)
    return path


def train_model(folder: Path, *, num_trees: int = 10, depth: int = 4) -> Path:
    """An XGBoost model of the label, and a sample of its input beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.ubj").write_bytes(_trained(num_trees, depth))
    pq.write_table(make_rows(100, seed=99).select([*FEATURES]), folder / "sample.parquet")
    return folder / "model.ubj"


@cache
def _trained(num_trees: int, depth: int) -> bytes:
    import xgboost

    rows = make_rows(2_000, seed=99)
    matrix = np.column_stack([rows[name].to_numpy() for name in FEATURES])
    data = xgboost.DMatrix(matrix, rows["label"].to_numpy(), feature_names=list(FEATURES))
    parameters = {"objective": "binary:logistic", "max_depth": depth, "seed": 1, "nthread": 2}
    return bytes(xgboost.train(parameters, data, num_trees).save_raw("ubj"))


@cache
def _trained_slowly() -> bytes:
    from sklearn.svm import SVR

    rows = make_rows(2_500, seed=99)
    matrix = np.column_stack([rows[name].to_numpy() for name in FEATURES]).astype(np.float64)
    model = SVR(epsilon=0.0, cache_size=50).fit(matrix, rows["label"].to_numpy())
    return pickle.dumps(model)


def slow_model(folder: Path) -> Path:
    """A support vector machine with thousands of vectors, and a sample of its input."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(_trained_slowly())
    pq.write_table(make_rows(100, seed=99).select([*FEATURES]), folder / "sample.parquet")
    return folder / "model.pkl"


class Scored:
    """What a test has applied to an installation, and what the ledger says about it.

    Args:
        augury: a running installation.
        slow: score 20,000 rows a second instead of millions.
    """

    def __init__(self, augury: Augury, *, slow: bool = False) -> None:
        self.augury = augury
        self.folder = augury.folder
        self.landing = self.folder / "landing"
        self.output = self.folder / "predictions"
        self.model = (slow_model if slow else train_model)(self.folder / "model")

    def apply(self, **job: Any) -> None:
        """Model, source, job and the rule that scores each file that lands."""
        self.apply_document(
            {
                "models": [
                    {
                        "name": "label",
                        "path": f"model/{self.model.name}",
                        "sample": "model/sample.parquet",
                        "alias": "champion",
                        "trust": self.model.suffix == ".pkl",
                    }
                ],
                "sources": [{"name": "landing", "uri": "./landing/"}],
                "jobs": [
                    {
                        "name": "score",
                        "model": "label@champion",
                        "output": "./predictions/",
                        "columns": ["id"],
                        **job,
                    }
                ],
                "rules": [
                    {
                        "name": "score_arrivals",
                        "pattern": {
                            "type": ["augury.object.created", "augury.object.updated"],
                            "data": {"source": ["landing"], "key": [{"suffix": ".parquet"}]},
                        },
                        "actions": [{"start_run": {"job": "score"}}],
                    }
                ],
            }
        )

    def apply_document(self, document: dict[str, Any], name: str = "augury.yaml") -> None:
        """`augury apply -f`, which must succeed."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        done = self.augury.run("apply", "-f", str(path))
        assert done.returncode == 0, done.stderr + done.stdout

    # --- what the ledger says ---------------------------------------------------------------------

    @cached_property
    def database(self) -> Database:
        """The installation's ledger; only read here."""
        database = Database(self.augury.settings.effective_database_url)
        self.augury.at_end.append(database.close)
        return database

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> Sequence[Any]:
        """Rows of a table in the order of their keys."""
        with self.database.read() as connection:
            select = sa.select(table).where(*where).order_by(*table.primary_key.columns)
            return connection.execute(select).all()

    def runs(self, *states: str) -> Sequence[Any]:
        """Runs in the given states, or all."""
        return self.rows(tables.runs, *([tables.runs.c.state.in_(states)] if states else []))

    def until_finished(self, count: int = 1, *, timeout_s: float = 60.0) -> Sequence[Any]:
        """Waits until that many runs are over and none is not."""

        def over() -> bool:
            runs = self.runs()
            return len(runs) >= count and all(run.state in FINAL for run in runs)

        self.augury.until(over, f"{count} runs are over", timeout_s=timeout_s)
        return self.runs()

    def until_routed(self, *, timeout_s: float = 30.0) -> None:
        """Waits until the ledger holds every event of ours: the outbox is empty."""
        self.augury.until(
            lambda: not self.rows(tables.outbox), "the outbox is empty", timeout_s=timeout_s
        )

    def shards(self, run_id: str) -> Sequence[Any]:
        """Shard items of a run, in order."""
        found = self.rows(
            tables.work, tables.work.c.run_id == run_id, tables.work.c.kind == "shard"
        )
        return sorted(found, key=lambda row: row.seq)

    # --- what is in the store ---------------------------------------------------------------------

    def manifest(self, run: Any) -> dict[str, Any]:
        """The committed manifest of a run."""
        found: dict[str, Any] = json.loads((self.output / run.id / "_manifest.json").read_bytes())
        return found

    def predictions(self, run: Any) -> pa.Table:
        """Every row of a run, read through its manifest."""
        parts = [self.output / run.id / part["key"] for part in self.manifest(run)["parts"]]
        return pa.concat_tables([pq.read_table(part) for part in parts])

    def expected(self, *tables_in: pa.Table) -> np.ndarray[Any, Any]:
        """Probabilities by the library itself, as an independent witness. (num_rows,)"""
        import xgboost

        booster = xgboost.Booster(model_file=self.model)
        matrix = np.column_stack(
            [pa.concat_tables(tables_in)[name].to_numpy() for name in FEATURES]
        )
        data = xgboost.DMatrix(matrix, feature_names=list(FEATURES))
        found: np.ndarray[Any, Any] = booster.predict(data)
        return found

    def audit(self) -> dict[str, Any]:
        """`augury audit --json`; it must hold."""
        done = self.augury.run("audit", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found
