"""scikit-learn estimators and pipelines saved with joblib or pickle; only trusted ones.

The matrix's precision is the one in which the estimator itself compares: trees and forests cast
to float32, everything else computes in float64. Text that the pipeline's own encoders take arrives
as the index of their category (see `models.signature`), and becomes text again for scikit-learn.

Bits must not depend on the batch. Trees walk each row alone, but whatever multiplies matrices
(linear models, PCA, neural networks, discriminants, Gaussian processes) gives other last bits for
the same row when the batch has another size, because BLAS takes other kernels at the edges
(measured: 1, 2, 3, 7 and 3,071 rows all differ from 3,072). Those predict in blocks of fixed size
on one BLAS thread, the last one padded, and a probe when loading checks that this suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from augury.errors import ContractError, CorruptError, Fault, InvalidError, UnsupportedError
from augury.models.flavors.sklearn_text import (
    check_texts,
    learned_texts,
    parts,
    text_input,
    texts_of,
    with_texts,
)
from augury.models.inputs import check_names, named_inputs, reconcile
from augury.models.signature import Dtype, InputColumn, Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.fused.steps import Texts
    from augury.models.port import Kernel

# divisible by the row tiles of OpenBLAS's kernels (2 to 32, and 24), so no row is at an edge
_BLOCK_ROWS = 384
_LONGEST_REASON = 200
_SHIFTS = (1, 5, 129, _BLOCK_ROWS - 1)
# they cast to float32 and walk each row alone
_TREES_32 = (
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier",
    "ExtraTreesRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
)  # fmt: skip
_TREES_64 = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
_LIGHTGBM = ("LGBMClassifier", "LGBMRegressor")


class SklearnModel:
    """An estimator ready to predict."""

    def __init__(
        self,
        estimator: Any,
        signature: Signature,
        *,
        num_threads: int,
        made_of: Callable[[NDArray[Any]], Any] | None = None,
    ) -> None:
        """Takes an estimator.

        Args:
            estimator: fitted.
            signature: its inputs and outputs.
            num_threads: for code that uses OpenMP.
            made_of: what the estimator takes, from a matrix; None: the matrix itself.
        """
        import sklearn
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self.signature = signature
        self.backend = f"scikit-learn {sklearn.__version__}"
        method = getattr(estimator, _method(estimator))
        self._method = method if made_of is None else lambda rows: method(made_of(rows))
        row_by_row = (*_TREES_32, *_TREES_64, *_LIGHTGBM)
        self._in_blocks = type(estimator).__name__ not in row_by_row
        self._threads = ThreadpoolController()
        self._num_threads = num_threads
        # for good: a limit that is lifted after a call would be lifted under another thread's call
        self._threads.limit(limits=1, user_api="blas")

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`."""
        import numpy as np

        # OpenMP's limit belongs to the calling thread
        self._threads.limit(limits=self._num_threads, user_api="openmp")
        if len(matrix) == 0:
            wide = self.signature.task is Task.MULTICLASS
            return np.empty((0, len(self.signature.classes)) if wide else 0, dtype=np.float64)
        try:
            output = self._blocks(matrix) if self._in_blocks else self._method(matrix)
        except ValueError as error:
            raise self._refused(matrix, error) from error
        values: NDArray[np.float64] = np.asarray(output, dtype=np.float64)
        return values[:, 1] if self.signature.task is Task.BINARY else values

    def _blocks(self, matrix: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        num_rows = len(matrix)
        whole = num_rows - num_rows % _BLOCK_ROWS
        starts = range(0, whole, _BLOCK_ROWS)
        outputs = [self._method(matrix[start : start + _BLOCK_ROWS]) for start in starts]
        if whole < num_rows:
            # padded with a row of the batch: whatever it holds, the estimator can take it
            padded = np.repeat(matrix[-1:], _BLOCK_ROWS, axis=0)
            padded[: num_rows - whole] = matrix[whole:]
            outputs.append(self._method(padded)[: num_rows - whole])
        return np.concatenate(outputs)

    def _refused(self, matrix: NDArray[Any], error: ValueError) -> ContractError:
        import numpy as np

        empty = np.flatnonzero(~np.isfinite(matrix).all(axis=0))
        faults = [
            Fault(path=self.signature.names[number], message="has missing or infinite values")
            for number in empty
        ]
        why = str(error)
        why = why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]} ..."
        return ContractError(f"the estimator refuses the rows: {why}", faults)

    def probe(self, path: Path, known: Mapping[int, Sequence[float]] | None = None) -> None:
        """Checks that a row's bits depend neither on its place nor on its neighbours.

        Args:
            path: for the message.
            known: values that an encoder takes, by column; elsewhere numbers of any kind do.

        Raises:
            InvalidError: they do; the model cannot be used.
        """
        import numpy as np

        rng = np.random.default_rng(0)
        base = rng.normal(size=(_BLOCK_ROWS, self.signature.num_features))
        for column, values in (known or {}).items():
            base[:, column] = rng.choice(values, len(base))
        base = base.astype(self.signature.dtype)
        expected = self.predict(base)
        same = all(
            np.array_equal(
                self.predict(np.roll(base, shift, axis=0)), np.roll(expected, shift, axis=0)
            )
            for shift in (_SHIFTS if self._in_blocks else ())
        )
        if not same or not np.array_equal(self.predict(base[:7]), expected[:7]):
            raise InvalidError(
                f"model {path}: a row's prediction depends on the rows beside it in the batch, so "
                "a result would depend on how the data is cut; such estimators are not scored"
            )


