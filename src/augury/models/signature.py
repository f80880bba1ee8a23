"""What a model takes and gives: named, typed inputs, the task, the classes, the precision.

A signature is checked against the footers of the input before a row is read, it says how columns
become the matrix that `Model.predict` takes, and it is stored with the model's version and in
every plan. It is plain data: this module imports no array library.

How a column becomes a matrix column (`data/batches.py` does it):

| column | becomes |
|---|---|
| number | its value in `Signature.dtype` |
| bool | 0 or 1 |
| string or integer with `categories` | its index in `categories`; another value: see `unknown` |
| null | NaN |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, Self, cast, get_args

from augury.errors import Fault, InvalidError

Dtype = Literal["float32", "float64"]
Unknown = Literal["missing", "other"]
Class = str | int | bool | float

_DTYPES: tuple[str, ...] = get_args(Dtype)
_UNKNOWN: tuple[str, ...] = get_args(Unknown)
_COLUMN_FIELDS = ("name", "type", "categories", "unknown")
INTEGER_TYPES = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
FLOAT_TYPES = frozenset({"halffloat", "float", "double"})
TYPES = INTEGER_TYPES | FLOAT_TYPES | {"bool", "string"}
# how people and other libraries call Arrow's types
_ALIASES = {
    "float16": "halffloat",
    "float32": "float",
    "float64": "double",
    "int": "int64",
    "str": "string",
    "large_string": "string",
    "string_view": "string",
    "utf8": "string",
    "boolean": "bool",
}


class Task(StrEnum):
    """What the model predicts."""

    REGRESSION = "regression"  #: one number a row
    BINARY = "binary"  #: the probability of the second of two classes
    MULTICLASS = "multiclass"  #: a probability for each of several classes


def type_name(name: str) -> str:
    """Arrow's own name of a column type: `float32` is `float`, `str` is `string`."""
    return _ALIASES.get(name, name)


