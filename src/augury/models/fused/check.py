"""Comparing a fused pipeline with scikit-learn, on rows where it could go wrong.

The sample is made backwards: from what the last step compares with, or where its sum is moderate,
through the inverted operations to the input, and one unit in the last place beside it; from each
encoder's categories and the numbers beside them; and from extreme values. What the fused pipeline
refuses must be refused by scikit-learn, too, and the reverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import ContractError
from augury.models.columns import Columns
from augury.models.fused.features import Feature, Kind, Operation
from augury.models.fused.model import Fused, FusedForest, FusedLinear

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.port import Model

_TARGETS = (0.0, -0.0, 0.5, 1.0, -1.0, 3.0, -3.0, 10.0, -10.0)
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 1e-310, 3e38, -3e38, 1e300)
_MOST_VALUES = 4096
_ROWS = 2048
_REFUSED_COLUMNS = 12


def difference(fused: Fused, native: Model, *, seed: int = 0) -> str:
    """How predictions differ beyond what is promised; empty: they do not.

    Args:
        fused: what is checked.
        native: the model as scikit-learn predicts it.
        seed: makes other samples.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    known = [_values(fused, source, rng) for source in range(fused.num_sources)]
    moderate = _matrix([ordinary for ordinary, _ in known], rng)
    extreme = _matrix([wild for _, wild in known], rng)
    for matrix in (moderate, extreme):
        found = _compare(fused, native, matrix)
        if found:
            return found
    return _refusals(fused, native, moderate[:1])


