"""The contract between input data and a model, checked from schemas before a row is read.

What a column may be, for each kind of feature of the signature:

| feature | column | becomes |
|---|---|---|
| number, bool | integer, floating point, bool, decimal | its value in the signature's precision |
| string with categories | string, dictionary of strings | index of the category; others as said |
| integer with categories | integer, dictionary of integers | the same |
| any | null (a column without a single value) | missing |

Everything else is refused: text and times for numbers, numbers for text.

A wider column than the precision is accepted, for the library itself would round it in the same
way: XGBoost and scikit-learn's forests (`float32`) round a double column to float32 and an int64
beyond 2^24 likewise; a `float64` model rounds int64 beyond 2^53. So a value is rounded once, to
the nearest, exactly as if the data had been given to the library directly. Narrower ones (int8 to
int32 for a `float64`, int16 for a `float32`, float32 for a double, bool) are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from augury.data.policy import ColumnPolicy, UnknownCategory
from augury.errors import ContractError, Fault
from augury.models.signature import InputColumn, Signature, Unknown, type_name

if TYPE_CHECKING:
    import pyarrow as pa

# columns that a reject part has before the input's own
REJECT_COLUMNS = ("_file", "_row", "_column", "_reason", "_detail")
#: what ends the line of a cast that loses nothing
EXACT = "exact"
_MANTISSA_BITS = {"halffloat": 11, "float": 24, "double": 53}


class Encoding(StrEnum):
    """How a column becomes a column of the matrix."""

    NUMBER = "number"  #: its value
    CATEGORY = "category"  #: its index among the categories


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the matrix, bound to a column of the data."""

    name: str
    encoding: Encoding
    categories: tuple[str, ...] | tuple[int, ...] = ()
    unknown: Unknown = "missing"


@dataclass(frozen=True, kw_only=True)
class Binding:
    """How one file's columns become a matrix and carried columns.

    Attributes:
        features: in matrix order.
        columns: carried columns, in output order.
    """

    features: tuple[Feature, ...]
    columns: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Columns to read, each once."""
        return list(dict.fromkeys([*(each.name for each in self.features), *self.columns]))

    @property
    def dictionaries(self) -> list[str]:
        """Columns best read as dictionaries: text that is encoded and not carried."""
        return [
            each.name
            for each in self.features
            if each.categories
            and isinstance(each.categories[0], str)
            and each.name not in self.columns
        ]


def needed_columns(signature: Signature, columns: Sequence[str]) -> list[str]:
    """Columns that scoring reads, each once."""
    return list(dict.fromkeys([*signature.names, *columns]))


def bind(schema: pa.Schema, signature: Signature, columns: Sequence[str] = ()) -> Binding:
    """Binds one file's schema.

    Raises:
        ContractError: with every fault.
    """
    faults = list(_schema_faults(schema, signature, columns))
    if faults:
        raise ContractError("the data does not fit the model", faults)
    return Binding(
        features=tuple(_feature(column) for column in signature.inputs), columns=tuple(columns)
    )


def check_all(
    schemas: Mapping[str, pa.Schema],
    signature: Signature,
    columns: Sequence[str],
    prediction_columns: Sequence[str],
    policies: Sequence[ColumnPolicy] = (),
) -> list[pa.Field]:
    """Checks every distinct schema of a data set, and the names of the output.

    Args:
        schemas: by the URI of (the first) file that has it.
        signature: the model's.
        columns: to be carried.
        prediction_columns: that the output will have besides.
        policies: what the job expects of input columns.

    Returns:
        The carried columns as the output will have them: the narrowest type that holds the values
        of all files exactly; dictionaries become plain columns.

    Raises:
        ContractError: with every fault of every schema.
    """
    faults = [*_name_faults(columns, prediction_columns), *_policy_faults(signature, policies)]
    for uri, schema in schemas.items():
        faults.extend(
            Fault(path=f"{uri}: {fault.path}", message=fault.message)
            for fault in _schema_faults(schema, signature, columns)
        )
    if faults:
        raise ContractError("the data does not fit the model", faults)
    fields, faults = _carried_fields(schemas, columns)
    if faults:
        raise ContractError("the carried columns differ between files", faults)
    return fields


def casts(schemas: Mapping[str, pa.Schema], signature: Signature) -> tuple[str, ...]:
    """Columns that come in another type than the model was trained on, and what becomes of them.

    All of these casts are safe: exact, or rounded once as the model's own library would. What is
    not safe is a fault.

    Args:
        schemas: by the URI of (the first) file that has it; checked.
        signature: the model's.

    Returns:
        A line a column and type, in the order of the inputs.
    """
    found = {
        (column, schema.field(column.name).type): None
        for column in signature.inputs
        for schema in schemas.values()
    }
    lines = (_cast(column, kind, signature.dtype) for column, kind in found)
    return tuple(dict.fromkeys(line for line in lines if line))


def _cast(column: InputColumn, found: pa.DataType, dtype: str) -> str:
    """Empty if the column is of the model's own type."""
    kind = plain_type(found)
    name = type_name(str(kind))
    if name in {column.type, "null"}:
        return ""
    if column.categories is not None:
        return f"{column.name}: {name} for {column.type}, {EXACT}"
    rounded = EXACT if _fits(kind, dtype) else f"rounded once, to the nearest {dtype}"
    return f"{column.name}: {name} for {column.type}, {rounded}"


