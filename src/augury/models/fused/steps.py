"""scikit-learn's transformers, read as operations on single columns.

Encoders are not read but asked: the table of what each category becomes is what the encoder itself
makes of it, so dropped, infrequent and unknown categories are right by construction.

Text arrives as the indices of a column's categories (see `models.signature`): the number of
categories itself stands for unknown text, NaN for missing text.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import UnsupportedError
from augury.models.fused.features import (
    INFINITE,
    NAN,
    UNKNOWN,
    Feature,
    Kind,
    Lookup,
    Operation,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Texts = dict[int, tuple[str, ...]]

#: stands for text that is no category
UNKNOWN_TEXT = "\x00 unknown to Augury's encoder"
_REFUSE_INFINITE = Operation(Kind.REFUSE, INFINITE)
_REFUSE_ALL = Operation(Kind.REFUSE, NAN | INFINITE)


class Steps:
    """Follows the columns of an input through transformers.

    Args:
        texts: categories of the text columns, by column of the input.
        lenient: columns are lost in a step that is not known, instead of an error.

    Attributes:
        seen: text that encoders know, by column of the input; filled while columns are followed.
        encoders: those of them that take text, by identity.
        missing: how encoders know missing text, by column: None or NaN.
    """

    def __init__(self, texts: Texts | None = None, *, lenient: bool = False) -> None:
        self._texts = texts or {}
        self._lenient = lenient
        self.seen: dict[int, dict[str, None]] = {}
        self.encoders: set[int] = set()
        self.missing: dict[int, Any] = {}

    def apply(self, transformer: Any, features: Sequence[Feature], *, sparse: bool) -> Columns:
        """What a fitted transformer gives for columns.

        Args:
            transformer: fitted.
            features: its input.
            sparse: True if the library hands it over as a sparse matrix.

        Raises:
            UnsupportedError: it is not elementwise, or is not known to be.
        """
        if transformer is None or transformer == "passthrough":
            return list(features), sparse
        name = type(transformer).__name__
        reader = _READERS.get(name)
        try:
            if reader is None or not type(transformer).__module__.startswith("sklearn."):
                raise UnsupportedError(f"its {name} is no step that is fused")
            return reader(self, transformer, features, sparse)
        except UnsupportedError:
            if self._lenient:
                return [], sparse
            raise

    # --- containers

    def pipeline(self, pipeline: Any, features: Sequence[Feature], sparse: bool) -> Columns:
        """One step after the other."""
        current: Columns = (list(features), sparse)
        for _, step in pipeline.steps:
            current = self.apply(step, current[0], sparse=current[1])
        return current

    def columns(self, transformer: Any, features: Sequence[Feature], sparse: bool) -> Columns:
        """Each part of a ColumnTransformer on its columns, side by side."""
        result: list[Feature] = []
        weights = transformer.transformer_weights or {}
        for name, step, _ in transformer.transformers_:
            chosen = list(transformer._transformer_to_input_indices[name])
            if step == "drop" or not chosen:
                continue
            parts, _ = self.apply(step, [features[index] for index in chosen], sparse=sparse)
            result.extend(_weighted(parts, weights.get(name)))
        return result, bool(transformer.sparse_output_)

    def union(self, union: Any, features: Sequence[Feature], sparse: bool) -> Columns:
        """Each part of a FeatureUnion on all columns, side by side."""
        result: list[Feature] = []
        any_sparse = False
        weights = union.transformer_weights or {}
        for name, step in union.transformer_list:
            if step == "drop":
                continue
            parts, part_sparse = self.apply(step, features, sparse=sparse)
            any_sparse = any_sparse or part_sparse
            result.extend(_weighted(parts, weights.get(name)))
        return result, any_sparse

    # --- imputers

    def impute(self, imputer: Any, features: Sequence[Feature], sparse: bool) -> Columns:
        """Missing values filled, columns without a value dropped, indicators appended."""
        import numpy as np

        if sparse:
            raise UnsupportedError("its SimpleImputer takes a sparse matrix")
        if imputer._fit_dtype.kind == "O":
            return self._impute_text(imputer, features), sparse
        missing = float(imputer.missing_values)
        fills = np.asarray(imputer.statistics_).astype(imputer._fill_dtype).astype(np.float64)
        check = _REFUSE_INFINITE if np.isnan(missing) else _REFUSE_ALL
        checked = [feature.then(check) for feature in features]
        result = [
            feature.then(_fill(missing, fill))
            for feature, fill in zip(checked, fills, strict=True)
            if imputer.keep_empty_features or not np.isnan(fill)
        ]
        return [*result, *_indicators(imputer, checked, missing)], sparse

    def _impute_text(self, imputer: Any, features: Sequence[Feature]) -> list[Feature]:
        if imputer.add_indicator or not all(map(_is_plain, features)):
            raise UnsupportedError("its SimpleImputer marks missing text")
        result = []
        for feature, fill in zip(features, imputer.statistics_, strict=True):
            known = self._texts.get(feature.source, ())
            code = known.index(fill) if fill in known else len(known)
            result.append(feature.then(Operation(Kind.FILL, code)))
        return result

    # --- encoders

    def encode(self, encoder: Any, features: Sequence[Feature], sparse: bool) -> Columns:
        """One column, or one for each category, for each column."""
        import numpy as np

        if len(encoder.categories_) != len(features):
            raise UnsupportedError(f"its {type(encoder).__name__} is for other columns")
        result: list[Feature] = []
        for number, feature in enumerate(features):
            text = is_text(encoder.categories_[number])
            keys, values = (
                self._keys(encoder, number, feature) if text else _numbers(encoder, number)
            )
            table, flags = _asked(encoder, number, values)
            checked = feature if text else feature.then(_REFUSE_INFINITE)
            result.extend(
                checked.looked_up(
                    Lookup(keys=keys, values=np.ascontiguousarray(output), flags=flags)
                )
                for output in table.T
            )
        return result, bool(getattr(encoder, "sparse_output", False))

    def _keys(self, encoder: Any, number: int, feature: Feature) -> Candidates:
        """Codes of a text column's categories, and the text that they stand for."""
        import numpy as np

        if not _is_plain(feature):
            raise UnsupportedError(f"its {type(encoder).__name__} takes text that was changed")
        known, missing = _words(encoder, number)
        self.seen.setdefault(feature.source, {}).update(dict.fromkeys(known))
        self.encoders.add(id(encoder))
        self.missing.setdefault(feature.source, missing)
        texts = self._texts.get(feature.source, known)
        return np.arange(len(texts), dtype=np.float64), [*texts, UNKNOWN_TEXT, missing]


