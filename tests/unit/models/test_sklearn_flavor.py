"""What the sklearn flavor accepts, and what it refuses with the reason."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from augury.errors import ContractError, CorruptError, InvalidError
from augury.models.flavors.sklearn import FLAVOR
from augury.models.signature import Signature, Task

ROWS = 120
rng = np.random.default_rng(5)
FEATURES = rng.normal(size=(ROWS, 3))
TARGET = FEATURES.sum(axis=1)


def _frame() -> Any:
    import pandas as pd

    return pd.DataFrame(FEATURES, columns=["a", "b", "c"])


def _save(folder: Path, estimator: Any) -> Path:
    path = folder / "m.pkl"
    path.write_bytes(pickle.dumps(estimator))
    return path


def test_names_and_classes_come_from_the_estimator(tmp_path: Path) -> None:
    words = np.where(TARGET > 0, "late", "early")
    path = _save(tmp_path, LogisticRegression().fit(_frame(), words))
    signature = FLAVOR.infer(path)
    assert signature.names == ("a", "b", "c")
    assert signature.classes == ("early", "late")
    assert signature.task is Task.BINARY
    model = FLAVOR.load(path, signature, num_threads=1)
    expected = LogisticRegression().fit(FEATURES, words).predict_proba(FEATURES)[:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # above all the one about missing feature names
        assert np.allclose(model.predict(FEATURES), expected, atol=1e-12)


def test_threads_inside_an_estimator_are_switched_off(tmp_path: Path) -> None:
    forest = RandomForestRegressor(5, n_jobs=2, random_state=0)
    path = _save(tmp_path, make_pipeline(StandardScaler(), forest).fit(FEATURES, TARGET))
    model = FLAVOR.load(path, FLAVOR.infer(path), num_threads=1)
    assert model._method.__self__[-1].n_jobs == 1


def test_missing_values_that_the_estimator_cannot_take_are_named(tmp_path: Path) -> None:
    path = _save(tmp_path, LinearRegression().fit(_frame(), TARGET))
    model = FLAVOR.load(path, FLAVOR.infer(path), num_threads=1)
    rows = FEATURES.copy()
    rows[3, 1] = np.nan
    with pytest.raises(ContractError, match="b: has missing or infinite values"):
        model.predict(rows)


class _BatchMean(RegressorMixin, BaseEstimator):
    """Centres by the mean of the batch: what no model should do, and some do."""

    def fit(self, features: Any, _target: Any) -> _BatchMean:
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: Any) -> Any:
        return (features - features.mean(axis=0)).sum(axis=1)


def test_an_estimator_whose_rows_depend_on_each_other_is_refused(tmp_path: Path) -> None:
    import joblib

    path = tmp_path / "m.joblib"
    found = _BatchMean().fit(FEATURES, TARGET)
    joblib.dump(LinearRegression().fit(FEATURES, TARGET), path)
    signature = FLAVOR.infer(path)
    from augury.models.flavors.sklearn import SklearnModel

    with pytest.raises(InvalidError, match="depends on the rows beside it"):
        SklearnModel(found, signature, num_threads=1).probe(path)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (LinearSVC().fit(FEATURES, TARGET > 0), "gives no probabilities; wrap it in"),
        (KMeans(2, n_init=1).fit(FEATURES), "expected a classifier, or a regressor"),
        (LinearRegression(), "is not fitted"),
    ],
)
def test_what_is_not_scored_is_refused_with_the_reason(
    tmp_path: Path, estimator: Any, expected: str
) -> None:
    with pytest.raises(InvalidError, match=expected):
        FLAVOR.infer(_save(tmp_path, estimator))


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    both = np.stack([TARGET, TARGET], axis=1)
    path = _save(tmp_path, RandomForestRegressor(2).fit(FEATURES, both))
    with pytest.raises(InvalidError, match="a regressor with one output"):
        FLAVOR.infer(path)


def _mixed(encoder: Any, final: Any) -> Any:
    frame = _frame().assign(word=np.where(TARGET > 0, "late", "early"))
    steps = [("scale", StandardScaler(), ["c", "a"]), ("words", encoder, ["word"])]
    return make_pipeline(ColumnTransformer(steps), final).fit(frame, TARGET), frame


def test_text_that_an_encoder_takes_is_an_input_with_its_categories(tmp_path: Path) -> None:
    estimator, frame = _mixed(OneHotEncoder(handle_unknown="ignore"), LinearRegression())
    path = _save(tmp_path, estimator)
    signature = FLAVOR.infer(path)
    word = signature.inputs[3]
    assert (word.name, word.type) == ("word", "string")
    assert (word.categories, word.unknown) == (("early", "late"), "other")
    assert Signature.from_json(signature.to_json()) == signature
    matrix = np.column_stack([FEATURES, frame["word"] == "late"]).astype(float)
    matrix[0, 3], matrix[1, 3] = 2, np.nan
    frame.loc[0, "word"], frame.loc[1, "word"] = "never", np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FLAVOR.load(path, signature, num_threads=1).predict(matrix)
    assert np.allclose(found, estimator.predict(frame), atol=1e-12)
    kernel = FLAVOR.kernel(path, signature)
    ready = kernel.ready(signature, num_threads=1)
    assert np.allclose(ready.predict(matrix), found, atol=1e-12)


def test_text_in_an_array_of_objects_is_text_again_for_the_estimator(tmp_path: Path) -> None:
    words = np.array([["x"], ["y"]] * (ROWS // 2))
    path = _save(tmp_path, make_pipeline(OneHotEncoder(), LinearRegression()).fit(words, TARGET))
    model = FLAVOR.load(path, FLAVOR.infer(path), num_threads=1)
    expected = [TARGET[::2].mean(), TARGET[1::2].mean()]
    assert np.allclose(model.predict(np.array([[0.0], [1.0]])), expected)
    with pytest.raises(ContractError, match="unknown categories"):
        model.predict(np.array([[2.0]]))


def test_the_order_of_the_signature_s_categories_does_not_matter(tmp_path: Path) -> None:
    estimator, _ = _mixed(OneHotEncoder(), LinearRegression())
    path = _save(tmp_path, estimator)
    document = FLAVOR.infer(path).to_json()
    document["inputs"][3]["categories"] = ["late", "early"]
    given = Signature.from_json(document, dtype="float64")
    matrix = np.array([[0.1, 0.2, 0.3, 0.0]])
    found = FLAVOR.load(path, given, num_threads=1).predict(matrix)
    matrix[0, 3] = 1
    expected = FLAVOR.load(path, FLAVOR.infer(path), num_threads=1).predict(matrix)
    assert found == expected
    assert FLAVOR.kernel(path, given).difference(FLAVOR.load(path, given, num_threads=1)) == ""


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("unknown", "missing", "word: expected `unknown: other`, found `missing`"),
     ("type", "double", "word: expected text, found double")],
)  # fmt: skip
def test_a_signature_that_does_not_fit_the_encoders_is_refused(
    tmp_path: Path, field: str, value: str, expected: str
) -> None:
    path = _save(tmp_path, _mixed(OneHotEncoder(), LinearRegression())[0])
    document = FLAVOR.infer(path).to_json()
    document["inputs"][3][field] = value
    if value == "double":
        del document["inputs"][3]["categories"]
    with pytest.raises(InvalidError, match=expected):
        FLAVOR.load(path, Signature.from_json(document, dtype="float64"), num_threads=1)


def test_text_that_is_no_plain_column_is_refused_with_the_way_out(tmp_path: Path) -> None:
    words = np.array([["x"], ["y"]] * (ROWS // 2), dtype=object)
    upper = FunctionTransformer(str_upper, feature_names_out="one-to-one")
    estimator = make_pipeline(upper, OneHotEncoder(), LinearRegression()).fit(words, TARGET)
    with pytest.raises(InvalidError, match="OneHotEncoder takes text, and what it takes is not"):
        FLAVOR.infer(_save(tmp_path, estimator))


def str_upper(words: Any) -> Any:
    return np.char.upper(words.astype(str)).astype(object)


def test_a_pickle_of_something_else_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="expected a scikit-learn estimator, found a dict"):
        FLAVOR.infer(_save(tmp_path, {"a": 1}))


def test_a_signature_in_another_order_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, LinearRegression().fit(_frame(), TARGET))
    document = FLAVOR.infer(path).to_json()
    document["inputs"].reverse()
    with pytest.raises(InvalidError, match="expected the inputs a, b, c"):
        FLAVOR.load(path, Signature.from_json(document), num_threads=1)
