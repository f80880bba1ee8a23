"""Fused pipelines as models: what they compute, and how far from scikit-learn."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, Fault, UnsupportedError
from augury.models.columns import Columns
from augury.models.forest import FOREST, Forest, from_sklearn
from augury.models.fused.features import INFINITE, NAN, UNKNOWN, Feature, Kind, Operation
from augury.models.fused.finals import Linear, read_linear
from augury.models.fused.native import INSTRUCTIONS, library
from augury.models.fused.program import columns_of, magnitudes, sums
from augury.models.fused.steps import Steps, Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: moves when the bits of a prediction could: plans pin it
VERSION = 1
#: what a linear model that it scores says as its `backend`
LINEAR = f"augury linear {VERSION}"
_ROUNDING = 2.0**-53
_SMALLEST = 2.0**-1074
# features of a pipeline before trees are made for so many rows at a time
_FOREST_ROWS = 4096


class FusedLinear:
    """A pipeline whose last step is a weighted sum.

    Attributes:
        features: after all steps but the last.
        num_sources: columns of the input.
        is_regression: the margin is the prediction.
        texts: categories of the text columns, by column of the input.
    """

    backend = LINEAR

    def __init__(
        self,
        features: Sequence[Feature],
        linear: Linear,
        *,
        num_sources: int,
        texts: Texts | None = None,
        instructions: str = INSTRUCTIONS[-1],
    ) -> None:
        self.texts = texts or {}
        check = Operation(Kind.REFUSE, NAN | INFINITE)
        self.features = [feature.then(check) for feature in features]
        self.num_sources = num_sources
        self.is_regression = linear.is_regression
        self._finish = linear.finish
        self._instructions = instructions
        terms = (self.features, linear.weights, linear.offset)
        self._sums = sums(*terms, num_sources=num_sources)
        self._magnitudes = magnitudes(*terms, num_sources=num_sources)

    @property
    def factor(self) -> float:
        """What `bound` multiplies the magnitudes with."""
        roundings = (len(self.features) + 1) * _ROUNDING
        return 2 * roundings / (1 - roundings)

    def margins(self, columns: Columns) -> NDArray[np.float64]:
        """`(num_rows, num_outputs)`; see `bound` for how far they are from scikit-learn's.

        Raises:
            ContractError: a value that the pipeline refuses; names the columns by number.
        """
        margins, refused = self._sums.margins(columns, instructions=self._instructions)
        _check(refused)
        return margins

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """Predictions as `Model.predict` returns them.

        Raises:
            ContractError: as `margins`.
        """
        import numpy as np

        margins = self.margins(columns)
        with np.errstate(all="ignore"):  # extreme values overflow, as they do in scikit-learn
            return self._finish(margins)

    def bound(self, columns: Columns) -> NDArray[np.float64]:
        """How far each margin may lie from scikit-learn's: see the package's docstring."""
        magnitudes, _ = self._magnitudes.margins(columns, instructions=self._instructions)
        # what underflows is rounded to a multiple of the smallest number, not relatively
        found: NDArray[np.float64] = self.factor * magnitudes
        return found + 4 * len(self.features) * _SMALLEST


class FusedForest:
    """A pipeline whose last step is a tree ensemble; equal to scikit-learn in every bit."""

    backend = FOREST

    def __init__(
        self,
        features: Sequence[Feature],
        forest: Forest,
        *,
        num_sources: int,
        texts: Texts | None = None,
        instructions: str = INSTRUCTIONS[-1],
    ) -> None:
        self.texts = texts or {}
        self.features = list(features)
        self.forest = forest
        self.num_sources = num_sources
        self._instructions = instructions
        self._program = columns_of(self.features, num_sources=num_sources)

    def predict(self, columns: Columns) -> NDArray[np.floating[Any]]:
        """Predictions as `Model.predict` returns them.

        Raises:
            ContractError: a value that the pipeline refuses; names the columns by number.
        """
        import numpy as np

        starts = range(0, max(len(columns), 1), _FOREST_ROWS)
        parts = [self._part(columns.rows(start, start + _FOREST_ROWS)) for start in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, columns: Columns) -> NDArray[np.floating[Any]]:
        matrix, refused = self._program.features(columns, instructions=self._instructions)
        _check(refused)
        try:
            return self.forest.predict(matrix)
        except ContractError as error:
            raise _at_sources(error, self.features) from error


Fused = FusedLinear | FusedForest


def fuse(
    estimator: Any, *, texts: Texts | None = None, instructions: str = INSTRUCTIONS[-1]
) -> Fused:
    """A fitted pipeline or linear estimator, fused.

    Args:
        estimator: fitted.
        texts: categories of the text columns, by number of the input's column.
        instructions: use no better instruction set than this one.

    Raises:
        UnsupportedError: the kernel is not there, or a step cannot be fused, and why.
    """
    library()
    features, final = features_of(estimator, Steps(texts))
    num_sources = int(estimator.n_features_in_)
    if _is_trees(final):
        forest = from_sklearn(final, encoded=True)
        if forest.num_features != len(features):
            raise UnsupportedError("its trees do not fit its steps")
        return FusedForest(
            features, forest, num_sources=num_sources, texts=texts, instructions=instructions
        )
    try:
        linear = read_linear(final)
    except (AttributeError, TypeError, IndexError) as error:
        raise UnsupportedError(f"its last step is not as this version knows it: {error}") from error
    if len(linear.weights) != len(features):
        raise UnsupportedError("its weights do not fit its steps")
    return FusedLinear(
        features, linear, num_sources=num_sources, texts=texts, instructions=instructions
    )


def known_texts(estimator: Any) -> Steps:
    """What a pipeline's encoders know of text; see the attributes of `Steps`."""
    steps = Steps(lenient=True)
    with contextlib.suppress(UnsupportedError):
        features_of(estimator, steps)
    return steps