def _fits(kind: pa.DataType, dtype: str) -> bool:
    """True if every value of the type is a value of the model's precision."""
    import pyarrow as pa

    bits = {"float32": 24, "float64": 53}[dtype]
    if pa.types.is_floating(kind):
        return _MANTISSA_BITS[str(kind)] <= bits
    short = pa.types.is_integer(kind) and kind.bit_width <= bits
    return bool(short or pa.types.is_boolean(kind))


def original_fields(schemas: Mapping[str, pa.Schema], names: Sequence[str]) -> list[pa.Field]:
    """Input columns as rejected rows keep them: in a type that holds the values of all files.

    Raises:
        ContractError: the files have types of which none holds the others' values exactly.
    """
    fields, faults = _carried_fields(schemas, names)
    faults += [
        Fault(path=name, message="is the name of a column that rejected rows get; rename it")
        for name in names
        if name in REJECT_COLUMNS
    ]
    if faults:
        raise ContractError("rows cannot be rejected with their original values", faults)
    return fields


# --- faults ---------------------------------------------------------------------------------------


def _name_faults(columns: Sequence[str], prediction_columns: Sequence[str]) -> Iterator[Fault]:
    for name, count in Counter(columns).items():
        if count > 1:
            yield Fault(path=name, message="is carried twice; name it once in `columns`")
    for name, count in Counter(prediction_columns).items():
        if count > 1:
            yield Fault(path=name, message="two prediction columns have this name")
    for name in dict.fromkeys(columns):
        if name in prediction_columns:
            yield Fault(
                path=name,
                message="is the name of a carried column and of a prediction column; rename the "
                "latter in `prediction_columns`",
            )


def _policy_faults(signature: Signature, policies: Sequence[ColumnPolicy]) -> Iterator[Fault]:
    inputs = {column.name: column for column in signature.inputs}
    for policy in policies:
        path = f"expect.{policy.name}"
        column = inputs.get(policy.name)
        if column is None:
            message = f"expected an input of the model, found none; there are {_few(inputs)}"
            yield Fault(path=path, message=message)
            continue
        if column.type == "string" and (policy.finite or policy.has_range):
            message = "`finite` and `range` are for numbers, and the model's input is a string"
            yield Fault(path=path, message=message)
        if column.categories is None and policy.unknown_category is not UnknownCategory.MISSING:
            message = "`unknown_category` is for inputs with categories, and this one has none"
            yield Fault(path=path, message=message)


