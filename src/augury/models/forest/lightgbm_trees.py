"""LightGBM's trees, taken from a model file that was read and checked (`lightgbm_file`).

What is exact: values are compared as doubles and summed as doubles, in the order of the trees. The
library takes what lies within 1e-35 of zero for zero before it compares; a threshold says so here
by where it is put. A missing value goes where the node says, or where zero goes, as the node says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import UnsupportedError
from augury.models.forest.ensemble import (
    CATEGORICAL,
    MAX_CATEGORIES,
    MISSING_RIGHT,
    OTHER_RIGHT,
    Ensemble,
    Tree,
)
from augury.models.lightgbm_file import LightGBMFile, TreeText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Finish = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: what lies no farther from zero is zero; a float32 in the library
_ZERO = 1.0000000180025095e-35
_IS_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2


def read_lightgbm(model: LightGBMFile) -> tuple[Ensemble, Finish]:
    """The trees of a model, and what follows their sums.

    Raises:
        UnsupportedError: a model of a kind that the kernel does not score.
    """
    import numpy as np

    trees = [_tree(tree, number % model.num_outputs) for number, tree in enumerate(model.trees)]
    ensemble = Ensemble(
        trees=trees,
        num_features=model.num_features,
        num_outputs=model.num_outputs,
        compare="float64",
        accumulate="float64",
        initial=np.zeros(model.num_outputs),
        category_above=-1.0,
    )
    return ensemble, _finish(model)


# --- trees ----------------------------------------------------------------------------------------


def _tree(text: TreeText, output: int) -> Tree:
    """Inner nodes come first, then the leaves."""
    import numpy as np

    if text.is_linear:
        raise UnsupportedError("its leaves are linear models")
    num_inner, num_leaves = len(text.split_feature), len(text.leaf_value)
    kinds = text.decision_type
    categorical = kinds & _IS_CATEGORICAL != 0
    flags, threshold = _numeric(text)
    flags[categorical] = CATEGORICAL | OTHER_RIGHT | MISSING_RIGHT
    threshold[categorical] = np.nan
    leaf = np.full(num_leaves, -1, dtype=np.int32)
    return Tree(
        left=np.concatenate([_places(text.left_child, num_inner), leaf]),
        right=np.concatenate([_places(text.right_child, num_inner), leaf]),
        feature=_padded(text.split_feature, num_leaves, np.int32),
        threshold=_padded(threshold, num_leaves, np.float64),
        flags=_padded(flags, num_leaves, np.uint8),
        value=np.concatenate([np.zeros(num_inner), text.leaf_value])[:, None],
        output=output,
        weight=_weights(text),
        categories=_categories(text, categorical) or None,
    )


def _places(children: NDArray[Any], num_inner: int) -> NDArray[np.int32]:
    """Children as numbers of nodes; the library counts leaves by themselves, as ~number."""
    import numpy as np

    return np.where(children >= 0, children, num_inner + ~children).astype(np.int32)


def _padded(values: NDArray[Any], num_leaves: int, dtype: Any) -> NDArray[Any]:
    import numpy as np

    return np.concatenate([values, np.zeros(num_leaves)]).astype(dtype)


def _weights(text: TreeText) -> NDArray[np.float64] | None:
    import numpy as np

    if text.internal_count is None or text.leaf_count is None:
        return None
    return np.concatenate([text.internal_count, text.leaf_count]).astype(np.float64)


def _numeric(text: TreeText) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Flags and thresholds of all nodes as if they were numeric: right if value >= threshold."""
    import numpy as np

    threshold, kinds = text.threshold, text.decision_type
    missing_type = kinds >> 2
    zero_left = threshold >= 0
    default_left = kinds & _DEFAULT_LEFT != 0
    numeric = kinds & _IS_CATEGORICAL == 0
    if (numeric & (missing_type == _MISSING_ZERO) & (default_left != zero_left)).any():
        raise UnsupportedError("it takes zeros for missing values, and sends them elsewhere")
    missing_left = np.where(missing_type == _MISSING_NAN, default_left, zero_left)
    least = np.nextafter(threshold, np.inf)
    least = np.where((threshold >= 0) & (threshold <= _ZERO), np.nextafter(_ZERO, 1.0), least)
    least = np.where((threshold < 0) & (threshold >= -_ZERO), -_ZERO, least)
    least = np.where(threshold == np.inf, np.nan, least)
    return np.where(missing_left, 0, MISSING_RIGHT).astype(np.uint8), least


def _categories(text: TreeText, categorical: NDArray[np.bool_]) -> dict[int, Sequence[int]]:
    """Bits of the categories going right, by node; the file has those going left."""
    import numpy as np

    sets: dict[int, Sequence[int]] = {}
    for node in np.flatnonzero(categorical):
        place = int(text.threshold[node])
        first, last = (int(bound) for bound in text.cat_boundaries[place : place + 2])
        left = text.cat_threshold[first:last]
        chosen = [
            32 * word + bit
            for word, bits in enumerate(left)
            for bit in range(32)
            if bits >> bit & 1
        ]
        if max(chosen, default=0) >= MAX_CATEGORIES:
            raise UnsupportedError(
                f"a split names category {max(chosen)}, not below {MAX_CATEGORIES}"
            )
        words = [0xFFFFFFFF] * 8
        for category in chosen:
            words[category // 32] &= ~(1 << category % 32)
        sets[int(node)] = words
    return sets


# --- what follows the sums ------------------------------------------------------------------------


def _finish(model: LightGBMFile) -> Finish:
    """The objective's function, in the library's own arithmetic."""
    convert = _CONVERSIONS.get(model.objective)
    if convert is None:
        raise UnsupportedError(f"its objective is {model.objective}")
    rounds = len(model.trees) // model.num_outputs

    def finish(margins: NDArray[np.float64]) -> NDArray[np.float64]:
        if model.averages:
            margins /= rounds
        convert(margins, model)
        return margins[:, 0] if model.num_outputs == 1 else margins

    return finish


def _identity(margins: NDArray[np.float64], model: LightGBMFile) -> None:
    import numpy as np

    if model.is_squared:
        np.multiply(np.sign(margins) * margins, margins, out=margins)


def _sigmoid(margins: NDArray[np.float64], model: LightGBMFile) -> None:
    from augury.models.forest.native import library

    library().forest_sigmoid_double(margins.ctypes.data, margins.size, model.sigmoid)


def _softmax(margins: NDArray[np.float64], _model: LightGBMFile) -> None:
    from augury.models.forest.native import library

    library().forest_softmax_double(margins.ctypes.data, *margins.shape)


def _exp(margins: NDArray[np.float64], _model: LightGBMFile) -> None:
    from augury.models.forest.native import library

    library().forest_exp_double(margins.ctypes.data, margins.size)


def _log1p_exp(margins: NDArray[np.float64], _model: LightGBMFile) -> None:
    from augury.models.forest.native import library

    library().forest_log1p_exp_double(margins.ctypes.data, margins.size)


_CONVERSIONS: dict[str, Callable[[NDArray[np.float64], LightGBMFile], None]] = {
    "binary": _sigmoid,
    "multiclass": _softmax,
    "multiclassova": _sigmoid,
    "cross_entropy": _sigmoid,
    "cross_entropy_lambda": _log1p_exp,
    "poisson": _exp,
    "gamma": _exp,
    "tweedie": _exp,
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank",
         "rank_xendcg", ""),
        _identity,
    ),
}  # fmt: skip