Columns = tuple[list[Feature], bool]
Candidates = tuple["NDArray[np.float64]", list[Any]]


def is_text(categories: Any) -> bool:
    """True if an encoder's categories of a column are text."""
    return categories.dtype.kind in "OUST"


def _words(encoder: Any, number: int) -> tuple[tuple[str, ...], Any]:
    """An encoder's categories of a text column, and what stands for missing text."""
    categories = list(encoder.categories_[number])
    known = tuple(str(value) for value in categories if isinstance(value, str))
    others = [value for value in categories if not isinstance(value, str)]
    if any(value is not None and value == value for value in others):  # noqa: PLR0124 - NaN
        raise UnsupportedError(f"its {type(encoder).__name__} knows other values than text")
    return known, others[0] if others else float("nan")


def _is_plain(feature: Feature) -> bool:
    """True if a text column is still text, maybe filled."""
    filled = all(operation.kind is Kind.FILL for operation in feature.operations)
    return filled and feature.lookup is None


def _weighted(features: Sequence[Feature], weight: float | None) -> Iterator[Feature]:
    for feature in features:
        yield feature if weight is None else feature.then(Operation(Kind.MULTIPLY, weight))


# --- scalers: each on one column, from its fitted attributes


def _standard(_: Steps, scaler: Any, features: Sequence[Feature], sparse: bool) -> Columns:
    mean = scaler.mean_ if scaler.with_mean else None
    return _scaled(features, mean, scaler.scale_ if scaler.with_std else None, sparse), sparse


def _robust(_: Steps, scaler: Any, features: Sequence[Feature], sparse: bool) -> Columns:
    centre = scaler.center_ if scaler.with_centering else None
    return _scaled(features, centre, scaler.scale_ if scaler.with_scaling else None, sparse), sparse


def _max_abs(_: Steps, scaler: Any, features: Sequence[Feature], sparse: bool) -> Columns:
    scaled = _scaled(features, None, scaler.scale_, sparse)
    if getattr(scaler, "clip", False):
        scaled = [feature.then(Operation(Kind.CLIP, -1.0, 1.0)) for feature in scaled]
    return scaled, sparse


def _scaled(
    features: Sequence[Feature], centre: Any | None, scale: Any | None, sparse: bool
) -> list[Feature]:
    """Centred, then divided; the library multiplies a sparse matrix by the reciprocal."""
    result = []
    for number, feature in enumerate(features):
        steps = [_REFUSE_INFINITE]
        if centre is not None:
            steps.append(Operation(Kind.SUBTRACT, float(centre[number])))
        if scale is not None and sparse:
            steps.append(Operation(Kind.MULTIPLY, float(1.0 / scale[number])))
        elif scale is not None:
            steps.append(Operation(Kind.DIVIDE, float(scale[number])))
        result.append(feature.then(*steps))
    return result


