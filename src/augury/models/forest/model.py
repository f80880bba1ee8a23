"""A forest as a `Model`, and the choice between it and the library's own predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, Fault, UnsupportedError
from augury.models.forest.check import verify
from augury.models.forest.forest import Forest
from augury.models.port import Model
from augury.models.signature import Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: moves when the bits of a prediction could: plans pin it
KERNEL_VERSION = 1
#: what a model that it scores says as its `backend`
FOREST = f"augury forest {KERNEL_VERSION}"


class ForestModel:
    """A forest behind the model port.

    The instruction set is no part of `backend`: no bit depends on it.
    """

    def __init__(self, forest: Forest, signature: Signature, *, num_threads: int = 1) -> None:
        self.signature = signature
        self.backend = FOREST
        self._forest = forest
        self._num_threads = num_threads

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`. The GIL is released while the kernel runs.

        Raises:
            ContractError: the model's library would refuse the values; names the columns.
        """
        try:
            predictions: NDArray[np.floating[Any]] = self._forest.predict(
                matrix, num_threads=self._num_threads
            )
        except ContractError as error:
            raise self._named(error) from error
        assert predictions.ndim == (2 if self.signature.task is Task.MULTICLASS else 1)
        return predictions

    def _named(self, error: ContractError) -> ContractError:
        names = self.signature.names
        faults = [
            Fault(path=names[int(fault.path.removeprefix("column "))], message=fault.message)
            for fault in error.faults
        ]
        return ContractError("the model takes finite values only", faults) if faults else error


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Who scores a model, and why.

    Attributes:
        model: what to score with.
        reason: why it is not the kernel; empty if it is.
    """

    model: Model
    reason: str = ""


def choose(native: Model, build: Callable[[], Forest], *, num_threads: int = 1) -> Choice:
    """The kernel, if it predicts every bit as the library does on the rows where it could fail.

    Args:
        native: the model as its library predicts it; what is compared with, and the fallback.
        build: makes the forest: `lambda: load_xgboost(path)`.
        num_threads: for the kernel.
    """
    try:
        forest = build()
    except UnsupportedError as error:
        return Choice(model=native, reason=str(error))
    if forest.num_features != native.signature.num_features:
        return Choice(model=native, reason="the model and its signature have different inputs")
    candidate = ForestModel(forest, native.signature, num_threads=num_threads)
    mismatch = verify(forest, native.predict, dtype=native.signature.dtype)
    if mismatch is not None:
        return Choice(model=native, reason=str(mismatch))
    return Choice(model=candidate)
