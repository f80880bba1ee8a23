"""LightGBM's text model files, read and checked without the library.

The library follows what stands in a file unchecked: a wrong child or feature, or sizes that do not
fit, end the process. So every index is checked here before anything, the library included, gets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from augury.errors import CorruptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MISSING_TYPES = 3
_LINE = re.compile(
    r"(Tree|[a-z_]+)=([-+.0-9a-z]+( [-+.0-9a-z]+)*)?|leaf_(features|coeff)=[-+.0-9a-z ]*"
)
_KNOWN = frozenset(
    {"Tree", "num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type",
     "left_child", "right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value",
     "internal_weight", "internal_count", "cat_boundaries", "cat_threshold", "is_linear",
     "leaf_const", "num_features", "leaf_features", "leaf_coeff", "shrinkage"}
)  # fmt: skip
_MOST_FEATURES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class TreeText:
    """One tree as the file has it: children >= 0 are inner nodes, others ~leaf.

    Attributes:
        decision_type: 1: categorical, 2: missing values go left, and 4 times the missing type.
        threshold: goes left if `value <= threshold`; categorical: number of the set.
        cat_boundaries: sets of categories in `cat_threshold`, 32 bits a word.
        internal_count: rows of the training data, if known.
        leaf_count: the same.
        is_linear: its leaves hold models.
    """

    split_feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    decision_type: NDArray[np.int64]
    left_child: NDArray[np.int64]
    right_child: NDArray[np.int64]
    leaf_value: NDArray[np.float64]
    cat_boundaries: NDArray[np.int64]
    cat_threshold: NDArray[np.int64]
    internal_count: NDArray[np.float64] | None
    leaf_count: NDArray[np.float64] | None
    is_linear: bool


@dataclass(frozen=True, kw_only=True)
class LightGBMFile:
    """A model file.

    Attributes:
        header: the lines before the trees.
        trees: in the order of the file.
        parameters: as it was trained with, by name.
        pandas_categories: of the data frame's categorical columns, in order; none if unknown.
    """

    header: Mapping[str, str]
    trees: tuple[TreeText, ...]
    parameters: Mapping[str, str]
    pandas_categories: tuple[tuple[Any, ...], ...]

    @property
    def num_features(self) -> int:
        """Columns of the matrix."""
        return int(self.header["max_feature_idx"]) + 1

    @property
    def num_outputs(self) -> int:
        """Trees of an iteration."""
        return int(self.header["num_tree_per_iteration"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self.header["feature_names"].split(" "))

    @property
    def objective(self) -> str:
        """As LightGBM calls it; empty for one of the user's own."""
        return self._objective[0] if self._objective[:1] != ["custom"] else ""

    @property
    def is_squared(self) -> bool:
        """Trained on square roots."""
        return "sqrt" in self._objective[1:]

    @property
    def sigmoid(self) -> float:
        """What the margin is multiplied with before the sigmoid."""
        for part in self._objective[1:]:
            if part.startswith("sigmoid:"):
                return float(part.removeprefix("sigmoid:"))
        return 1.0

    @property
    def averages(self) -> bool:
        """The prediction is the trees' mean (`boosting: rf`)."""
        return "average_output" in self.header

    @cached_property
    def _objective(self) -> list[str]:
        return self.header.get("objective", "").split(" ")

    @property
    def categorical(self) -> tuple[int, ...]:
        """Features that some tree splits by categories, or that were declared so."""
        declared = self.parameters.get("categorical_feature", "").replace(" ", "")
        found = {int(part) for part in declared.split(",") if part.isdigit()}
        for tree in self.trees:
            found.update(tree.split_feature[tree.decision_type & 1 != 0].tolist())
        return tuple(sorted(found))


