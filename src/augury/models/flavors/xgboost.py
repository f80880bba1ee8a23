"""XGBoost models in JSON or UBJSON form, through `Booster.inplace_predict`.

Predictions equal those of the library's own load-and-predict: a model that its scikit-learn
interface saved after early stopping predicts with the trees up to its best iteration, a native one
with all of them. Nothing in such a file is code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import CorruptError, InvalidError
from augury.models.flavors.xgboost_file import Description, describe
from augury.models.inputs import check_categories, check_names, named_inputs, reconcile
from augury.models.signature import Dtype, InputColumn, Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.port import Kernel

# their output is no probability, and what would make it one depends on how they were trained
_NO_PROBABILITY = {"binary:logitraw": "binary:logistic", "binary:hinge": "binary:logistic"}


# below this, threads wait for each other longer than they compute (measured on 2 busy cores: 930
# rows at a time take 15.6 s on two threads, 4.1 s on one; the bits are the same)
_PARALLEL_ROWS = 8192


class XGBoostModel:
    """A booster ready to predict.

    Args:
        alone: computes on the calling thread.
        together: the same booster, computing on several; None for one thread only.
        signature: inputs and outputs.
        iterations: trees to use, as `iteration_range`.
    """

    def __init__(
        self, alone: Any, together: Any | None, signature: Signature, iterations: tuple[int, int]
    ) -> None:
        import xgboost

        self.signature = signature
        self.backend = f"xgboost {xgboost.__version__}"
        self._alone = alone
        self._together = together
        self._iterations = iterations
        self._num_outputs = len(signature.classes) if signature.task is Task.MULTICLASS else 1

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`. The native code releases the GIL."""
        import numpy as np

        wide = self.signature.task is Task.MULTICLASS
        if len(matrix) == 0:
            return np.empty((0, self._num_outputs) if wide else 0, dtype=np.float32)
        parallel = self._together is not None and len(matrix) >= _PARALLEL_ROWS
        booster: Any = self._together if parallel else self._alone
        output: NDArray[np.float32] = booster.inplace_predict(
            matrix, iteration_range=self._iterations, validate_features=False, strict_shape=True
        )
        return output if wide else output[:, 0]


class XGBoostFlavor:
    """The format; see `Flavor`."""

    name = "xgboost"
    trusted_only = False
    suffixes = (".ubj", ".json")

    def native_dtype(self, path: Path) -> Dtype:
        """See `Flavor.native_dtype`."""
        return "float32"

    def load(self, path: Path, signature: Signature, *, num_threads: int) -> XGBoostModel:
        """Loads a booster and predicts one row, so that nothing is configured lazily later."""
        import numpy as np

        raw = path.read_bytes()
        description = describe(raw, path)
        _check(description, signature, path)
        alone = _ready(raw, path, description, num_threads=1)
        together = None
        if num_threads > 1:
            together = _ready(raw, path, description, num_threads=num_threads)
        model = XGBoostModel(alone, together, signature, description.iterations)
        for num_rows in (1, _PARALLEL_ROWS) if together is not None else (1,):
            model.predict(np.zeros((num_rows, signature.num_features), dtype=signature.dtype))
        return model

    def kernel(self, path: Path, signature: Signature) -> Kernel:
        """The trees, read without the library."""
        from augury.models.forest import ForestKernel, load_xgboost

        raw = path.read_bytes()
        _check(describe(raw, path), signature, path)
        return ForestKernel(load_xgboost(raw))

    def infer(self, path: Path, sample: Mapping[str, InputColumn] | None = None) -> Signature:
        """Names, types and categories as the model stores them, types narrowed by the sample.

        The library has the last word on whether it is a model when it is loaded for the first time.
        """
        raw = path.read_bytes()
        description = describe(raw, path)
        own = named_inputs(description.inputs, description.num_features, sample, path)
        signature = Signature(
            inputs=reconcile(own, sample, path),
            task=_task(description, path),
            classes=tuple(range(_num_classes(description))),
            dtype=self.native_dtype(path),
        )
        signature.check()
        return signature


FLAVOR = XGBoostFlavor()


def _ready(raw: bytes, path: Path, description: Description, *, num_threads: int) -> Any:
    booster = _load(raw, path)
    settings: dict[str, Any] = {"nthread": num_threads, "device": "cpu"}
    if description.objective == "multi:softmax":
        # the same trees and margins; only this one gives probabilities
        settings["objective"] = "multi:softprob"
    booster.set_param(settings)
    return booster


def _load(raw: bytes, path: Path) -> Any:
    import xgboost

    try:
        return xgboost.Booster(model_file=bytearray(raw))
    except (xgboost.core.XGBoostError, UnicodeDecodeError, ValueError, TypeError) as error:
        reason = str(error).partition("Stack trace")[0].strip()
        raise CorruptError(f"model {path} cannot be loaded by XGBoost: {reason}") from error


def _task(description: Description, path: Path) -> Task:
    objective = description.objective
    if objective in _NO_PROBABILITY:
        raise InvalidError(
            f"model {path}: objective {objective} gives no probability; train with "
            f"{_NO_PROBABILITY[objective]}, or give a signature whose task is regression to get "
            "its raw output"
        )
    if objective.startswith("multi:"):
        return Task.MULTICLASS
    if objective == "binary:logistic":
        return Task.BINARY
    if description.num_outputs != 1:
        raise InvalidError(
            f"model {path}: expected one output a row, found {description.num_outputs} "
            f"(objective {objective}); train one model for each target"
        )
    return Task.REGRESSION


def _num_classes(description: Description) -> int:
    if description.objective == "binary:logistic":
        return 2
    return description.num_outputs if description.objective.startswith("multi:") else 0


def _check(description: Description, signature: Signature, path: Path) -> None:
    """An explicit signature must fit the model."""
    names = tuple(column.name for column in description.inputs or ())
    check_names(names, description.num_features, signature, path)
    raw_output = signature.task is Task.REGRESSION and description.objective in _NO_PROBABILITY
    expected = signature.task if raw_output else _task(description, path)
    num_classes = 0 if raw_output else _num_classes(description)
    if (signature.task, len(signature.classes)) != (expected, num_classes):
        raise InvalidError(
            f"model {path}: the signature says {signature.task} with {len(signature.classes)} "
            f"classes, the model is {expected} with {num_classes} ({description.objective})"
        )
    check_categories(description.inputs or (), signature, path)