def _matrix(values: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> NDArray[Any]:
    import numpy as np

    return np.column_stack([rng.choice(each, _ROWS) for each in values])


def _compare(fused: Fused, native: Model, matrix: NDArray[Any]) -> str:
    import numpy as np

    columns = Columns.of(matrix)
    with np.errstate(all="ignore"):
        expected, found = native.predict(matrix), fused.predict(columns)
        if (expected.shape, expected.dtype) != (found.shape, found.dtype):
            return f"expected {expected.dtype} {expected.shape}, found {found.dtype} {found.shape}"
        apart = _apart(expected, found)
        allowed = _allowed(fused, columns, found)
        wrong = ~(apart <= allowed)
    if not wrong.any():
        return ""
    first = int(np.flatnonzero(wrong.reshape(len(matrix), -1).any(axis=1))[0])
    return (
        f"{int(wrong.sum())} of {wrong.size} predictions differ from the library's; the first: "
        f"expected {expected[first]}, found {found[first]} for {tuple(matrix[first].tolist())}"
    )


def _apart(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """Distances; none where both are missing, or infinite alike."""
    import numpy as np

    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return np.where(same, 0.0, np.abs(expected - found))


def _allowed(fused: Fused, columns: Columns, found: NDArray[Any]) -> NDArray[np.float64]:
    """The sum's bound for each prediction; probabilities change at most twice as fast as sums."""
    import numpy as np

    if isinstance(fused, FusedForest):
        return np.zeros(found.shape)
    bound = fused.bound(columns)
    if fused.is_regression:
        return bound[:, 0]
    most = 2 * bound.max(axis=1) + 2.0**-46  # the functions themselves round, too
    return most if found.ndim == 1 else np.broadcast_to(most[:, None], found.shape)


# --- values ---------------------------------------------------------------------------------------


def _values(fused: Fused, source: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Values of a column that the pipeline takes: ordinary ones, and those with extreme ones."""
    import numpy as np

    if source in fused.texts:
        codes = np.arange(len(fused.texts[source]) + 1.0)
        codes = _taken(fused, _from(fused, source), np.append(codes, np.nan))
        return codes, codes
    targets = _targets(fused)
    found = [np.zeros(1)]
    found += [
        _origins(feature, target, rng)
        for feature, target in zip(fused.features, targets, strict=True)
        if feature.source == source
    ]
    mine = _from(fused, source)
    values = np.unique(np.concatenate(found))
    values = np.concatenate([values, np.full(len(values) // 12 + 1, np.nan)])
    wild = np.concatenate([values, np.repeat(_SPECIAL, len(values) // 40 + 1), [np.inf, -np.inf]])
    return _taken(fused, mine, values), _taken(fused, mine, wild)


def _from(fused: Fused, source: int) -> list[Feature]:
    return [feature for feature in fused.features if feature.source == source]


def _targets(fused: Fused) -> list[NDArray[np.float64]]:
    """For each feature, what it should come to."""
    import numpy as np

    plain = np.array(_TARGETS)
    if isinstance(fused, FusedLinear):
        return [plain] * len(fused.features)
    by_feature: list[list[Any]] = [[plain] for _ in fused.features]
    for tree in fused.forest.ensemble.trees:
        inner = tree.left >= 0
        for feature in np.unique(tree.feature[inner]):
            by_feature[feature].append(tree.threshold[inner & (tree.feature == feature)])
    found = [np.unique(np.concatenate(parts)) for parts in by_feature]
    if fused.forest.ensemble.compare == "float64":
        return found
    return [np.concatenate([each, _rounded_up_from(each)]) for each in found]


def _rounded_up_from(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The doubles from which on rounding to float32 reaches the thresholds."""
    import numpy as np

    with np.errstate(all="ignore"):
        single = thresholds.astype(np.float32)
        below = np.nextafter(single, np.float32(-np.inf)).astype(np.float64)
        return (single.astype(np.float64) + below) / 2


def _origins(
    feature: Feature, targets: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Values that give about the targets, or that an encoder knows, and their neighbours."""
    import numpy as np

    goals = targets if feature.lookup is None else feature.lookup.keys
    goals = np.concatenate([goals, goals + 0.5, rng.normal(size=64) * 3])
    with np.errstate(all="ignore"):
        for operation in reversed(feature.operations):
            goals = _inverse(operation, goals)
        near = [goals, np.nextafter(goals, np.inf), np.nextafter(goals, -np.inf)]
    values = np.concatenate(near)
    values = values[np.isfinite(values)]
    return values if len(values) <= _MOST_VALUES else rng.choice(values, _MOST_VALUES)


def _inverse(operation: Operation, goals: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the operation makes the goals of, about; where it is not one to one, constants, too."""
    import numpy as np

    a, b = operation.a, operation.b
    if operation.kind in {Kind.CLIP, Kind.REPLACE, Kind.IS_EQUAL}:
        return np.concatenate([goals, [a, b]])
    found = {
        Kind.SUBTRACT: lambda: goals + a,
        Kind.DIVIDE: lambda: goals * a,
        Kind.STANDARDIZE: lambda: goals * b + a,
        Kind.MULTIPLY: lambda: goals / a,
        Kind.ADD: lambda: goals - a,
        Kind.RESCALE: lambda: (goals - b) / a,
    }.get(operation.kind)
    return goals if found is None else found()


def _taken(fused: Fused, features: Sequence[Feature], values: NDArray[Any]) -> NDArray[np.float64]:
    """Without the values that the pipeline refuses; if it refuses all, all."""
    import numpy as np

    fine = np.ones(len(values), dtype=bool)
    for feature in features:
        made, refused = feature.of(values)
        fine &= refused == 0
        if isinstance(fused, FusedForest):
            fine &= ~_refused_by(fused, made)
    return values[fine] if fine.any() else values


def _refused_by(fused: FusedForest, made: NDArray[Any]) -> NDArray[np.bool_]:
    import numpy as np

    refuses = fused.forest.refuses
    with np.errstate(over="ignore"):
        compared = made.astype(fused.forest.ensemble.compare)
    missing, infinite = np.isnan(compared), np.isinf(compared)
    return (missing & bool(refuses & 1)) | (infinite & bool(refuses & 2))


# --- refusals -------------------------------------------------------------------------------------


def _refusals(fused: Fused, native: Model, row: NDArray[Any]) -> str:
    """Rows that differ from a good one in one value: both refuse them, or neither."""
    import numpy as np

    for source in range(min(fused.num_sources, _REFUSED_COLUMNS)):
        text = fused.texts.get(source)
        for value in (np.nan, np.inf, 0.25, 1e7) if text is None else (np.nan, len(text)):
            changed = row.copy()
            changed[0, source] = value
            theirs = _is_refused(native.predict, changed)
            ours = _is_refused(lambda rows: fused.predict(Columns.of(rows)), changed)
            if theirs != ours:
                verb = "refuses" if theirs else "takes"
                return f"the library {verb} the value {value} in column {source}, the kernel not"
    return ""


def _is_refused(predict: Any, row: NDArray[Any]) -> bool:
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            predict(row)
    except ContractError:
        return True
    return False