def _schema_faults(
    schema: pa.Schema, signature: Signature, columns: Sequence[str]
) -> Iterator[Fault]:
    counts = Counter(schema.names)
    for column in signature.inputs:
        if not counts[column.name]:
            yield Fault(
                path=column.name,
                message=f"expected a {column.type} column, found none; {_there_are(schema)}",
            )
        elif counts[column.name] > 1:
            yield _ambiguous(column.name, counts[column.name])
        else:
            yield from _type_faults(column, schema.field(column.name).type)
    for name in dict.fromkeys(columns):
        if not counts[name]:
            yield Fault(
                path=name,
                message=f"expected a column to carry, found none; {_there_are(schema)}",
            )
        elif counts[name] > 1 and name not in signature.names:
            yield _ambiguous(name, counts[name])


def _ambiguous(name: str, count: int) -> Fault:
    return Fault(path=name, message=f"expected one column of this name, found {count}")


def _there_are(schema: pa.Schema) -> str:
    return f"there are {_few(schema.names)}"


def _few(names: Iterable[str], most: int = 20) -> str:
    shown = list(names)
    return f"{', '.join(shown[:most])}{' ...' if len(shown) > most else ''}"


def _type_faults(column: InputColumn, found: pa.DataType) -> Iterator[Fault]:
    import pyarrow as pa

    types = pa.types
    plain = found.value_type if types.is_dictionary(found) else found
    if types.is_null(plain):
        return
    if column.categories is None:
        fits = types.is_integer(plain) or types.is_floating(plain) or types.is_decimal(plain)
        if not (fits or types.is_boolean(plain)):
            yield _unfit(column, "a number or bool", found)
    elif column.type == "string":
        text = (types.is_string, types.is_large_string, types.is_string_view)
        if not any(is_kind(plain) for is_kind in text):
            yield _unfit(column, "a string column (it has categories)", found)
    elif not types.is_integer(plain):
        yield _unfit(column, "an integer column (it has categories)", found)


def _unfit(column: InputColumn, expected: str, found: pa.DataType) -> Fault:
    return Fault(
        path=column.name,
        message=f"expected {expected} for the model's {column.type} input, found {found}; convert "
        "the column before it is scored",
    )


def _feature(column: InputColumn) -> Feature:
    if column.categories is None:
        return Feature(name=column.name, encoding=Encoding.NUMBER)
    return Feature(
        name=column.name,
        encoding=Encoding.CATEGORY,
        categories=column.categories,
        unknown=column.unknown,
    )


# --- carried columns ------------------------------------------------------------------------------


def _carried_fields(
    schemas: Mapping[str, pa.Schema], columns: Sequence[str]
) -> tuple[list[pa.Field], list[Fault]]:
    import pyarrow as pa

    fields: list[pa.Field] = []
    faults: list[Fault] = []
    for name in columns:
        kinds = {uri: plain_type(schema.field(name).type) for uri, schema in schemas.items()}
        common = _common_type(kinds.values())
        if common is None:
            found = "; ".join(f"{kind} in {uri}" for uri, kind in _first_of_each(kinds))
            faults.append(
                Fault(path=name, message=f"expected one type in all files, found {found}")
            )
        fields.append(pa.field(name, common if common is not None else pa.null()))
    return fields, faults


def _first_of_each(kinds: Mapping[str, pa.DataType]) -> list[tuple[str, pa.DataType]]:
    seen: dict[str, tuple[str, pa.DataType]] = {}
    for uri, kind in kinds.items():
        seen.setdefault(str(kind), (uri, kind))
    return list(seen.values())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that a carried column has in the output: no dictionary, no view."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def _common_type(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """The narrowest type that holds the values of all exactly; None if there is none."""
    import pyarrow as pa

    distinct = list(dict.fromkeys(kinds))
    if len(distinct) <= 1:
        return distinct[0] if distinct else pa.null()
    try:
        unified = pa.unify_schemas(
            [pa.schema([("column", kind)]) for kind in distinct], promote_options="permissive"
        )
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None
    common = unified.field(0).type
    return common if all(_holds(common, kind) for kind in distinct) else None


def _holds(common: pa.DataType, kind: pa.DataType) -> bool:
    """False where Arrow's promotion would round: long integers to floating point."""
    import pyarrow as pa

    if not (pa.types.is_floating(common) and pa.types.is_integer(kind)):
        return True
    return bool(kind.bit_width <= _MANTISSA_BITS[str(common)])
