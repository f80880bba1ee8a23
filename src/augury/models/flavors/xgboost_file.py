"""What an XGBoost file says about itself, read and checked without the library.

The format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html. Indices inside
the trees are checked too, because the library follows them unchecked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.errors import CorruptError, InvalidError
from augury.models import ubjson
from augury.models.signature import InputColumn

# XGBoost's names of feature types; numbers are cast to float32 by the library itself
_STORES_CATEGORIES = (3, 1)  # the first version that does, if it was trained on any
_TYPES = {"float": "double", "q": "double", "int": "int64", "i": "bool"}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a model before it is loaded.

    Attributes:
        inputs: columns if the model knows their names; a column of type `string` or integer whose
            categories the model does not store has none here.
        num_features: columns of the matrix.
        num_outputs: numbers that the model gives a row.
        objective: as XGBoost calls it.
        iterations: trees to use, as `iteration_range`; (0, 0) for all.
    """

    inputs: tuple[InputColumn, ...] | None
    num_features: int
    num_outputs: int
    objective: str
    iterations: tuple[int, int]


def describe(raw: bytes, path: Path) -> Description:
    """Reads a model file's own description.

    Raises:
        CorruptError: the bytes are no XGBoost model.
        InvalidError: it is one of a kind that Augury does not score.
    """
    document = _document(raw, path)
    try:
        learner = document["learner"]
        made_by = tuple(int(number) for number in document["version"])
        description = _description(learner, path, codes=made_by >= _STORES_CATEGORIES)
        _check_trees(learner, description, path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptError(
            f"model {path}: expected an XGBoost model in JSON or UBJSON form, found none in it "
            f"({type(error).__name__}: {error})"
        ) from error
    return description


def _document(raw: bytes, path: Path) -> Mapping[str, Any]:
    """JSON starts with `{` and a quote (or white space), UBJSON with `{` and a length."""
    try:
        if raw[:1] == b"{" and raw[1:2] in b'" \t\r\n}':
            document = json.loads(raw)
        else:
            document = ubjson.decode(raw)
    except (CorruptError, ValueError, RecursionError) as error:
        raise CorruptError(
            f"model {path} is neither XGBoost JSON nor UBJSON, or is damaged: {error}"
        ) from error
    if not isinstance(document, Mapping):
        raise CorruptError(f"model {path}: expected an XGBoost model, found {type(document)}")
    return document


def _description(learner: Mapping[str, Any], path: Path, *, codes: bool) -> Description:
    booster = learner["gradient_booster"]
    if booster["name"] not in {"gbtree", "dart"}:
        raise InvalidError(
            f"model {path}: expected a tree booster (gbtree, dart), found {booster['name']}"
        )
    parameters = learner["learner_model_param"]
    num_features = int(parameters["num_feature"])
    return Description(
        inputs=_inputs(learner, _trees_model(booster), num_features, codes=codes),
        num_features=num_features,
        num_outputs=max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1),
        objective=learner["objective"]["name"],
        iterations=_iterations(learner.get("attributes", {})),
    )


def _trees_model(booster: Mapping[str, Any]) -> Mapping[str, Any]:
    model: Mapping[str, Any] = booster.get("gbtree", booster)["model"]
    return model


def _iterations(attributes: Mapping[str, str]) -> tuple[int, int]:
    """As the interface that saved the model would: only scikit-learn's uses the best iteration."""
    if "scikit_learn" in attributes and "best_iteration" in attributes:
        return 0, int(attributes["best_iteration"]) + 1
    return 0, 0


def _inputs(
    learner: Mapping[str, Any], model: Mapping[str, Any], num_features: int, *, codes: bool
) -> tuple[InputColumn, ...] | None:
    names = list(learner.get("feature_names") or ())
    types = list(learner.get("feature_types") or ()) or ["float"] * num_features
    if not names:
        return None
    encodings = list(model.get("cats", {}).get("enc") or ()) or [None] * num_features
    if not len(names) == len(types) == len(encodings) == num_features:
        raise ValueError(f"{num_features} features, but {len(names)} names, {len(types)} types")
    return tuple(
        _column(name, kind, encoding, codes=codes)
        for name, kind, encoding in zip(names, types, encodings, strict=True)
    )


def _column(
    name: str, kind: str, encoding: Mapping[str, Any] | None, *, codes: bool
) -> InputColumn:
    """One input; `codes`: a categorical one without categories was trained on bare codes."""
    if kind != "c":
        return InputColumn(name=name, type=_TYPES[kind])
    categories = _categories(encoding) if encoding is not None else ()
    if categories and isinstance(categories[0], int):
        return InputColumn(name=name, type="int64", categories=categories)
    if not categories and codes:
        return InputColumn(name=name, type="int64")
    return InputColumn(name=name, type="string", categories=categories or None)


def _categories(encoding: Mapping[str, Any]) -> tuple[str, ...] | tuple[int, ...]:
    """Strings lie end to end with offsets; numbers lie as they are, with their type."""
    values = [int(value) for value in encoding["values"]]
    if "offsets" not in encoding:
        return tuple(values)
    offsets = [int(offset) for offset in encoding["offsets"]]
    text = bytes(value % 256 for value in values)
    return tuple(text[start:end].decode() for start, end in itertools.pairwise(offsets))


def _check_trees(learner: Mapping[str, Any], description: Description, path: Path) -> None:
    import numpy as np

    model = _trees_model(learner["gradient_booster"])
    trees = model["trees"]
    groups = np.asarray(model["tree_info"], dtype=np.int64)
    if len(groups) != len(trees) or not _within(groups, 0, description.num_outputs):
        raise CorruptError(f"model {path} is damaged: its trees belong to no output")
    for number, tree in enumerate(trees):
        left = np.asarray(tree["left_children"], dtype=np.int64)
        right = np.asarray(tree["right_children"], dtype=np.int64)
        features = np.asarray(tree["split_indices"], dtype=np.int64)
        fits = (
            0 < len(left) == len(right) == len(features) == int(tree["tree_param"]["num_nodes"])
            and _within(left, -1, len(left))
            and _within(right, -1, len(left))
            and _within(features, 0, max(description.num_features, 1))
        )
        if not fits:
            raise CorruptError(f"model {path} is damaged: tree {number} points outside itself")


def _within(values: Any, low: int, high: int) -> bool:
    """True if all are at least `low` and below `high`."""
    return bool(len(values) == 0 or (values.min() >= low and values.max() < high))