class SklearnFlavor:
    """The format; see `Flavor`."""

    name = "sklearn"
    trusted_only = True
    suffixes: ClassVar[tuple[str, ...]] = (".joblib", ".pkl", ".pickle")

    def native_dtype(self, path: Path) -> Dtype:
        """See `Flavor.native_dtype`."""
        return _dtype(_load(path))

    def load(self, path: Path, signature: Signature, *, num_threads: int) -> SklearnModel:
        """Unpickles, on one thread wherever the estimator says how many (`n_jobs`)."""
        estimator = _load(path)
        _check(estimator, signature, path)
        made_of = text_input(estimator, signature)
        _prepare(estimator, named=made_of is not None)
        model = SklearnModel(estimator, signature, num_threads=num_threads, made_of=made_of)
        model.probe(path, _known_values(estimator, texts_of(signature)))
        return model

    def kernel(self, path: Path, signature: Signature) -> Kernel:
        """Unpickles; trees become a forest, pipelines and linear estimators are fused."""
        from augury.models.forest import ForestKernel, from_sklearn
        from augury.models.fused import FusedKernel, fuse

        estimator = _load(path)
        _check(estimator, signature, path)
        if type(estimator).__name__ in _LIGHTGBM:
            return _booster_kernel(estimator)
        encodes = getattr(estimator, "_preprocessor", None) is not None
        if type(estimator).__name__ in (*_TREES_32, *_TREES_64) and not encodes:
            return ForestKernel(from_sklearn(estimator))
        return FusedKernel(fuse(estimator, texts=texts_of(signature)))

    def infer(self, path: Path, sample: Mapping[str, InputColumn] | None = None) -> Signature:
        """Names and number of inputs and the classes as fitted, types from the sample."""
        estimator = _load(path)
        names, texts = _names(estimator), learned_texts(estimator, path)
        own = [InputColumn(name=name, type="double") for name in names] if names else None
        inputs = with_texts(named_inputs(own, _num_features(estimator, path), sample, path), texts)
        classes = _classes(estimator)
        signature = Signature(
            inputs=reconcile(inputs, sample, path),
            task=_task(estimator, path),
            classes=classes,
            dtype=_dtype(estimator),
        )
        signature.check()
        return signature


FLAVOR = SklearnFlavor()


