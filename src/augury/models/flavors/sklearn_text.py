"""Text in scikit-learn pipelines: which columns hold it, and how it is given back to them.

A pipeline's encoders know the text that they were fitted on; those categories go into the
signature, the columns arrive as their indices, and whoever calls scikit-learn itself turns them
into text again. Text that is no category is told apart from missing text (`unknown: other`),
because encoders and imputers treat the two differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import Fault, InvalidError
from augury.models.signature import InputColumn, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augury.models.fused.steps import Texts


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and every estimator inside it."""
    from sklearn.base import BaseEstimator

    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list | tuple):
            waiting.extend(found)
        elif isinstance(found, Mapping):
            waiting.extend(found.values())
        elif isinstance(found, BaseEstimator) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting.extend(vars(found).values())


def learned_texts(estimator: Any, path: Path) -> Texts:
    """The text that the encoders know, by column of the input.

    Raises:
        InvalidError: an encoder takes text of which the input's column cannot be told.
    """
    from augury.models.fused import known_texts

    encoders = [part for part in parts(estimator) if _takes_text(part)]
    if not encoders:
        return {}
    found = known_texts(estimator)
    for encoder in encoders:
        if id(encoder) not in found.encoders:
            raise InvalidError(
                f"model {path}: its {type(encoder).__name__} takes text, and what it takes is not "
                "plainly a column of the input; encode text as the first step of its column, or "
                "use XGBoost, which stores categories"
            )
    return {column: tuple(words) for column, words in found.seen.items()}


def _takes_text(part: Any) -> bool:
    from augury.models.fused.steps import is_text

    categories = getattr(part, "categories_", ())
    return any(hasattr(each, "dtype") and is_text(each) for each in categories)


def with_texts(inputs: Sequence[InputColumn], texts: Texts) -> list[InputColumn]:
    """Inputs of which some are text."""
    return [
        replace(column, type="string", categories=texts[number], unknown="other")
        if number in texts
        else column
        for number, column in enumerate(inputs)
    ]


def texts_of(signature: Signature) -> Texts:
    """The categories of a signature's text columns, by number."""
    return {
        number: tuple(map(str, column.categories or ()))
        for number, column in enumerate(signature.inputs)
        if column.type == "string"
    }


def check_texts(learned: Texts, signature: Signature, path: Path) -> None:
    """An explicit signature must have text where the estimator takes it, and only there.

    Raises:
        InvalidError: with every column.
    """
    faults = []
    for number, column in enumerate(signature.inputs):
        if (column.type == "string") != (number in learned):
            expected = "text" if number in learned else "numbers"
            faults.append(
                Fault(path=column.name, message=f"expected {expected}, found {column.type}")
            )
        elif number in learned and column.unknown != "other":
            faults.append(
                Fault(path=column.name, message="expected `unknown: other`, found `missing`")
            )
    if faults:
        raise InvalidError(f"model {path}: the signature does not fit its encoders", faults)


def text_input(estimator: Any, signature: Signature) -> Callable[[NDArray[Any]], Any] | None:
    """Makes what the estimator takes from a matrix; None if it takes the matrix itself.

    That is a data frame if the estimator was fitted on one, whose columns it may select by name,
    otherwise an array of objects.
    """
    from sklearn.compose import ColumnTransformer

    named = any(
        isinstance(part, ColumnTransformer) and hasattr(part, "feature_names_in_")
        for part in parts(estimator)
    )
    if not named and not texts_of(signature):
        return None
    words = _words(estimator, signature)
    if hasattr(estimator, "feature_names_in_"):
        return lambda matrix: _frame(matrix, signature, words)
    return lambda matrix: _objects(matrix, words)


def _words(estimator: Any, signature: Signature) -> dict[int, NDArray[Any]]:
    """What each code of a text column stands for; then unknown text, then missing text."""
    import numpy as np

    from augury.models.fused import known_texts
    from augury.models.fused.steps import UNKNOWN_TEXT

    missing = known_texts(estimator).missing
    return {
        number: np.array([*categories, UNKNOWN_TEXT, missing.get(number, np.nan)], dtype=object)
        for number, categories in texts_of(signature).items()
    }


def _column(matrix: NDArray[Any], number: int, words: dict[int, NDArray[Any]]) -> NDArray[Any]:
    import numpy as np

    values = matrix[:, number]
    if number not in words:
        return values
    codes = np.where(np.isnan(values), len(words[number]) - 1, values)
    found: NDArray[Any] = words[number][codes.astype(np.intp)]
    return found


def _frame(matrix: NDArray[Any], signature: Signature, words: dict[int, NDArray[Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {name: _column(matrix, number, words) for number, name in enumerate(signature.names)}
    )


def _objects(matrix: NDArray[Any], words: dict[int, NDArray[Any]]) -> NDArray[Any]:
    import numpy as np

    rows = np.empty(matrix.shape, dtype=object)
    for number in range(matrix.shape[1]):
        rows[:, number] = _column(matrix, number, words)
    return rows
