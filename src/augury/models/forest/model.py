"""A forest as a `Model`, and its comparison with the library's own predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, Fault
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


class ForestKernel:
    """A forest that is to score a model; see `port.Kernel`."""

    backend = FOREST
    note = ""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest

    def difference(self, native: Model) -> str:
        """Bits of predictions, on rows made from the trees' own thresholds."""
        if self._forest.num_features != native.signature.num_features:
            return "the model and its signature have different inputs"
        mismatch = verify(self._forest, native.predict, dtype=native.signature.dtype)
        return "" if mismatch is None else str(mismatch)

    def ready(self, signature: Signature, *, num_threads: int) -> ForestModel:
        """The model, to predict with."""
        return ForestModel(self._forest, signature, num_threads=num_threads)
