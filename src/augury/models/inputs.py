"""Putting together what a model knows of its inputs with what a sample shows; pure.

Models know names, or types, or neither; a sample (the columns of a Parquet file, see `sample.py`)
knows both, but may have more columns than the model, in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from augury.errors import Fault, InvalidError
from augury.models.signature import TYPES, InputColumn, Signature

Sample = Mapping[str, InputColumn]


def named_inputs(
    own: Sequence[InputColumn] | None, num_features: int, sample: Sample | None, path: Path
) -> tuple[InputColumn, ...]:
    """The model's inputs; names from the sample, or f0, f1, ..., if it stores none.

    Raises:
        InvalidError: the model has no names and the sample's number of columns is not its own.
    """
    if own is not None:
        return tuple(own)
    if sample is None:
        return tuple(
            InputColumn(name=f"f{number}", type="double") for number in range(num_features)
        )
    if len(sample) != num_features:
        raise InvalidError(
            f"model {path} stores no names of its {num_features} inputs, and the sample has "
            f"{len(sample)} columns; give a sample of exactly its inputs, in their order, or a "
            "signature"
        )
    return tuple(replace(column, categories=None) for column in sample.values())


def reconcile(
    own: Sequence[InputColumn], sample: Sample | None, path: Path
) -> tuple[InputColumn, ...]:
    """The model's columns with the types, and where it stores none the categories, of the sample.

    Raises:
        InvalidError: with every column that the sample lacks or that does not fit it.
    """
    faults: list[Fault] = []
    inputs = []
    for column in own:
        seen = sample.get(column.name, column) if sample is not None else column
        if sample is not None and column.name not in sample:
            faults.append(Fault(path=column.name, message="not in the sample"))
        faults.extend(_misfit(column, seen))
        merged = _merged(column, seen)
        if merged.type == "string" and merged.categories is None:
            faults.append(Fault(path=column.name, message=_NO_CATEGORIES))
        inputs.append(merged)
    if faults:
        raise InvalidError(f"model {path}: its inputs cannot be told", faults)
    return tuple(inputs)


_NO_CATEGORIES = (
    "a categorical input, and the model does not store its categories; give a sample in which "
    "the column has Arrow's dictionary type with the categories of the training data in their "
    "order, or a signature that lists them"
)


def _misfit(own: InputColumn, seen: InputColumn) -> list[Fault]:
    expected = "text" if own.type == "string" else "numbers"
    if seen.type not in TYPES:
        return [Fault(path=own.name, message=f"expected {expected}, found {seen.type}")]
    if own.type == "string" and own.categories is None:
        return []  # a code whose meaning only the sample can tell
    if (own.type == "string") != (seen.type == "string"):
        return [Fault(path=own.name, message=f"expected {expected}, found {seen.type}")]
    return []


def _merged(own: InputColumn, seen: InputColumn) -> InputColumn:
    if own.categories is not None:
        return own
    if own.type == "string":  # a categorical input without categories of its own
        return replace(seen, name=own.name)
    return InputColumn(name=own.name, type=seen.type)


def check_categories(own: Sequence[InputColumn], signature: Signature, path: Path) -> None:
    """Checks a signature's categories against those that the model stores, by name.

    Raises:
        InvalidError: naming the column and the model's categories.
    """
    known = {column.name: column.categories for column in own}
    for column in signature.inputs:
        expected = known.get(column.name)
        if expected is not None and expected != column.categories:
            raise InvalidError(
                f"model {path}: the signature's categories of {column.name} are not the model's "
                f"(in this order): {', '.join(map(str, expected))}"
            )


def check_names(names: Sequence[str], num_features: int, signature: Signature, path: Path) -> None:
    """Checks a signature's columns against a model's; no `names`: only their number.

    Raises:
        InvalidError: naming what is expected and what was found.
    """
    if signature.num_features != num_features:
        raise InvalidError(
            f"model {path} has {num_features} inputs, the signature {signature.num_features}"
        )
    if names and tuple(names) != signature.names:
        raise InvalidError(
            f"model {path}: expected the inputs {', '.join(names)} (in this order), found "
            f"{', '.join(signature.names)} in the signature"
        )
