"""From margins to predictions for XGBoost's objectives, in the library's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from augury.models.forest.native import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _identity(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    return _flat(margins)


def _sigmoid(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    library().forest_sigmoid(margins.ctypes.data, margins.size)
    return _flat(margins)


def _softmax(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    library().forest_softmax(margins.ctypes.data, *margins.shape)
    return margins


def _exp(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    library().forest_exp(margins.ctypes.data, margins.size)
    return _flat(margins)


def _step(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return _flat((margins > 0).astype(np.float32))


def _flat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[:, 0] if values.shape[1] == 1 else values


#: by the name that `read_xgboost` gives; each may overwrite the contiguous margins
FINISHES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "exp": _exp,
    "step": _step,
}
