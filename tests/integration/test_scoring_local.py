"""`score_local`: a model file, a folder of Parquet, an output; no service."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
import xgboost
from pyarrow import parquet as pq
from scoring_world import write
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from augury.data.manifest import Manifest
from augury.errors import ConflictError, ContractError, CorruptError, InvalidError, NotFoundError
from augury.inference.local import ScoreSummary, peak_rss_bytes, plan_local, score_local
from augury.jobs.spec import JobSpec
from augury.models.flavors.xgboost import FLAVOR
from augury.models.forest import FOREST, ForestKernel, load_xgboost
from augury.models.fused import LINEAR
from augury.models.signature import InputColumn, Signature, Task
from augury.settings import Settings

NAMES = [f"f{index}" for index in range(5)]
RNG = np.random.default_rng(3)
MATRIX = RNG.normal(size=(9_000, 5)).astype(np.float32)
MATRIX[RNG.random(MATRIX.shape) < 0.05] = np.nan
TARGET = (np.nan_to_num(MATRIX[:, 0]) + MATRIX[:, 1] ** 2 > 0.5).astype(int)


@pytest.fixture(scope="module")
def booster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = xgboost.DMatrix(MATRIX, TARGET, feature_names=NAMES)
    trained = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, data, 20
    )
    path = tmp_path_factory.mktemp("models") / "m.ubj"
    trained.save_model(path)
    return path


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = RandomForestClassifier(n_estimators=10, max_depth=5, random_state=0)
    trained.fit(
        np.nan_to_num(MATRIX), np.array(["no", "maybe", "yes"])[TARGET + (MATRIX[:, 2] > 0)]
    )
    path = tmp_path_factory.mktemp("models") / "m.joblib"
    joblib.dump(trained, path)
    return path


@dataclass(kw_only=True)
class Place:
    settings: Settings
    inputs: Path
    output: Path

    def score(self, model: Path, **options: Any) -> ScoreSummary:
        return score_local(model, self.inputs, self.output, settings=self.settings, **options)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.output.rglob("*"))

    def manifest(self) -> Manifest:
        return Manifest.from_bytes((self.output / "_manifest.json").read_bytes())


@pytest.fixture
def place(tmp_path: Path, settings: Settings) -> Place:
    """Nine files of 1,000 rows; missing values are nulls."""
    for number in range(9):
        rows = MATRIX[number * 1000 : (number + 1) * 1000]
        table = pa.table(
            {
                "id": range(number * 1000, (number + 1) * 1000),
                **{
                    name: pa.array(rows[:, index], mask=np.isnan(rows[:, index]))
                    for index, name in enumerate(NAMES)
                },
            }
        )
        write(tmp_path / f"in/f{number}.parquet", table, row_group_size=400)
    return Place(settings=settings, inputs=tmp_path / "in", output=tmp_path / "out")


def test_predictions_are_the_library_s_own(place: Place, booster: Path) -> None:
    progress: list[tuple[int, int]] = []
    summary = place.score(
        booster, columns=["id"], on_progress=lambda done, total: progress.append((done, total))
    )
    found = pq.read_table(place.output)
    assert found["id"].to_pylist() == list(range(9_000))
    expected = xgboost.Booster(model_file=str(booster)).inplace_predict(MATRIX)
    assert np.array_equal(found["probability"].to_numpy(), expected)
    assert found["prediction"].to_pylist() == (expected > 0.5).astype(int).tolist()
    assert found.schema.field("probability").type == pa.float32()
    assert progress[0] == (0, 9_000)
    assert progress[-1] == (9_000, 9_000)
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (9_000, 9_000, 0)
    assert (summary.backend, summary.backend_reason) == (FOREST, "")
    assert summary.rows_per_second > 0
    assert 2**20 < summary.peak_rss_bytes <= peak_rss_bytes()
    assert summary.output_uri == f"file://{place.output}/"
    assert summary.manifest_uri == f"file://{place.output}/_manifest.json"
    assert place.files() == ["_manifest.json", "part-00000.parquet"]
    assert place.manifest().rows.rows_predicted == 9_000


def test_several_shards_side_by_side_give_the_same_rows(
    place: Place, booster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.score(booster, columns=["id"])
    whole = pq.read_table(place.output)
    before = set(threading.enumerate())
    other = Place(settings=place.settings, inputs=place.inputs, output=place.output.with_name("o2"))
    validate = JobSpec.model_validate
    monkeypatch.setattr(
        JobSpec, "model_validate", lambda spec: validate({**spec, "target_shard_rows": 900})
    )
    other.score(booster, columns=["id"])
    assert len(other.files()) > 5
    assert pq.read_table(other.output).equals(whole)
    assert set(threading.enumerate()) <= before


def test_the_same_run_again_writes_the_same_and_another_is_refused(
    place: Place, booster: Path
) -> None:
    place.score(booster, columns=["id"])
    first = (place.output / "_manifest.json").read_bytes()
    place.score(booster, columns=["id"])
    assert (place.output / "_manifest.json").read_bytes() == first
    with pytest.raises(ConflictError, match="output of a run with another input"):
        place.score(booster)
    assert (place.output / "_manifest.json").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("notes.txt", r"1 other objects, such as 'notes\.txt'"),
        ("part-00000.parquet", "parts of a run that did not finish"),
        ("_manifest.json", "does not parse"),
    ],
)
def test_an_output_with_something_else_is_refused(
    place: Place, booster: Path, name: str, found: str
) -> None:
    place.output.mkdir()
    (place.output / name).write_text("mine")
    with pytest.raises(ConflictError, match=f"expected an empty output .* {found}"):
        place.score(booster)
    assert place.files() == [name]
    assert (place.output / name).read_text() == "mine"


def test_an_error_leaves_no_part(place: Place, booster: Path) -> None:
    path = place.inputs / "f8.parquet"
    offset = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 50] = b"\xff" * 50
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"f8\.parquet"):
        place.score(booster)
    assert place.files() == []


def test_ctrl_c_stops_and_leaves_no_part(place: Place, booster: Path) -> None:
    before = set(threading.enumerate())

    def on_progress(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.score(booster, on_progress=on_progress)
    assert place.files() == []
    assert set(threading.enumerate()) <= before


def test_an_empty_folder_succeeds(place: Place, booster: Path) -> None:
    for path in place.inputs.iterdir():
        path.unlink()
    summary = place.score(booster)
    assert (summary.rows_in, summary.rows_predicted) == (0, 0)
    assert place.files() == ["_manifest.json", "part-00000.parquet"]
    assert pq.read_table(place.output).num_rows == 0


def test_a_pickle_is_refused_unless_trusted(place: Place, forest: Path) -> None:
    with pytest.raises(InvalidError, match="trust"):
        place.score(forest)
    assert not place.output.exists()


def test_a_trusted_forest_with_the_sample_s_names(place: Place, forest: Path) -> None:
    for path in place.inputs.iterdir():
        table = pq.read_table(path)
        filled = [table["id"], *(table[name].fill_null(0.0) for name in NAMES)]
        pq.write_table(pa.table(filled, names=["id", *NAMES]), path)
    sample = place.output.with_name("sample.parquet")
    pq.write_table(pq.read_table(place.inputs / "f0.parquet", columns=NAMES), sample)
    summary = place.score(forest, trust=True, sample=sample)
    found = pq.read_table(place.output)
    expected = joblib.load(forest).predict_proba(np.nan_to_num(MATRIX))
    scores = np.array(found["probabilities"].to_pylist())
    assert np.array_equal(scores, expected)
    assert found["prediction"].to_pylist() == [
        ("maybe", "no", "yes")[index] for index in expected.argmax(axis=1)
    ]
    assert (summary.backend, summary.backend_reason) == (FOREST, "")


def test_what_the_kernel_does_not_score_is_scored_by_its_library_and_says_why(
    place: Place,
) -> None:
    bag = BaggingRegressor(DecisionTreeRegressor(max_depth=5), 3, random_state=0)
    bag.fit(MATRIX, TARGET)
    path = place.output.with_name("bag.joblib")
    joblib.dump(bag, path)
    inputs = tuple(InputColumn(name=name, type="float") for name in NAMES)
    signature = Signature(inputs=inputs, task=Task.REGRESSION)
    summary = place.score(path, trust=True, signature=signature)
    assert summary.backend == f"scikit-learn {sklearn.__version__}"
    assert "it is a sklearn.ensemble._bagging.BaggingRegressor" in summary.backend_reason
    expected = bag.predict(MATRIX)
    assert np.array_equal(pq.read_table(place.output)["prediction"].to_numpy(), expected)


def test_a_pipeline_is_scored_from_its_columns(place: Place) -> None:
    rng = np.random.default_rng(3)
    num_rows = 9_000
    frame = pd.DataFrame(
        {
            "id": np.arange(num_rows),
            "amount": rng.normal(200, 50, num_rows),
            "age": rng.integers(18, 90, num_rows).astype(np.int16),
            "word": rng.choice(["a", "b", "c"], num_rows),
        }
    )
    steps = [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "amount"]),
        ("words", OneHotEncoder(handle_unknown="ignore"), ["word"]),
    ]
    estimator = make_pipeline(ColumnTransformer(steps), LogisticRegression())
    estimator.fit(frame[["amount", "age", "word"]], frame["amount"] + frame["age"] > 250)
    model = place.output.with_name("model.joblib")
    joblib.dump(estimator, model)
    frame.loc[::7, "amount"] = np.nan
    frame.loc[::5, "word"] = "never seen"
    frame.loc[::11, "word"] = None
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for path in place.inputs.iterdir():
        path.unlink()
    write(place.inputs / "all.parquet", table, row_group_size=2500)
    summary = place.score(model, trust=True, columns=["id"])
    assert summary.backend == LINEAR, summary.backend_reason
    assert "not equal in every bit" in summary.backend_reason
    found = pq.read_table(place.output)
    expected = estimator.predict_proba(frame[["amount", "age", "word"]])[:, 1]
    assert np.abs(found["probability"].to_numpy() - expected).max() < 1e-14
    assert found["id"].to_pylist() == frame["id"].tolist()
    assert place.manifest().unknown_categories == {"word": {"never seen": 1636}}


def test_a_kernel_that_predicts_otherwise_is_not_used(
    place: Place, booster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = place.output.with_name("other.ubj")
    data = xgboost.DMatrix(MATRIX, TARGET, feature_names=NAMES)
    xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 1).save_model(other)
    wrong = ForestKernel(load_xgboost(other))
    monkeypatch.setattr(FLAVOR.__class__, "kernel", lambda *_: wrong)
    summary = place.score(booster)
    assert summary.backend == f"xgboost {xgboost.__version__}"
    assert "rows differ from the library's predictions" in summary.backend_reason
    expected = xgboost.Booster(model_file=str(booster)).inplace_predict(MATRIX)
    assert np.array_equal(pq.read_table(place.output)["probability"].to_numpy(), expected)


_SCORE = """
import sys
from augury.inference.local import score_local
from augury.settings import Settings
score_local(*sys.argv[1:4], settings=Settings(home=sys.argv[4]))
print(*sorted({"xgboost", "sklearn", "scipy", "pandas"} & set(sys.modules)))
"""


def test_a_model_that_was_checked_before_is_scored_without_its_library(
    place: Place, booster: Path
) -> None:
    place.score(booster)
    output = place.output.with_name("again")
    arguments = [str(booster), f"{place.inputs}/", str(output), str(place.settings.home)]
    said = subprocess.run(
        [sys.executable, "-c", _SCORE, *arguments], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == []
    for path in sorted(place.output.glob("*.parquet")):
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_columns_that_do_not_fit_are_told_before_anything_is_written(
    place: Place, booster: Path
) -> None:
    with pytest.raises(ContractError, match="nothing_such"):
        place.score(booster, columns=["nothing_such"])
    assert not place.output.exists()


def test_a_missing_model_or_input_is_told(place: Place, booster: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.ubj"):
        place.score(booster.with_name("gone.ubj"))
    with pytest.raises(NotFoundError, match="gone"):
        score_local(booster, "gone/", place.output, settings=place.settings)
    with pytest.raises(InvalidError, match="nothing to score"):
        score_local(booster, [], place.output, settings=place.settings)


def test_a_plan_shows_what_would_run(place: Place, booster: Path) -> None:
    plan, shards = plan_local(booster, f"{place.inputs}/", settings=place.settings, mode="batch")
    assert (plan.mode, plan.rows_in, len(shards)) == ("batch", 9_000, 1)
    assert not place.output.exists()
    with pytest.raises(InvalidError, match="mode"):
        plan_local(booster, f"{place.inputs}/", settings=place.settings, mode="fast")


def test_over_an_s3_server_the_parts_are_the_same(
    place: Place, booster: Path, s3_server: str
) -> None:
    import boto3

    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server, **keys)
    bucket = f"scoring-{place.inputs.parent.name}".lower().replace("_", "-")[:60]
    client.create_bucket(Bucket=bucket)
    for path in place.inputs.iterdir():
        client.put_object(Bucket=bucket, Key=f"in/{path.name}", Body=path.read_bytes())
    settings = place.settings.model_copy(
        update={"s3_endpoint": s3_server, "s3_access_key_id": "k", "s3_secret_access_key": "s"}
    )
    summary = score_local(
        booster, f"s3://{bucket}/in/", f"s3://{bucket}/out", settings=settings, columns=["id"]
    )
    assert summary.manifest_uri == f"s3://{bucket}/out/_manifest.json"
    place.score(booster, columns=["id"])
    remote = client.get_object(Bucket=bucket, Key="out/_manifest.json")["Body"].read()
    assert Manifest.from_bytes(remote).content_digest == place.manifest().content_digest