def read_file(raw: bytes) -> LightGBMFile:
    """Reads and checks a model file.

    Raises:
        CorruptError: it is none, or is damaged.
    """
    try:
        text = raw.decode()
        head, sections, tail = _split(text)
        model = LightGBMFile(
            header=_pairs(head),
            trees=tuple(_tree(_tree_pairs(section)) for section in sections),
            parameters=_parameters(tail),
            pandas_categories=_pandas_categories(tail),
        )
        _check(model, [len(section.encode()) for section in sections])
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise CorruptError(
            f"not a LightGBM text model, or damaged: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    return model


# --- the text -------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str, list[str], str]:
    """What stands before the trees, each tree, and what stands behind them.

    Sections keep the length that the header says of them (`tree_sizes`): the library jumps by it.
    """
    if not text.startswith("tree\n"):
        raise ValueError("expected the first line 'tree'")
    if not text.endswith("\n") or "\nend of parameters\n" not in text:
        raise ValueError("it is cut off")
    trees, found, tail = text.partition("\nend of trees\n")
    if not found:
        raise ValueError("expected the line 'end of trees'")
    head, *sections = trees.split("\nTree=")
    return head, [f"Tree={section}\n" for section in sections], tail


def _pairs(section: str) -> dict[str, str]:
    """Lines such as `name=value`; a line without a value stands for itself."""
    pairs = [line.partition("=") for line in section.splitlines() if line]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _tree_pairs(section: str) -> dict[str, str]:
    """A tree's lines, exactly as the library writes them: it ends the process over others."""
    pairs: dict[str, str] = {}
    for line in section.rstrip("\n").split("\n"):
        name, _, value = line.partition("=")
        if not _LINE.fullmatch(line) or name not in _KNOWN or name in pairs:
            raise ValueError(f"a tree's line that is none: {line[:40]!r}")
        pairs[name] = value
    return pairs


def _parameters(tail: str) -> dict[str, str]:
    """Lines such as `[name: value]`."""
    lines = tail.partition("\nparameters:\n")[2].partition("\nend of parameters\n")[0]
    pairs = [line.strip("[]").partition(": ") for line in lines.splitlines()]
    return {name: value for name, _, value in pairs}


def _pandas_categories(tail: str) -> tuple[tuple[Any, ...], ...]:
    last = tail.rstrip("\n").rpartition("\n")[2]
    if not last.startswith("pandas_categorical:"):
        return ()
    found = json.loads(last.removeprefix("pandas_categorical:"))
    return tuple(tuple(categories) for categories in found or ())


# --- trees ----------------------------------------------------------------------------------------


def _tree(pairs: Mapping[str, str]) -> TreeText:
    num_leaves = int(pairs["num_leaves"])
    if num_leaves < 1:
        raise ValueError(f"a tree of {num_leaves} leaves")
    inner = num_leaves - 1
    num_sets = int(pairs.get("num_cat", "0"))
    boundaries = _integers(pairs, "cat_boundaries", num_sets + 1 if num_sets else 0)
    num_words = int(boundaries[-1]) if num_sets else 0
    _check_rest(pairs, num_leaves)
    tree = TreeText(
        split_feature=_integers(pairs, "split_feature", inner),
        threshold=_reals(pairs, "threshold", inner),
        decision_type=_integers(pairs, "decision_type", inner),
        left_child=_integers(pairs, "left_child", inner),
        right_child=_integers(pairs, "right_child", inner),
        leaf_value=_reals(pairs, "leaf_value", num_leaves),
        cat_boundaries=boundaries,
        cat_threshold=_integers(pairs, "cat_threshold", num_words),
        internal_count=_counts(pairs, "internal_count", inner),
        leaf_count=_counts(pairs, "leaf_count", num_leaves),
        is_linear=pairs.get("is_linear", "0") != "0",
    )
    _check_shape(tree)
    _check_sets(tree)
    return tree


def _integers(pairs: Mapping[str, str], name: str, size: int) -> NDArray[np.int64]:
    import numpy as np

    words = pairs[name].split() if size else []
    if len(words) != size:
        raise ValueError(f"{len(words)} values of {name}, expected {size}")
    return np.array([int(word) for word in words], dtype=np.int64)


def _reals(pairs: Mapping[str, str], name: str, size: int) -> NDArray[np.float64]:
    import numpy as np

    words = pairs[name].split() if size else []
    if len(words) != size:
        raise ValueError(f"{len(words)} values of {name}, expected {size}")
    return np.array([float(word) for word in words], dtype=np.float64)


def _counts(pairs: Mapping[str, str], name: str, size: int) -> NDArray[np.float64] | None:
    return _reals(pairs, name, size) if name in pairs else None


def _check_rest(pairs: Mapping[str, str], num_leaves: int) -> None:
    """What only the library reads: it ends the process over a line of another length."""
    for name in ("leaf_weight", "leaf_count"):
        _counts(pairs, name, num_leaves)
    for name in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        _counts(pairs, name, num_leaves - 1)
    float(pairs.get("shrinkage", "1"))


def _check_shape(tree: TreeText) -> None:
    """Every node and leaf but the root has one parent, which comes before it."""
    import numpy as np

    inner = len(tree.split_feature)
    children = np.concatenate([tree.left_child, tree.right_child])
    parents = np.tile(np.arange(inner), 2)
    expected = np.concatenate([np.arange(1, inner), ~np.arange(len(tree.leaf_value))])
    if inner and not np.array_equal(np.sort(children), np.sort(expected)):
        raise ValueError("a tree's children are not each its own once")
    if (parents >= children)[children >= 0].any():
        raise ValueError("a tree's child comes before its parent")
    if not ((tree.decision_type >= 0) & (tree.decision_type >> 2 < _MISSING_TYPES)).all():
        raise ValueError("a split of an unknown type")


def _check_sets(tree: TreeText) -> None:
    import numpy as np

    bounds = tree.cat_boundaries
    if len(bounds) and (bounds[0] != 0 or (np.diff(bounds) < 0).any()):
        raise ValueError("sets of categories that do not follow each other")
    if not ((tree.cat_threshold >= 0) & (tree.cat_threshold < 2**32)).all():
        raise ValueError("a set of categories that is none")
    places = tree.threshold[tree.decision_type & 1 != 0]
    if not ((places >= 0) & (places < max(len(bounds) - 1, 0)) & (places % 1 == 0)).all():
        raise ValueError("a split by a set of categories that is not there")


def _check(model: LightGBMFile, lengths: list[int]) -> None:
    """What the header says must be what there is."""
    if not 0 < model.num_features < _MOST_FEATURES:
        raise ValueError(f"{model.num_features} features")
    infos = model.header["feature_infos"].split(" ")
    if not len(model.names) == len(infos) == model.num_features:
        raise ValueError(f"{model.num_features} features, but {len(model.names)} names")
    if model.num_outputs < 1 or len(model.trees) % model.num_outputs:
        raise ValueError(f"{len(model.trees)} trees, {model.num_outputs} an iteration")
    if int(model.header["num_class"]) < 1 or int(model.header["label_index"]) < 0:
        raise ValueError("a number that is none")
    said = [int(word) for word in model.header.get("tree_sizes", "").split()]
    if said and said != lengths:
        raise ValueError("trees of other sizes than the header says")
    for number, tree in enumerate(model.trees):
        features = tree.split_feature
        if len(features) and not (features.min() >= 0 and features.max() < model.num_features):
            raise ValueError(f"tree {number} splits at a feature that is not there")
