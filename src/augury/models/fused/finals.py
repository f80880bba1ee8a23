"""The last step of a fused pipeline: weights, an offset, and what follows the sum.

What follows is scikit-learn's own function of the sum, so it adds nothing to the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    #: from margins, `(num_rows, num_outputs)`, to predictions as `Model.predict` returns them
    Finish = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# regressors that predict the weighted sum itself
_SUMS = frozenset(
    {"ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars",
     "LarsCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression",
     "LinearSVR", "OrthogonalMatchingPursuit", "QuantileRegressor", "Ridge", "RidgeCV",
     "SGDRegressor", "TheilSenRegressor"}
)  # fmt: skip
_LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A weighted sum of features.

    Attributes:
        weights: `(num_features, num_outputs)`.
        offset: `(num_outputs,)`, added last.
        finish: may overwrite the margins.
        is_regression: the margin is the prediction.
    """

    weights: NDArray[np.float64]
    offset: NDArray[np.float64]
    finish: Finish
    is_regression: bool


def read_linear(estimator: Any) -> Linear:
    """A fitted linear estimator.

    Raises:
        UnsupportedError: it is none, or one whose predictions are not simply a weighted sum.
    """
    import numpy as np
    from sklearn.base import is_classifier

    classifies = is_classifier(estimator)
    finish = _of_classifier(estimator) if classifies else _of_regressor(estimator)
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    num_outputs = len(coefficients)
    offset = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), num_outputs)
    if coefficients.shape[1] != estimator.n_features_in_:
        raise UnsupportedError("its weights do not fit its inputs")
    return Linear(
        weights=np.ascontiguousarray(coefficients.T),
        offset=np.ascontiguousarray(offset),
        finish=finish,
        is_regression=not classifies,
    )


def _of_regressor(estimator: Any) -> Finish:
    import numpy as np

    if type(estimator).__name__ not in _SUMS or not _is_own(estimator):
        raise UnsupportedError(_of_kind(estimator))
    if np.asarray(estimator.coef_).ndim != 1:
        raise UnsupportedError("it predicts several targets")
    return lambda margins: margins[:, 0]


def _of_classifier(estimator: Any) -> Finish:
    name, num_classes = type(estimator).__name__, len(estimator.classes_)
    own = _is_own(estimator)
    if own and name in _LOGISTIC:
        old = getattr(estimator, "multi_class", "deprecated")
        if num_classes > 2 and (estimator.solver == "liblinear" or old == "ovr"):
            return _one_against_rest
        return _sigmoid if num_classes == 2 else _softmax
    if own and name == "SGDClassifier" and estimator.loss == "log_loss":
        return _sigmoid if num_classes == 2 else _one_against_rest
    raise UnsupportedError(_of_kind(estimator))


def _is_own(estimator: Any) -> bool:
    return type(estimator).__module__.startswith("sklearn.")


def _of_kind(estimator: Any) -> str:
    return f"it is a {type(estimator).__module__}.{type(estimator).__name__}"


def _sigmoid(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit  # type: ignore[import-untyped]

    values = margins[:, 0]
    found: NDArray[np.float64] = expit(values, out=values)
    return found


def _softmax(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.utils.extmath import softmax

    found: NDArray[np.float64] = softmax(margins, copy=False)
    return found


def _one_against_rest(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit

    expit(margins, out=margins)
    sums = margins.sum(axis=1)
    nothing = sums == 0
    margins[nothing] = 1
    sums[nothing] = margins.shape[1]
    margins /= sums[:, None]
    return margins