def _min_max(_: Steps, scaler: Any, features: Sequence[Feature], sparse: bool) -> Columns:
    result = []
    for feature, scale, least in zip(features, scaler.scale_, scaler.min_, strict=True):
        steps = [Operation(Kind.MULTIPLY, float(scale)), Operation(Kind.ADD, float(least))]
        if scaler.clip:
            low, high = scaler.feature_range
            steps.append(Operation(Kind.CLIP, float(low), float(high)))
        result.append(feature.then(_REFUSE_INFINITE, *steps))
    return result, sparse


def _identity(_: Steps, transformer: Any, features: Sequence[Feature], sparse: bool) -> Columns:
    if transformer.validate or not _changes_nothing(transformer.func):
        raise UnsupportedError("its FunctionTransformer calls a function")
    return list(features), sparse


def _changes_nothing(function: Any) -> bool:
    """None, or the check of any number that HistGradientBoosting puts before its trees."""
    from sklearn.utils import check_array

    if getattr(function, "func", None) is not check_array:
        return function is None
    return function.keywords.get("ensure_all_finite") is False


# --- imputers


def _fill(missing: float, fill: float) -> Operation:
    if math.isnan(missing):
        return Operation(Kind.FILL, float(fill))
    return Operation(Kind.REPLACE, missing, float(fill))


def _indicators(imputer: Any, features: Sequence[Feature], missing: float) -> Iterator[Feature]:
    if not imputer.add_indicator:
        return
    known = not math.isnan(missing)
    mark = Operation(Kind.IS_EQUAL, missing) if known else Operation(Kind.IS_MISSING)
    for column in imputer.indicator_.features_:
        yield features[column].then(mark)


# --- encoders


def _numbers(encoder: Any, number: int) -> Candidates:
    """An encoder's numeric categories of a column in order; with an unknown and a missing one."""
    import numpy as np

    categories = np.asarray(encoder.categories_[number], dtype=np.float64)
    keys = np.unique(categories[~np.isnan(categories)])
    unknown = float(keys[-1]) + 1.5 if len(keys) else 0.5
    if len(keys) and unknown == keys[-1]:
        raise UnsupportedError(f"its {type(encoder).__name__} knows the number {unknown}")
    return keys, [*keys.tolist(), unknown, float("nan")]


def _asked(
    encoder: Any, number: int, values: Sequence[Any]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """What an encoder makes of values of one column, and which of them it refuses.

    Returns:
        `(len(values), outputs of the column)`, and `(len(values),)`: what is refused.
    """
    import numpy as np

    place = _outputs(encoder, number)
    table = np.zeros((len(values), place.stop - place.start))
    flags = np.zeros(len(values), dtype=np.uint8)
    table[:-2] = _made(encoder, number, values[:-2])[:, place]
    for index in (-2, -1):  # unknown, missing: maybe refused
        try:
            table[index] = _made(encoder, number, [values[index]])[0, place]
        except ValueError:
            flags[index] = UNKNOWN
    return table, flags


def _made(encoder: Any, number: int, values: Sequence[Any]) -> NDArray[np.float64]:
    """What an encoder makes of rows that hold the values in one column, and any in the others."""
    import numpy as np

    text = any(is_text(categories) for categories in encoder.categories_)
    row = [categories[0] for categories in encoder.categories_]
    rows = np.array([row] * len(values), dtype=object if text else np.float64)
    if not len(rows):
        return np.zeros((0, _outputs(encoder, len(row) - 1).stop))
    rows[:, number] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about feature names, and about unknown categories
        found = encoder.transform(rows)
    found = found.toarray() if hasattr(found, "toarray") else found
    return np.asarray(found, dtype=np.float64)


def _outputs(encoder: Any, number: int) -> slice:
    """The columns that an encoder makes of its column `number`."""
    counts = getattr(encoder, "_n_features_outs", [1] * len(encoder.categories_))
    first = sum(counts[:number])
    return slice(first, first + counts[number])


_READERS: dict[str, Callable[[Steps, Any, Sequence[Feature], bool], Columns]] = {
    "Pipeline": Steps.pipeline,
    "ColumnTransformer": Steps.columns,
    "FeatureUnion": Steps.union,
    "SimpleImputer": Steps.impute,
    "OneHotEncoder": Steps.encode,
    "OrdinalEncoder": Steps.encode,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "FunctionTransformer": _identity,
}
