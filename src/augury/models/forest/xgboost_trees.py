"""XGBoost models in JSON or UBJSON form, read without the library (importing it takes seconds).

What is exact: a float32 matrix is compared as the library does (`value < threshold` goes left),
leaves are added tree by tree in float32 to the base score, and the transforms are the library's
formulas over the same `expf`; `tests/integration/test_forest_xgboost.py` compares bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import CorruptError, UnsupportedError
from augury.models import ubjson
from augury.models.forest.ensemble import (
    CATEGORICAL,
    MAX_CATEGORIES,
    MISSING_RIGHT,
    Ensemble,
    Tree,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, Any]

_LINKS = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "binary:hinge": "step",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:aft": "exp",
    "survival:cox": "exp",
}


def read_xgboost(source: str | Path | bytes) -> tuple[Ensemble, str]:
    """The trees of a model, and the name of what follows them: `sigmoid`, `softmax`, ...

    Args:
        source: the file, or its bytes.

    Raises:
        UnsupportedError: a model of a kind that the kernel does not score.
        CorruptError: no XGBoost model.
    """
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        return _read(_decode(raw)["learner"])
    except (UnsupportedError, CorruptError):
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptError(f"not an XGBoost model: {type(error).__name__}: {error}") from error


def _decode(raw: bytes) -> Any:
    """JSON starts with `{` and a quote (or white space), UBJSON with `{` and a length."""
    import msgspec

    if raw[1:2] not in b'" \t\r\n}':
        return ubjson.decode(raw)
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)  # several times slower, but knows NaN and Infinity


def _read(learner: Mapping[str, Any]) -> tuple[Ensemble, str]:
    import numpy as np

    booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
    if booster["name"] != "gbtree":
        raise UnsupportedError(f"its booster is {booster['name']}, not gbtree")
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise UnsupportedError(f"its objective is {objective}")
    num_outputs = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    if objective == "reg:quantileerror" and num_outputs > 1:
        raise UnsupportedError("it predicts several quantiles, which XGBoost sorts")
    initial = _initial(parameters["base_score"], objective, num_outputs)
    return Ensemble(
        trees=_trees(learner, booster["model"]),
        num_features=int(parameters["num_feature"]),
        num_outputs=num_outputs,
        compare="float32",
        accumulate="float32",
        initial=initial.astype(np.float64),
    ), _LINKS[objective]


def _trees(learner: Mapping[str, Any], model: Mapping[str, Any]) -> list[Tree]:
    """Those that predict; trees that DART scaled, as float32 times float32 like the library."""
    import numpy as np

    outputs = [int(output) for output in model["tree_info"]]
    scales = np.ones(len(outputs), dtype=np.float32)
    if len(model.get("weight_drop", ())):
        scales = np.asarray(model["weight_drop"], dtype=np.float32)
    if not len(model["trees"]) == len(outputs) == len(scales):
        raise CorruptError(f"{len(model['trees'])} trees, but {len(outputs)} outputs")
    wanted = slice(_num_trees(learner, model))
    return [
        _tree(arrays, output, scale)
        for arrays, output, scale in zip(
            model["trees"][wanted], outputs[wanted], scales[wanted], strict=True
        )
    ]


def _num_trees(learner: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    """A model saved by the scikit-learn interface predicts up to its best iteration."""
    attributes = learner.get("attributes", {})
    if "scikit_learn" not in attributes or "best_iteration" not in attributes:
        return len(model["trees"])
    rounds = int(attributes["best_iteration"]) + 1
    if "iteration_indptr" not in model:
        raise UnsupportedError("it stopped early and does not say which trees to use")
    return int(model["iteration_indptr"][rounds])


def _initial(base_score: Any, objective: str, num_outputs: int) -> NDArray[np.float32]:
    """Base scores as margins; the file has them as predictions."""
    import numpy as np

    from augury.models.forest.native import library

    text = str(base_score).strip("[]")
    scores = [float(np.float32(part)) for part in text.split(",")]
    link = _LINKS[objective]
    if link == "sigmoid":
        scores = [library().forest_logit(score) for score in scores]
    elif link == "exp":
        scores = [library().forest_log(score) for score in scores]
    if len(scores) not in {1, num_outputs}:
        raise CorruptError(f"{len(scores)} base scores for {num_outputs} outputs")
    return np.broadcast_to(np.array(scores, dtype=np.float32), num_outputs)


def _tree(arrays: Arrays, output: int, scale: np.float32) -> Tree:
    import numpy as np

    if int(arrays["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise UnsupportedError("its leaves hold several outputs")
    left = np.asarray(arrays["left_children"], dtype=np.int32)
    default_left = np.asarray(arrays["default_left"], dtype=np.uint8)
    flags = np.where(default_left != 0, 0, MISSING_RIGHT).astype(np.uint8)
    condition = np.asarray(arrays["split_conditions"], dtype=np.float32)
    categorical = np.asarray(arrays.get("split_type", ()), dtype=np.uint8) != 0
    categories = None
    if categorical.any():
        flags[categorical] |= CATEGORICAL
        categories = _categories(arrays)
    return Tree(
        left=left,
        right=np.asarray(arrays["right_children"], dtype=np.int32),
        feature=np.asarray(arrays["split_indices"], dtype=np.int32),
        threshold=condition.astype(np.float64),
        flags=flags,
        value=(condition * scale).astype(np.float64)[:, None],
        output=output,
        weight=np.asarray(arrays["sum_hessian"], dtype=np.float64),
        categories=categories,
    )


def _categories(arrays: Arrays) -> dict[int, Sequence[int]]:
    """Bits of the categories going right, by node."""
    chosen = [int(category) for category in arrays["categories"]]
    if max(chosen, default=0) >= MAX_CATEGORIES:
        raise UnsupportedError(f"a split names category {max(chosen)}, not below {MAX_CATEGORIES}")
    sets: dict[int, Sequence[int]] = {}
    for node, first, size in zip(
        arrays["categories_nodes"],
        arrays["categories_segments"],
        arrays["categories_sizes"],
        strict=True,
    ):
        words = [0] * 8
        for category in chosen[int(first) : int(first) + int(size)]:
            words[category // 32] |= 1 << (category % 32)
        sets[int(node)] = words
    return sets