@dataclass(frozen=True, kw_only=True)
class InputColumn:
    """One input of a model.

    Attributes:
        name: the column's name in the data.
        type: Arrow type name, one of `TYPES`; what the model was trained on. Data may be narrower.
        categories: the known values, in the order of their codes (strings for a string column,
            integers for an integer column); None for a plain number or bool.
        unknown: what a value becomes that is not among the categories: `missing` (NaN), or `other`
            (the number of categories), for models that tell the two apart.
    """

    name: str
    type: str
    categories: tuple[str, ...] | tuple[int, ...] | None = None
    unknown: Unknown = "missing"

    def to_json(self) -> dict[str, Any]:
        """A plain document; `categories` only where there are some."""
        document: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.categories is not None:
            document["categories"] = list(self.categories)
        if self.unknown != "missing":
            document["unknown"] = self.unknown
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote; nothing is checked (`Signature.from_json` does)."""
        categories = document.get("categories")
        return cls(
            name=document["name"],
            type=type_name(document["type"]),
            categories=None if categories is None else tuple(categories),
            unknown=document.get("unknown", "missing"),
        )


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A model's inputs and outputs.

    Attributes:
        inputs: the matrix's columns, in order; the matrix is `(num_rows, len(inputs))`.
        task: what is predicted.
        classes: in the order of the probabilities; two for `binary` (the second is the positive
            one), none for `regression`.
        dtype: precision of the matrix, the one in which the library itself compares.
    """

    inputs: tuple[InputColumn, ...]
    task: Task
    classes: tuple[Class, ...] = ()
    dtype: Dtype = "float32"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in matrix order."""
        return tuple(column.name for column in self.inputs)

    @property
    def num_features(self) -> int:
        """Columns of the matrix."""
        return len(self.inputs)

    def to_json(self) -> dict[str, Any]:
        """A plain document, as stored with the model's version and in plans."""
        return {
            "inputs": [column.to_json() for column in self.inputs],
            "task": str(self.task),
            "classes": list(self.classes),
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, document: Any, *, dtype: Dtype = "float32") -> Self:
        """Reads a document such as `to_json` writes, or as a user wrote in YAML.

        Args:
            document: `inputs`, `task`, and optionally `classes` and `dtype`.
            dtype: precision if the document does not say.

        Raises:
            InvalidError: with every fault of the document.
        """
        faults = list(_document_faults(document))
        if faults:
            raise InvalidError("the signature is not valid", faults)
        signature = cls(
            inputs=tuple(InputColumn.from_json(column) for column in document["inputs"]),
            task=Task(document["task"]),
            classes=tuple(document.get("classes") or ()),
            dtype=cast("Dtype", document.get("dtype", dtype)),
        )
        signature.check()
        return signature

    def check(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            InvalidError: with every fault.
        """
        faults = [*_input_faults(self.inputs), *_class_faults(self.task, self.classes)]
        if self.dtype not in _DTYPES:
            faults.append(_expected("dtype", " or ".join(_DTYPES), self.dtype))
        if faults:
            raise InvalidError("the signature is not valid", faults)

    def with_classes(self, classes: Sequence[Class]) -> Self:
        """The same signature with the classes renamed, in the order of the probabilities."""
        return replace(self, classes=tuple(classes))


def _expected(path: str, expected: str, found: object) -> Fault:
    return Fault(path=path, message=f"expected {expected}, found {found!r}")


def _document_faults(document: Any) -> Iterator[Fault]:
    """Faults of form: what would make building the dataclasses fail."""
    if not isinstance(document, Mapping):
        yield _expected("", "a mapping with inputs and task", document)
        return
    for unknown in sorted(map(str, set(document) - {"inputs", "task", "classes", "dtype"})):
        yield Fault(path=unknown, message="unknown field; known: inputs, task, classes, dtype")
    if document.get("task") not in set(Task):
        yield _expected("task", " or ".join(Task), document.get("task"))
    classes = document.get("classes")
    if classes is not None and not isinstance(classes, list | tuple):
        yield _expected("classes", "a list", classes)
    inputs = document.get("inputs")
    if not isinstance(inputs, list | tuple):
        yield _expected("inputs", "a list of columns", inputs)
        return
    for number, column in enumerate(inputs):
        yield from _column_faults(f"inputs[{number}]", column)


def _column_faults(path: str, column: Any) -> Iterator[Fault]:
    if not isinstance(column, Mapping):
        yield _expected(path, "a mapping with name and type", column)
        return
    for unknown in sorted(map(str, set(column) - set(_COLUMN_FIELDS))):
        known = ", ".join(_COLUMN_FIELDS)
        yield Fault(path=f"{path}.{unknown}", message=f"unknown field; known: {known}")
    if column.get("unknown", "missing") not in _UNKNOWN:
        yield _expected(f"{path}.unknown", " or ".join(_UNKNOWN), column["unknown"])
    for field in ("name", "type"):
        if not isinstance(column.get(field), str):
            yield _expected(f"{path}.{field}", "a string", column.get(field))
    categories = column.get("categories")
    if categories is not None and not isinstance(categories, list | tuple):
        yield _expected(f"{path}.categories", "a list", categories)


def _input_faults(inputs: Sequence[InputColumn]) -> Iterator[Fault]:
    if not inputs:
        yield Fault(path="inputs", message="expected at least one column, found none")
    seen: set[str] = set()
    for number, column in enumerate(inputs):
        path = f"inputs[{number}] ({column.name})"
        if not column.name:
            yield _expected(path, "a name", column.name)
        if column.name in seen:
            yield Fault(path=path, message="a column of this name comes before")
        seen.add(column.name)
        if column.type not in TYPES:
            yield _expected(path, f"a type among {', '.join(sorted(TYPES))}", column.type)
        yield from _category_faults(path, column)


def _category_faults(path: str, column: InputColumn) -> Iterator[Fault]:
    if column.categories is None:
        if column.type == "string":
            yield Fault(path=path, message="a string column needs categories; found none")
        return
    kind: type = str if column.type == "string" else int
    if column.type != "string" and column.type not in INTEGER_TYPES:
        yield Fault(path=path, message=f"a {column.type} column cannot have categories")
    elif any(type(value) is not kind for value in column.categories):
        yield Fault(path=path, message=f"the categories of a {column.type} column are {kind}s")
    if len(set(column.categories)) != len(column.categories):
        yield Fault(path=path, message="a category comes twice")
    if not column.categories:
        yield Fault(path=path, message="expected at least one category, found none")


def _class_faults(task: Task, classes: Sequence[object]) -> Iterator[Fault]:
    if task is Task.REGRESSION and classes:
        yield _expected("classes", "none for a regression", list(classes))
    if task is Task.BINARY and len(classes) != 2:
        yield _expected("classes", "two for a binary task", list(classes))
    if task is Task.MULTICLASS and len(classes) < 2:
        yield _expected("classes", "two or more for a multi-class task", list(classes))
    if len({type(value) for value in classes}) > 1:
        yield _expected("classes", "values of one type", list(classes))
    elif classes and not isinstance(classes[0], str | int | float):
        yield _expected("classes", "strings, integers, bools or floats", list(classes))
    elif len(set(classes)) != len(classes):
        yield _expected("classes", "each class once", list(classes))
