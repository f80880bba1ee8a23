"""The model port: what scoring needs of a model, and what a model format has to provide.

A *flavor* is a model format (xgboost, onnx, ...); each is one small file in `flavors/` implementing
`Flavor`. What it loads is a `Model`, and every model keeps three promises, on which determinism
and speed rest and which `tests/contract/test_model_flavors.py` checks for each flavor:

1. Row-independent: no bit of a row's prediction depends on the other rows of the batch.
2. Thread-safe: several threads may call `predict` on one model at once.
3. Native: no Python per row, and the GIL is released while native code computes, as far as the
   library does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from augury.models.signature import Dtype, InputColumn, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.columns import Columns


class Model(Protocol):
    """A loaded model."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""
        ...

    @property
    def backend(self) -> str:
        """What computes, with its version: `xgboost 3.4.1`, `augury forest 1`. Pinned in plans."""
        ...

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Predicts one batch.

        Args:
            matrix: `(num_rows, num_features)`, C-contiguous, in `signature.dtype`; NaN is missing.
                It may be reused by the caller after the call: nothing of it is kept.

        Returns:
            A new array. Regression: `(num_rows,)`. Binary: `(num_rows,)`, the probability of
            `classes[1]`. Multi-class: `(num_rows, num_classes)`, probabilities in class order.
        """
        ...


@runtime_checkable
class ColumnModel(Protocol):
    """A model that takes columns as they were decoded, and so needs no matrix of them."""

    def predict_columns(self, columns: Columns) -> NDArray[np.floating[Any]]:
        """Predicts one batch: to the bit what `Model.predict` gives for the matrix of it."""
        ...


class Kernel(Protocol):
    """A model compiled for a kernel of Augury's own, not compared with its library yet."""

    @property
    def backend(self) -> str:
        """As `Model.backend` of what `ready` returns."""
        ...

    @property
    def note(self) -> str:
        """How far its predictions may lie from the library's; empty: equal in every bit."""
        ...

    def difference(self, native: Model) -> str:
        """Compares it with the library, on the rows where it could go wrong.

        Returns:
            How it differs beyond what `note` says; empty: it does not.
        """
        ...

    def ready(self, signature: Signature, *, num_threads: int) -> Model:
        """The model, to predict with."""
        ...


class Flavor(Protocol):
    """A model format."""

    @property
    def name(self) -> str:
        """As users write it: `xgboost`."""
        ...

    @property
    def trusted_only(self) -> bool:
        """True if loading a file of this format runs code that the file brings."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File name endings by which the format is recognised, in lower case, with the dot."""
        ...

    def native_dtype(self, path: Path) -> Dtype:
        """The precision in which this model itself compares."""
        ...

    def load(self, path: Path, signature: Signature, *, num_threads: int) -> Model:
        """Loads a model as its library scores it, with at most `num_threads` threads a call.

        Raises:
            CorruptError: the file is no model of this format.
            InvalidError: the file is a model, but `signature` does not fit it.
        """
        ...

    def kernel(self, path: Path, signature: Signature) -> Kernel:
        """Compiles the model for one of Augury's kernels.

        Raises:
            UnsupportedError: none of them scores this model, and why.
            CorruptError: the file is no model of this format.
            InvalidError: the file is a model, but `signature` does not fit it.
        """
        ...

    def infer(self, path: Path, sample: Mapping[str, InputColumn] | None = None) -> Signature:
        """What the model itself, and a sample of its input, say about its inputs and outputs.

        Args:
            path: the model file; loaded, so a `trusted_only` one must be trusted already.
            sample: columns of a sample of the input by name (see `models.sample`); types and
                categories come from there where the model does not know them.

        Raises:
            CorruptError: the file is no model of this format.
            InvalidError: the model does not say enough, or the sample does not fit it; the
                message says what to add.
        """
        ...
