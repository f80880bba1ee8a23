"""A tree ensemble as plain arrays: what every loader makes, and what the native code compiles.

All libraries' comparisons become one: a row goes right if `value >= threshold`, after the value was
rounded to `compare`. `value <= threshold` (scikit-learn, LightGBM) is the same as not
`value >= next(threshold)`, where `next` is the next greater number of type `compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from augury.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["float32", "float64"]

#: flags of a node
MISSING_RIGHT = 1
CATEGORICAL = 2
OTHER_RIGHT = 4  #: a value that is no category of the model goes right
#: categories are the integers below this number
MAX_CATEGORIES = 255
_MAX_FEATURES = 1 << 29


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree; arrays of `(num_nodes,)`, node 0 is the root.

    Attributes:
        left: left children; -1 for a leaf.
        right: right children.
        feature: column that the node compares.
        threshold: goes right if `value >= threshold`; NaN: never.
        flags: `MISSING_RIGHT | CATEGORICAL | OTHER_RIGHT`.
        value: `(num_nodes, width)`, of leaves.
        output: column of the margins that the tree adds to, if `width` is 1.
        weight: how many rows of the training data came to each node, if known: what speed, not
            results, depends on.
        categories: of categorical nodes: node -> 8 words of 32 bits, the categories going right.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    flags: NDArray[np.uint8]
    value: NDArray[np.float64]
    output: int = 0
    weight: NDArray[np.float64] | None = None
    categories: dict[int, Sequence[int]] | None = None


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Trees whose values are summed in their order.

    Attributes:
        trees: in the library's order.
        num_features: columns of the matrix.
        num_outputs: columns of the margins.
        compare: to which values are rounded before they are compared.
        accumulate: type of the sums.
        initial: `(num_outputs,)` where the sums start.
        width: values that a leaf has: 1, or `num_outputs`.
        category_above: a value is truncated to a category if it is at least 0 or above this.
    """

    trees: Sequence[Tree]
    num_features: int
    num_outputs: int
    compare: Precision
    accumulate: Precision
    initial: NDArray[np.float64]
    width: int = 1
    category_above: float = 0.0

    def check(self) -> None:
        """Raises UnsupportedError if the kernel cannot hold it."""
        if not self.trees:
            raise UnsupportedError("it has no trees")
        if self.num_features >= _MAX_FEATURES:
            raise UnsupportedError(f"it has {self.num_features} features")
        if self.num_outputs > _MAX_OUTPUTS:
            raise UnsupportedError(
                f"it has {self.num_outputs} outputs a row, more than {_MAX_OUTPUTS}"
            )


_MAX_OUTPUTS = 4096


def joined(trees: Sequence[Tree], name: str, dtype: Any) -> NDArray[Any]:
    """One array over the nodes of all trees."""
    import numpy as np

    return np.ascontiguousarray(np.concatenate([getattr(tree, name) for tree in trees]), dtype)
