"""A fused pipeline behind the model port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, Fault
from augury.models.columns import Columns
from augury.models.fused.check import difference
from augury.models.fused.model import Fused, FusedLinear
from augury.models.port import Model
from augury.models.signature import Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BOUND = (
    "sums lie within {factor:.1e} (|z1 w1| + ... + |b|) of the library's, which leaves their order "
    "to BLAS; not equal in every bit"
)


class FusedModel:
    """A fused pipeline; computes on the calling thread, and the GIL is released meanwhile."""

    def __init__(self, fused: Fused, signature: Signature) -> None:
        self.signature = signature
        self.backend = fused.backend
        self._fused = fused

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`.

        Raises:
            ContractError: the pipeline would refuse the values; names the columns.
        """
        return self.predict_columns(Columns.of(matrix))

    def predict_columns(self, columns: Columns) -> NDArray[np.floating[Any]]:
        """One batch; see `ColumnModel.predict_columns`.

        Raises:
            ContractError: as `predict`.
        """
        try:
            predictions = self._fused.predict(columns)
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
        return ContractError("the model refuses the rows", faults) if faults else error


class FusedKernel:
    """A fused pipeline that is to score a model; see `port.Kernel`."""

    def __init__(self, fused: Fused) -> None:
        self._fused = fused
        self.backend = fused.backend
        self.note = ""
        if isinstance(fused, FusedLinear):
            self.note = _BOUND.format(factor=fused.factor)

    def difference(self, native: Model) -> str:
        """Bits of trees, or sums against their bound; see `check`."""
        if self._fused.num_sources != native.signature.num_features:
            return "the model and its signature have different inputs"
        return difference(self._fused, native)

    def ready(self, signature: Signature, *, num_threads: int) -> FusedModel:
        """The model; the reader of the columns, not it, sets the pace, so one thread is enough."""
        return FusedModel(self._fused, signature)