def known_values(estimator: Any, texts: Texts | None = None) -> dict[int, list[float]]:
    """Numbers, or codes of text, that a pipeline's encoders know, by column of the input.

    Raises:
        UnsupportedError: a step cannot be read.
    """
    features, _ = features_of(estimator, Steps(texts))
    return {
        feature.source: feature.lookup.keys.tolist()
        for feature in features
        if feature.lookup is not None and not feature.operations[1:]
    }


def features_of(estimator: Any, steps: Steps) -> tuple[list[Feature], Any]:
    """The features before an estimator's last step (or before its trees), and that step.

    Raises:
        UnsupportedError: a step cannot be read.
    """
    sparse = False
    try:
        features = [Feature(source=number) for number in range(int(estimator.n_features_in_))]
        while type(estimator).__name__ == "Pipeline":
            for _, step in estimator.steps[:-1]:
                features, sparse = steps.apply(step, features, sparse=sparse)
            estimator = estimator.steps[-1][1]
        own = getattr(estimator, "_preprocessor", None)  # of HistGradientBoosting
        features, _ = steps.apply(own, features, sparse=sparse)
    except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise UnsupportedError(f"a step is not as this version knows it: {error}") from error
    return features, estimator


def _is_trees(estimator: Any) -> bool:
    from augury.models.forest.sklearn_trees import NAMES

    return type(estimator).__name__ in NAMES


def _check(refused: NDArray[np.uint8]) -> None:
    import numpy as np

    faults = [
        Fault(path=f"column {column}", message=_why(int(refused[column])))
        for column in np.flatnonzero(refused)
    ]
    if faults:
        raise ContractError("the model refuses the rows", faults)


def _why(refused: int) -> str:
    if refused & UNKNOWN:
        return "has values that its encoder does not know"
    return "has missing or infinite values"


def _at_sources(error: ContractError, features: Sequence[Feature]) -> ContractError:
    """What trees refuse of a feature, told of the column that it was made from."""
    faults = []
    for fault in error.faults:
        number = int(fault.path.removeprefix("column "))
        faults.append(Fault(path=f"column {features[number].source}", message=fault.message))
    return ContractError("the model refuses the rows", faults) if faults else error