def _load(path: Path) -> Any:
    import joblib

    try:
        estimator = joblib.load(path)
    except Exception as error:  # unpickling runs foreign code, which may raise anything
        raise CorruptError(
            f"model {path} cannot be unpickled: {type(error).__name__}: {error}. Was it saved with "
            "joblib or pickle, and are the libraries it needs installed?"
        ) from error
    if not hasattr(estimator, "predict"):
        raise CorruptError(
            f"model {path}: expected a scikit-learn estimator, found a {type(estimator).__name__}"
        )
    return estimator


def _prepare(estimator: Any, *, named: bool) -> None:
    """One thread, and no warning about names: columns are in the signature's order by then.

    Args:
        estimator: fitted; changed.
        named: it will be given columns with their names, and may select by them.
    """
    for part in parts(estimator):
        if getattr(part, "n_jobs", None) is not None:
            part.n_jobs = 1
        if not named:
            vars(part).pop("feature_names_in_", None)


def _booster_kernel(estimator: Any) -> Kernel:
    """LightGBM's own trees, up to the best iteration as the wrapper predicts."""
    from augury.models.forest import ForestKernel, from_lightgbm
    from augury.models.lightgbm_file import read_file

    booster = estimator.booster_
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return ForestKernel(from_lightgbm(read_file(text.encode())))


def _known_values(estimator: Any, texts: Texts) -> dict[int, list[float]]:
    """What the encoders know, by column, as far as the pipeline can be read."""
    from augury.models.fused import known_values

    try:
        return known_values(estimator, texts)
    except UnsupportedError:
        return {column: list(range(len(words))) for column, words in texts.items()}


def _names(estimator: Any) -> tuple[str, ...]:
    return tuple(map(str, getattr(estimator, "feature_names_in_", ())))


def _num_features(estimator: Any, path: Path) -> int:
    try:
        return int(estimator.n_features_in_)
    except AttributeError as error:
        raise InvalidError(
            f"model {path}: the {type(estimator).__name__} is not fitted, or does not say how many "
            "inputs it has"
        ) from error


def _dtype(estimator: Any) -> Dtype:
    return "float32" if type(estimator).__name__ in _TREES_32 else "float64"


def _method(estimator: Any) -> str:
    from sklearn.base import is_classifier

    return "predict_proba" if is_classifier(estimator) else "predict"


def _task(estimator: Any, path: Path) -> Task:
    from sklearn.base import is_classifier, is_regressor

    _refuse_categories(estimator, path)
    if is_classifier(estimator):
        if not hasattr(estimator, "predict_proba"):
            raise InvalidError(
                f"model {path}: a {type(estimator).__name__} gives no probabilities; wrap it in "
                "CalibratedClassifierCV"
            )
        return Task.BINARY if len(_classes(estimator)) == 2 else Task.MULTICLASS
    if is_regressor(estimator) and getattr(estimator, "n_outputs_", 1) == 1:
        return Task.REGRESSION
    raise InvalidError(
        f"model {path}: expected a classifier, or a regressor with one output, found "
        f"{type(estimator).__name__}"
    )


def _classes(estimator: Any) -> tuple[Any, ...]:
    classes = getattr(estimator, "classes_", ())
    return tuple(classes.tolist() if hasattr(classes, "tolist") else classes)


def _refuse_categories(estimator: Any, path: Path) -> None:
    """LightGBM's wrapper encodes a data frame's categories itself, and only there."""
    if getattr(getattr(estimator, "booster_", None), "pandas_categorical", None):
        raise InvalidError(
            f"model {path}: its {type(estimator).__name__} was trained on a data frame with "
            "categories; save its booster as text, which stores them: "
            "estimator.booster_.save_model('model.txt')"
        )


def _check(estimator: Any, signature: Signature, path: Path) -> None:
    """An explicit signature must fit the estimator."""
    check_texts(learned_texts(estimator, path), signature, path)
    check_names(_names(estimator), _num_features(estimator, path), signature, path)
    expected = (_task(estimator, path), len(_classes(estimator)))
    if (signature.task, len(signature.classes)) != expected:
        raise InvalidError(
            f"model {path}: the signature says {signature.task} with {len(signature.classes)} "
            f"classes, the {type(estimator).__name__} is {expected[0]} with {expected[1]}"
        )
