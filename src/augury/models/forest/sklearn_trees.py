"""scikit-learn's tree ensembles, taken from a loaded estimator.

What is exact: random forests, extra trees and gradient boosting round values to float32 and compare
them with double thresholds (so the threshold is rounded down to a float32, which decides the same
for every float32); HistGradientBoosting compares doubles. All of them add doubles in the order of
the trees. What follows the sums is done by the estimator's own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import UnsupportedError
from augury.models.forest.ensemble import (
    CATEGORICAL,
    MISSING_RIGHT,
    OTHER_RIGHT,
    Ensemble,
    Precision,
    Tree,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    #: from margins, `(num_rows, num_outputs)`, to predictions as `Model.predict` returns them
    Finish = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: the estimators that are read
NAMES = (
    "RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier",
    "ExtraTreeClassifier", "RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor",
    "ExtraTreeRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
    "HistGradientBoostingClassifier", "HistGradientBoostingRegressor",
)  # fmt: skip
#: what the estimator refuses in its input, as `forest_find_float` reports it
NAN, INFINITE = 1, 2


def read_sklearn(estimator: Any, *, encoded: bool = False) -> tuple[Ensemble, Finish, int]:
    """The trees of a fitted estimator, what follows their sums, and what it refuses.

    Args:
        estimator: a fitted one.
        encoded: the trees get what the estimator's own preprocessor makes of its input
            (HistGradientBoosting with categorical features).

    Raises:
        UnsupportedError: an estimator, or an option of it, that the kernel does not score.
    """
    name = type(estimator).__name__
    module = type(estimator).__module__
    if name not in NAMES or not module.startswith("sklearn."):
        raise UnsupportedError(f"it is a {module}.{name}")
    if not hasattr(estimator, "n_features_in_"):
        raise UnsupportedError(f"the {name} is not fitted")
    if getattr(estimator, "_preprocessor", None) is not None and not encoded:
        raise UnsupportedError("it has categorical features, which it encodes and reorders itself")
    return _READERS[name](estimator)


def _forest_classifier(estimator: Any) -> tuple[Ensemble, Finish, int]:
    import numpy as np

    if estimator.n_outputs_ != 1:
        raise UnsupportedError(f"it predicts {estimator.n_outputs_} targets")
    num_classes = int(estimator.n_classes_)
    if num_classes < 2:
        raise UnsupportedError("it knows one class only")
    # of two classes only the second is asked for; each class is summed by itself
    columns = slice(1, 2) if num_classes == 2 else slice(0, num_classes)
    trees = [
        _tree(tree.tree_, np.asarray(tree.tree_.value)[:, 0, columns], "float32")
        for tree in _grown(estimator)
    ]
    width = 1 if num_classes == 2 else num_classes
    return (
        _mean(estimator, trees, width),
        _divide(len(trees), flat=num_classes == 2),
        _refuses(estimator),
    )


def _forest_regressor(estimator: Any) -> tuple[Ensemble, Finish, int]:
    import numpy as np

    if estimator.n_outputs_ != 1:
        raise UnsupportedError(f"it predicts {estimator.n_outputs_} targets")
    trees = [
        _tree(tree.tree_, np.asarray(tree.tree_.value)[:, 0, :1], "float32")
        for tree in _grown(estimator)
    ]
    return _mean(estimator, trees, 1), _divide(len(trees), flat=True), _refuses(estimator)


def _grown(estimator: Any) -> list[Any]:
    """The trees of a forest; a single tree is a forest of its own."""
    return list(getattr(estimator, "estimators_", [estimator]))


def _mean(estimator: Any, trees: list[Tree], width: int) -> Ensemble:
    import numpy as np

    return Ensemble(
        trees=trees,
        num_features=int(estimator.n_features_in_),
        num_outputs=width,
        compare="float32",
        accumulate="float64",
        initial=np.zeros(width),
        width=width,
    )


def _divide(count: int, *, flat: bool) -> Finish:
    def finish(margins: NDArray[np.float64]) -> NDArray[np.float64]:
        margins /= count
        return margins[:, 0] if flat else margins

    return finish


def _refuses(estimator: Any) -> int:
    """Infinite values always; NaN unless the trees were grown with missing values in mind."""
    import numpy as np

    row = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    allowed = _grown(estimator)[0]._support_missing_values(row)
    return INFINITE if allowed else NAN | INFINITE


def _boosting(estimator: Any) -> tuple[Ensemble, Finish, int]:
    import numpy as np
    from sklearn.dummy import DummyClassifier, DummyRegressor

    initial = estimator.init_
    if not (isinstance(initial, DummyClassifier | DummyRegressor) or initial == "zero"):
        raise UnsupportedError(f"it starts from a {type(initial).__name__}, not from a constant")
    row = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    start = np.asarray(estimator._raw_predict_init(row), dtype=np.float64)[0]
    trees = [
        _tree(
            tree.tree_,
            estimator.learning_rate * np.asarray(tree.tree_.value)[:, 0, :1],
            "float32",
            output=output,
        )
        for stage in estimator.estimators_
        for output, tree in enumerate(stage)
    ]
    ensemble = Ensemble(
        trees=trees,
        num_features=int(estimator.n_features_in_),
        num_outputs=len(start),
        compare="float32",
        accumulate="float64",
        initial=start,
    )
    return ensemble, _loss(estimator, len(start), linked=False), NAN | INFINITE


def _hist(estimator: Any) -> tuple[Ensemble, Finish, int]:
    import numpy as np

    start = np.asarray(estimator._baseline_prediction).ravel()
    if start.dtype != np.float64:
        raise UnsupportedError(f"it sums in {start.dtype}")
    trees = [
        _hist_tree(predictor, output)
        for stage in estimator._predictors
        for output, predictor in enumerate(stage)
    ]
    ensemble = Ensemble(
        trees=trees,
        num_features=int(estimator.n_features_in_),
        num_outputs=len(start),
        compare="float64",
        accumulate="float64",
        initial=start,
    )
    return ensemble, _loss(estimator, len(start), linked=True), 0


def _loss(estimator: Any, num_outputs: int, *, linked: bool) -> Finish:
    """The estimator's own way from raw predictions to values or probabilities.

    Args:
        estimator: a gradient boosting one.
        num_outputs: columns of the margins.
        linked: a HistGradientBoosting one: its regressor applies the loss's link, which the other's
            losses do not have.
    """
    import numpy as np
    from sklearn.base import is_classifier

    loss = estimator._loss
    classifier = is_classifier(estimator)

    def finish(margins: NDArray[np.float64]) -> NDArray[np.float64]:
        if not classifier:
            values: NDArray[np.float64] = margins[:, 0]
            return np.asarray(loss.link.inverse(values)) if linked else values
        # sums over classes depend on the memory order, and the histogram ones' is by column
        raw = np.asfortranarray(margins) if linked else margins
        probabilities: NDArray[np.float64] = loss.predict_proba(raw)
        return probabilities[:, 1] if num_outputs == 1 else probabilities

    return finish


def _tree(tree: Any, value: NDArray[np.float64], compare: Precision, *, output: int = 0) -> Tree:
    import numpy as np

    left = np.asarray(tree.children_left, dtype=np.int32)
    inner = left >= 0
    missing_left = np.asarray(tree.missing_go_to_left, dtype=bool)
    return Tree(
        left=left,
        right=np.asarray(tree.children_right, dtype=np.int32),
        feature=np.where(inner, tree.feature, 0).astype(np.int32),
        threshold=above(np.asarray(tree.threshold, dtype=np.float64), compare),
        flags=np.where(missing_left, 0, MISSING_RIGHT).astype(np.uint8),
        value=value,
        output=output,
        weight=np.asarray(tree.weighted_n_node_samples, dtype=np.float64),
    )


def _hist_tree(predictor: Any, output: int) -> Tree:
    import numpy as np

    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    missing_right = ~nodes["missing_go_to_left"].astype(bool)
    categorical = nodes["is_categorical"].astype(bool) & ~leaf
    flags = np.where(missing_right, MISSING_RIGHT, 0)
    # what is no category is missing
    flags |= np.where(categorical, np.where(missing_right, OTHER_RIGHT, 0) | CATEGORICAL, 0)
    return Tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int32)).astype(np.int32),
        right=np.where(leaf, -1, nodes["right"].astype(np.int32)).astype(np.int32),
        feature=nodes["feature_idx"].astype(np.int32),
        threshold=above(nodes["num_threshold"].astype(np.float64), "float64"),
        flags=flags.astype(np.uint8),
        value=nodes["value"].astype(np.float64),
        output=output,
        weight=nodes["count"].astype(np.float64),
        categories=_hist_categories(predictor, categorical) or None,
    )


def _hist_categories(predictor: Any, categorical: NDArray[np.bool_]) -> dict[int, Sequence[int]]:
    """Bits of the categories going right, by node; the predictor has those going left.

    An encoded value is missing or a category that is known, so no other bit is ever asked for.
    """
    import numpy as np

    places = predictor.nodes["bitset_idx"]
    return {
        int(node): [
            ~int(word) & 0xFFFFFFFF for word in predictor.raw_left_cat_bitsets[places[node]]
        ]
        for node in np.flatnonzero(categorical)
    }


def above(threshold: NDArray[np.float64], compare: Precision) -> NDArray[np.float64]:
    """The smallest value of a type that is greater than a threshold.

    So a value greater than the threshold is one not less than the result.
    Nothing is greater than infinity, which becomes NaN: never.
    """
    import numpy as np

    down, up = np.float32(-np.inf), np.float32(np.inf)
    with np.errstate(over="ignore", under="ignore"):
        if compare == "float64":
            least = np.nextafter(threshold, np.inf)
        else:
            single = threshold.astype(np.float32)
            single = np.where(single > threshold, np.nextafter(single, down), single)
            least = np.nextafter(single, up).astype(np.float64)
    return np.where(threshold == np.inf, np.nan, least)


_READERS: dict[str, Callable[[Any], tuple[Ensemble, Finish, int]]] = dict(
    zip(
        NAMES,
        (_forest_classifier,) * 4 + (_forest_regressor,) * 4 + (_boosting,) * 2 + (_hist,) * 2,
        strict=True,
    )
)
