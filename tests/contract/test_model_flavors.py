"""What every model format promises, over models of every kind in each.

The promise that carries the most is the first: no bit of a row's prediction depends on the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augury.models import backends
from augury.models.backends import available, is_own, reason
from augury.models.columns import Columns
from augury.models.flavors import get_flavor
from augury.models.forest import FOREST
from augury.models.fused import LINEAR
from augury.models.port import ColumnModel, Model
from augury.models.signature import Signature, Task

NUM_ROWS = 1300
NUM_FEATURES = 21  # no multiple of anything that a kernel likes


@cache
def _data() -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(NUM_ROWS, NUM_FEATURES))
    return features, features @ rng.normal(size=NUM_FEATURES) + rng.normal(size=NUM_ROWS)


def _labels(task: Task) -> Any:
    target = _data()[1]
    if task is Task.REGRESSION:
        return target
    edges = [0.0] if task is Task.BINARY else [-2.0, 1.0]
    return np.digitize(target, edges)


def _boosted(task: Task, **parameters: Any) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import xgboost

        num_class = {"num_class": 3} if task is Task.MULTICLASS else {}
        settings = {"nthread": 1, "max_depth": 4, **num_class, **parameters}
        matrix = xgboost.DMatrix(_data()[0], _labels(task))
        path = folder / f"model.{'json' if task is Task.BINARY else 'ubj'}"
        xgboost.train(settings, matrix, 12).save_model(path)
        return path

    return save


def _fitted(make: Callable[[], Any], task: Task) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import joblib

        path = folder / "model.joblib"
        joblib.dump(make().fit(_data()[0][:800], _labels(task)[:800]), path)
        return path

    return save


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(12, n_jobs=2, random_state=0)


def _forest_regressor() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(9, random_state=0)


def _extra_trees() -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(9, random_state=0)


def _boosting() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=5, random_state=0)


def _histogram() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=12, random_state=0)


def _linear() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def _scaled() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def _scaled_trees() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    return make_pipeline(MinMaxScaler(), _histogram())


def _pipeline() -> Any:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), PCA(9), Ridge())


def _network() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((17,), solver="lbfgs", max_iter=3000, tol=1e-3, random_state=0)


def _neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(5, n_jobs=2)


def _light(task: Task, **parameters: Any) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import lightgbm

        num_class = {"num_class": 3} if task is Task.MULTICLASS else {}
        settings = {"num_threads": 1, "verbosity": -1, "num_leaves": 9, **num_class, **parameters}
        path = folder / "model.txt"
        data = lightgbm.Dataset(_data()[0], _labels(task))
        lightgbm.train(settings, data, 12).save_model(path)
        return path

    return save


def _light_wrapper() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=5, num_leaves=5, n_jobs=1, verbosity=-1)


def _graph(task: Task) -> Callable[[Path], Path]:
    """A network of one hidden layer that learned nothing but the direction of the target."""

    def save(folder: Path) -> Path:
        import onnx

        features, target = _data()
        direction = features.T @ target / len(target)
        width = {Task.REGRESSION: 1, Task.BINARY: 2, Task.MULTICLASS: 3}[task]
        slopes = {1: [1.0], 2: [0.0, 1.0], 3: [-1.0, 0.0, 1.0]}[width]
        hidden = np.random.default_rng(1).normal(size=(NUM_FEATURES, 30)).astype(np.float32)
        out = np.linalg.pinv(hidden) @ np.outer(direction, slopes)
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "hidden"], ["h"]),
            onnx.helper.make_node("MatMul", ["h", "out"], ["margin"]),
        ]
        if width > 1:
            nodes.append(onnx.helper.make_node("Softmax", ["margin"], ["probabilities"]))
        kind, last = onnx.TensorProto.FLOAT, "probabilities" if width > 1 else "margin"
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            nodes,
            "g",
            [value("x", kind, [None, NUM_FEATURES])],
            [value(last, kind, [None, width])],
            [
                onnx.numpy_helper.from_array(hidden, "hidden"),
                onnx.numpy_helper.from_array(out.astype(np.float32), "out"),
            ],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
        )
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


@dataclass(frozen=True)
class Case:
    flavor: str
    task: Task
    dtype: str
    save: Callable[[Path], Path]


CASES = {
    "xgb_regression": Case(
        "xgboost", Task.REGRESSION, "float32", _boosted(Task.REGRESSION)
    ),
    "xgb_binary_json": Case(
        "xgboost", Task.BINARY, "float32", _boosted(Task.BINARY, objective="binary:logistic")
    ),
    "xgb_multi": Case(
        "xgboost", Task.MULTICLASS, "float32", _boosted(Task.MULTICLASS, objective="multi:softprob")
    ),
    "xgb_softmax": Case(
        "xgboost", Task.MULTICLASS, "float32", _boosted(Task.MULTICLASS, objective="multi:softmax")
    ),
    "xgb_forest": Case(
        "xgboost", Task.REGRESSION, "float32", _boosted(Task.REGRESSION, num_parallel_tree=8)
    ),
    "forest": Case("sklearn", Task.MULTICLASS, "float32", _fitted(_forest, Task.MULTICLASS)),
    "forest_regression": Case(
        "sklearn", Task.REGRESSION, "float32", _fitted(_forest_regressor, Task.REGRESSION)
    ),
    "extra": Case("sklearn", Task.BINARY, "float32", _fitted(_extra_trees, Task.BINARY)),
    "boosting": Case("sklearn", Task.MULTICLASS, "float32", _fitted(_boosting, Task.MULTICLASS)),
    "histogram": Case("sklearn", Task.REGRESSION, "float64", _fitted(_histogram, Task.REGRESSION)),
    "linear": Case("sklearn", Task.REGRESSION, "float64", _fitted(_linear, Task.REGRESSION)),
    "logistic": Case("sklearn", Task.BINARY, "float64", _fitted(_logistic, Task.BINARY)),
    "logistic_multi": Case(
        "sklearn", Task.MULTICLASS, "float64", _fitted(_logistic, Task.MULTICLASS)
    ),
    "scaled": Case("sklearn", Task.BINARY, "float64", _fitted(_scaled, Task.BINARY)),
    "hist_scaled": Case(
        "sklearn", Task.REGRESSION, "float64", _fitted(_scaled_trees, Task.REGRESSION)
    ),
    "pipeline": Case("sklearn", Task.REGRESSION, "float64", _fitted(_pipeline, Task.REGRESSION)),
    "network": Case("sklearn", Task.MULTICLASS, "float64", _fitted(_network, Task.MULTICLASS)),
    "light_regression": Case(
        "lightgbm", Task.REGRESSION, "float64", _light(Task.REGRESSION)
    ),
    "light_binary": Case(
        "lightgbm", Task.BINARY, "float64", _light(Task.BINARY, objective="binary")
    ),
    "light_multi": Case(
        "lightgbm", Task.MULTICLASS, "float64", _light(Task.MULTICLASS, objective="multiclass")
    ),
    "light_wrapper": Case("sklearn", Task.BINARY, "float64", _fitted(_light_wrapper, Task.BINARY)),
    "onnx_regression": Case("onnx", Task.REGRESSION, "float32", _graph(Task.REGRESSION)),
    "onnx_binary": Case("onnx", Task.BINARY, "float32", _graph(Task.BINARY)),
    "onnx_multi": Case("onnx", Task.MULTICLASS, "float32", _graph(Task.MULTICLASS)),
    "neighbours": Case("sklearn", Task.BINARY, "float64", _fitted(_neighbours, Task.BINARY)),
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    case: Case
    path: Path
    signature: Signature
    model: Model
    matrix: Any


TREES = ("xgb", "forest", "extra", "boost", "hist", "light")
# what Augury's own kernels score; every promise is checked of them, too
OWN = {name: FOREST for name in CASES if name.startswith(TREES)}
OWN |= {name: LINEAR for name in CASES if name.startswith(("linear", "logistic", "scaled"))}
BACKENDS = [(name, "") for name in CASES] + list(OWN.items())


# scored by passes over columns: linear models, and trees behind a scaler
TAKING_COLUMNS = [
    (name, backend)
    for name, backend in BACKENDS
    if backend == LINEAR or (name, backend) == ("hist_scaled", FOREST)
]


def _name(backend: tuple[str, str]) -> str:
    return "-".join(backend).replace(" ", "_")


@pytest.fixture(scope="module", params=BACKENDS, ids=_name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name, backend = request.param
    if backend and not available():
        pytest.skip(reason())
    case = CASES[name]
    path = case.save(tmp_path_factory.mktemp(name))
    signature = get_flavor(case.flavor).infer(path)
    model = backends.load(case.flavor, path, signature, backend=backend, num_threads=2)
    assert backend in {"", model.backend}
    matrix = np.ascontiguousarray(_data()[0], dtype=signature.dtype)
    return Loaded(case, path, signature, model, matrix)


def test_the_signature_is_inferred(loaded: Loaded) -> None:
    assert loaded.signature.task is loaded.case.task
    assert loaded.signature.num_features == NUM_FEATURES
    assert loaded.signature.dtype == loaded.case.dtype
    expected = {Task.REGRESSION: (), Task.BINARY: (0, 1), Task.MULTICLASS: (0, 1, 2)}
    assert loaded.signature.classes == expected[loaded.case.task]
    assert Signature.from_json(loaded.signature.to_json()) == loaded.signature


@pytest.mark.parametrize("num_rows", [0, 1, NUM_ROWS])
def test_the_output_has_its_form(loaded: Loaded, num_rows: int) -> None:
    output = loaded.model.predict(loaded.matrix[:num_rows])
    wide = loaded.case.task is Task.MULTICLASS
    assert output.shape == ((num_rows, 3) if wide else (num_rows,))
    assert output.dtype.kind == "f"
    assert np.isfinite(output).all()
    if loaded.case.task is not Task.REGRESSION:
        assert ((output >= 0) & (output <= 1)).all()
    if wide:
        assert np.allclose(output.sum(axis=1), 1.0, atol=1e-5)


def test_it_predicts_what_it_learned(loaded: Loaded) -> None:
    output = loaded.model.predict(loaded.matrix)
    labels = _labels(loaded.case.task)
    if loaded.case.task is Task.REGRESSION:
        assert np.corrcoef(output, labels)[0, 1] > 0.5
    elif loaded.case.task is Task.BINARY:
        assert ((output > 0.5) == labels).mean() > 0.7
    else:
        assert (output.argmax(axis=1) == labels).mean() > 0.5


@pytest.mark.parametrize("size", [1, 7, 100, 385, NUM_ROWS - 1])
def test_no_bit_depends_on_the_batch(loaded: Loaded, size: int) -> None:
    num_rows = min(NUM_ROWS, size * 30)
    whole = loaded.model.predict(loaded.matrix[:NUM_ROWS])[:num_rows]
    parts = [
        loaded.model.predict(np.ascontiguousarray(loaded.matrix[start : start + size]))
        for start in range(0, num_rows, size)
    ]
    assert np.concatenate(parts)[:num_rows].tobytes() == whole.tobytes()


def test_no_bit_depends_on_the_neighbours(loaded: Loaded) -> None:
    whole = loaded.model.predict(loaded.matrix)
    order = np.random.default_rng(1).permutation(NUM_ROWS)
    shuffled = loaded.model.predict(np.ascontiguousarray(loaded.matrix[order]))
    assert shuffled.tobytes() == whole[order].tobytes()


def test_no_bit_depends_on_the_threads(loaded: Loaded) -> None:
    alone = _load(loaded, loaded.signature)
    # enough rows that a flavor which computes small batches on one thread takes several
    matrix = np.tile(loaded.matrix[: NUM_ROWS // (1 if _is_cheap(loaded) else 10)], (7, 1))
    found, expected = loaded.model.predict(matrix), alone.predict(matrix)
    assert found.tobytes() == expected.tobytes()
    assert found[:500].tobytes() == alone.predict(matrix[:500]).tobytes()


def _is_cheap(loaded: Loaded) -> bool:
    return loaded.case.flavor == "xgboost" or is_own(loaded.model.backend)


def _load(loaded: Loaded, signature: Signature, path: Path | None = None) -> Model:
    """The same model anew, on one thread."""
    return backends.load(
        loaded.case.flavor,
        path or loaded.path,
        signature,
        backend=loaded.model.backend,
        num_threads=1,
    )


def test_every_backend_predicts_the_library_s_bits(loaded: Loaded) -> None:
    native = get_flavor(loaded.case.flavor).load(loaded.path, loaded.signature, num_threads=1)
    found, expected = loaded.model.predict(loaded.matrix), native.predict(loaded.matrix)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if loaded.model.backend == LINEAR:  # sums in another order; see `augury.models.fused`
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)
    else:
        assert found.tobytes() == expected.tobytes()


def test_the_self_check_chooses_the_kernel_or_says_why_not(loaded: Loaded) -> None:
    if not available():
        pytest.skip(reason())
    verdict = backends.judge(get_flavor(loaded.case.flavor), loaded.path, loaded.signature)
    own = OWN.get(loaded.path.parent.name.rstrip("0123456789"))
    if own is None:
        assert verdict.backend == backends.library(loaded.case.flavor)
        assert "because it" in verdict.reason
    else:
        assert verdict.backend == own
        assert ("not equal in every bit" in verdict.reason) == (own == LINEAR)


@pytest.mark.parametrize("loaded", TAKING_COLUMNS, ids=_name, indirect=True)
def test_columns_give_the_bits_of_their_matrix(loaded: Loaded) -> None:
    assert isinstance(loaded.model, ColumnModel)
    expected = loaded.model.predict(loaded.matrix)
    for order in "CF":
        columns = Columns.of(np.array(loaded.matrix, order=order))
        assert loaded.model.predict_columns(columns).tobytes() == expected.tobytes()


def test_threads_may_share_a_model(loaded: Loaded) -> None:
    whole = loaded.model.predict(loaded.matrix[:600])
    together = threading.Barrier(6)

    def predict(start: int) -> bool:
        together.wait(timeout=60)
        slices = [(start + 50 * step) % 600 for step in range(12)]
        return all(
            loaded.model.predict(loaded.matrix[at : at + 50]).tobytes()
            == whole[at : at + 50].tobytes()
            for at in slices
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(predict, range(0, 300, 50)))


def test_the_matrix_may_be_reused(loaded: Loaded) -> None:
    matrix = loaded.matrix[:500].copy()
    output = loaded.model.predict(matrix)
    before = output.copy()
    matrix[:] = 0
    assert np.array_equal(output, before)


def test_the_backend_names_the_library_and_its_version(loaded: Loaded) -> None:
    name, version = loaded.model.backend.rsplit(" ", 1)
    names = {"xgboost", "scikit-learn", "lightgbm", "onnxruntime", "augury forest", "augury linear"}
    assert name in names
    assert version[0].isdigit()


def test_another_signature_is_refused(loaded: Loaded) -> None:
    from dataclasses import replace

    from augury.errors import InvalidError

    narrower = replace(loaded.signature, inputs=loaded.signature.inputs[1:])
    with pytest.raises(InvalidError, match=f"{NUM_FEATURES} inputs, the signature"):
        _load(loaded, narrower)
    other = Signature(inputs=loaded.signature.inputs, task=Task.MULTICLASS, classes=(0, 1, 2, 3, 4))
    with pytest.raises(InvalidError, match="with 5 classes"):
        _load(loaded, other)


def test_classes_may_be_renamed(loaded: Loaded) -> None:
    names = [f"class {value}" for value in loaded.signature.classes]
    renamed = loaded.signature.with_classes(names)
    model = _load(loaded, renamed)
    assert model.signature.classes == tuple(names)


@pytest.mark.parametrize("content", [b"", b"{}", b"not a model", b'{"learner": {}}', b"\x80\x04."])
def test_what_is_no_model_is_said_to_be_none(
    loaded: Loaded, content: bytes, tmp_path: Path
) -> None:
    from augury.errors import CorruptError

    path = tmp_path / loaded.path.name
    path.write_bytes(content)
    flavor = get_flavor(loaded.case.flavor)
    with pytest.raises(CorruptError, match=str(path)):
        flavor.infer(path)
    with pytest.raises(CorruptError, match=str(path)):
        _load(loaded, loaded.signature, path)


def test_a_truncated_file_is_said_to_be_damaged(loaded: Loaded, tmp_path: Path) -> None:
    from augury.errors import CorruptError

    raw = loaded.path.read_bytes()
    path = tmp_path / loaded.path.name
    for length in [1, 10, *(len(raw) * part // 5 for part in range(1, 5)), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(CorruptError):
            get_flavor(loaded.case.flavor).infer(path)
        with pytest.raises(CorruptError):
            _load(loaded, loaded.signature, path)
