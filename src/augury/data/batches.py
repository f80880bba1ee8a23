"""From row groups to matrices: decoding, conversion, and nothing per row in Python.

Arrow decodes a file's row groups in batches of bounded size. Each batch is converted into a
row-major matrix that was allocated once and is used again and again. Columns are copied in blocks
of about 2,000 rows, so that the rows being filled stay in the second-level cache while every column
passes over them; filling column after column for the whole batch is several times slower.

A value is converted in the same way whatever the batch it is in: no bit of the matrix depends on
where batches begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.data.contract import Binding, Encoding, Feature, bind
from augury.data.dataset import column_indices, open_planned, parquet_errors, verify
from augury.data.footers import parsed_footer
from augury.data.unknown import UnknownCounter
from augury.errors import CorruptError
from augury.models.columns import Columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from augury.models.signature import Signature
    from augury.settings import Settings
    from augury.storage.objects import InputObject

BLOCK_ROWS = 2048
BATCH_ROWS = 65_536
_MATRIX_BYTES = 16 * 2**20
_DECODED_BYTES = 32 * 2**20
_READ_BUFFER_BYTES = 2**20
_LARGEST_INT64 = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Rows of one file as they were read.

    Attributes:
        binding: of the file.
        first_row: number of the first row in the file, from 0; the others follow.
    """

    batch: pa.RecordBatch
    binding: Binding
    first_row: int


@dataclass(frozen=True, kw_only=True)
class FileSlice:
    """Row groups of one file to read, in order: (number, rows that the footer promises)."""

    uri: str
    tag: str
    row_groups: tuple[tuple[int, int], ...]

    @property
    def num_rows(self) -> int:
        """Rows of these row groups."""
        return sum(num_rows for _, num_rows in self.row_groups)


def batch_rows(num_features: int, itemsize: int, row_bytes: float = 0.0) -> int:
    """Most rows of a batch, so that neither its matrix nor what is decoded becomes too large.

    Args:
        num_features: columns of the matrix.
        itemsize: bytes of one of its cells.
        row_bytes: decoded bytes of a row, about; 0 if unknown.
    """
    by_matrix = _MATRIX_BYTES // max(1, num_features * itemsize)
    by_decoded = int(_DECODED_BYTES / row_bytes) if row_bytes > 0 else BATCH_ROWS
    return max(1, min(BATCH_ROWS, by_matrix, by_decoded))


# --- reading --------------------------------------------------------------------------------------


def read_batches(
    file: FileSlice,
    signature: Signature,
    columns: Sequence[str],
    *,
    max_rows: int,
    settings: Settings,
) -> Iterator[Decoded]:
    """Decodes one file's row groups, in order, in batches of at most `max_rows` rows.

    Only the columns that are needed are read. The file's identity is checked when it is opened and
    after its last byte: if the iterator ends without an error, all rows were the planned ones.

    Raises:
        IdentityError: replaced or deleted since it was planned.
        CorruptError: the file is damaged, or holds another number of rows than its footer said.
        ContractError: its schema does not fit (it was checked when the run was planned).
        UnavailableError: its store failed.
    """
    found = 0
    with open_planned(file.uri, file.tag, settings) as source:
        with parquet_errors(source, file.uri, file.tag):
            for decoded in _decode(source, file, signature, columns, max_rows):
                found += decoded.batch.num_rows
                yield decoded
        verify(source, file.uri, file.tag)
    if found != file.num_rows:
        raise CorruptError(
            f"{file.uri}: expected {file.num_rows} rows as its footer says, found {found}",
            uri=file.uri,
            expected=file.num_rows,
            found=found,
        )


def _decode(
    source: InputObject,
    file: FileSlice,
    signature: Signature,
    columns: Sequence[str],
    max_rows: int,
) -> Iterator[Decoded]:
    from pyarrow import parquet as pq

    metadata, schema = parsed_footer(source, file.uri, file.tag)
    binding = bind(schema, signature, columns)
    reader = pq.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=binding.dictionaries,
        page_checksum_verification=True,
        **_buffering(file.uri),
    )
    numbers = [number for number, _ in file.row_groups]
    rows = min(max_rows, _rows_of_bounded_bytes(metadata, numbers, binding.names))
    for first, together in _stretches(metadata, numbers):
        row = first
        for batch in reader.iter_batches(
            batch_size=rows, row_groups=together, columns=binding.names, use_threads=False
        ):
            yield Decoded(batch=batch, binding=binding, first_row=row)
            row += batch.num_rows


def _stretches(metadata: Any, row_groups: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Row groups whose rows follow each other, with the number of the first row of each stretch.

    One, unless row groups between them were quarantined.
    """
    row = 0
    first, together = 0, list[int]()
    wanted = set(row_groups)
    for number in range(row_groups[-1] + 1):
        num_rows = metadata.row_group(number).num_rows
        if number in wanted:
            first = first if together else row
            together.append(number)
        elif together and num_rows:
            yield first, together
            together = []
        row += num_rows
    yield first, together


def _buffering(uri: str) -> dict[str, Any]:
    """A local file is read piece by piece; over a network, ranges are fetched ahead, joined."""
    if uri.startswith("file://"):
        return {"buffer_size": _READ_BUFFER_BYTES}
    return {"pre_buffer": True}


def _rows_of_bounded_bytes(metadata: Any, row_groups: Sequence[int], names: Sequence[str]) -> int:
    groups = [metadata.row_group(number) for number in row_groups]
    wanted = column_indices(metadata, names)
    num_rows = sum(group.num_rows for group in groups)
    num_bytes = sum(
        group.column(index).total_uncompressed_size for group in groups for index in wanted
    )
    return batch_rows(1, 1, num_bytes / num_rows if num_rows else 0.0)


# --- conversion -----------------------------------------------------------------------------------


def fill(
    matrix: NDArray[Any], batch: pa.RecordBatch, binding: Binding, unknown: UnknownCounter
) -> None:
    """Converts a batch into a matrix.

    Args:
        matrix: `(batch.num_rows, num_features)`, C-contiguous; every cell is overwritten.
        batch: decoded rows, with at least the binding's columns.
        binding: of the file that the batch comes from.
        unknown: counts the values that are not among a column's categories.
    """
    import numpy as np

    columns = [_values(batch.column(each.name), each, unknown) for each in binding.features]
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, as in libraries
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, batch.num_rows))
            block = matrix[rows]
            for index, (values, missing) in enumerate(columns):
                block[:, index] = values[rows]
                if missing is not None:
                    block[missing[rows], index] = np.nan


def columns_of(batch: pa.RecordBatch, binding: Binding, unknown: UnknownCounter) -> Columns:
    """A batch's columns for a model that takes them as they are; numbers are not copied.

    Args:
        batch: decoded rows, with at least the binding's columns.
        binding: of the file that the batch comes from.
        unknown: counts the values that are not among a column's categories.
    """
    pairs = [_values(batch.column(each.name), each, unknown) for each in binding.features]
    return Columns(
        values=tuple(values for values, _ in pairs), missing=tuple(mask for _, mask in pairs)
    )


_Values = tuple["NDArray[Any]", "NDArray[np.bool_] | None"]


def _values(column: pa.Array, feature: Feature, unknown: UnknownCounter) -> _Values:
    """A column as numbers of its own type, and where it is missing (None: nowhere)."""
    if feature.encoding is Encoding.CATEGORY:
        return _codes(column, feature, unknown)
    return plain(numeric(column))


def numeric(column: pa.Array) -> pa.Array:
    """A plain array of a type that numpy knows."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_boolean(column.type):
        return column.cast(pa.uint8())
    if types.is_decimal(column.type):
        return column.cast(pa.float64())
    if types.is_null(column.type) or types.is_float16(column.type):
        return column.cast(pa.float32())
    return column


def plain(column: pa.Array) -> _Values:
    """Values and where they are missing (None: nowhere), of an array of a type that numpy knows.

    Nulls apart from values: so a long integer is rounded once, whether nulls are near or not.

    Not with `to_numpy` or `fill_null`, whose first call imports pandas.
    """
    import numpy as np

    if not column.null_count:
        return np.from_dlpack(column), None
    return _with_anything_for_null(column), mask(column.is_null())


def _with_anything_for_null(column: pa.Array) -> NDArray[Any]:
    """A column's memory as it is; what stands where the value is null, is not specified."""
    import numpy as np

    dtype = np.dtype(column.type.to_pandas_dtype())
    memory = column.buffers()[1]
    if memory is None:
        return np.zeros(len(column), dtype)
    return np.frombuffer(memory, dtype, len(column), column.offset * dtype.itemsize)


def mask(booleans: pa.BooleanArray) -> NDArray[np.bool_]:
    """The same as numpy's booleans; there must be no null among them."""
    import numpy as np
    import pyarrow as pa

    return np.from_dlpack(booleans.cast(pa.uint8())).view(np.bool_)


def _codes(column: pa.Array, feature: Feature, unknown: UnknownCounter) -> _Values:
    """Indices among the categories; unknown values are missing, or another index, as it says."""
    codes, lost = encoded(column, feature)
    values, missing = plain(codes)
    if lost is None:
        return values, missing
    unknown.count(feature.name, without_views(column).filter(lost))
    if feature.unknown == "missing":
        return values, missing
    return _with_others(column, feature, values, mask(lost))


def _with_others(
    column: pa.Array, feature: Feature, codes: NDArray[Any], lost: NDArray[np.bool_]
) -> _Values:
    """Unknown values become the number of categories; nulls, in a dictionary too, are missing."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    missing = mask(column.is_null())
    return np.where(lost & ~missing, len(feature.categories), codes), missing


def without_views(column: pa.Array) -> pa.Array:
    """Texts and bytes in their plain form: few of Arrow's functions know views."""
    import pyarrow as pa

    if pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column.cast(pa.binary()) if pa.types.is_binary_view(column.type) else column


def encoded(column: pa.Array, feature: Feature) -> tuple[pa.Array, pa.BooleanArray | None]:
    """Indices among the categories, and where a value is not among them (None: nowhere).

    An index is null where the value is null or unknown. A null within a dictionary looks like an
    unknown value without a name.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    column = without_views(column)
    if pa.types.is_dictionary(column.type):
        known = _index_in(column.dictionary, feature)
        codes = known.take(column.indices)
        missing_values = known.null_count > 0
    else:
        codes = _index_in(column, feature)
        missing_values = codes.null_count > column.null_count
    if not missing_values:
        return codes, None
    return codes, pc.and_(codes.is_null(), column.is_valid())


def _index_in(values: pa.Array, feature: Feature) -> pa.Array:
    import pyarrow as pa
    from pyarrow import compute as pc

    if pa.types.is_null(values.type):
        return pa.nulls(len(values), pa.int32())
    if isinstance(feature.categories[0], str):
        return pc.index_in(values.cast(pa.string()), value_set=pa.array(feature.categories))
    if pa.types.is_uint64(values.type):  # what int64 cannot hold is no category
        fits = pc.less_equal(values, pa.scalar(_LARGEST_INT64, pa.uint64()))
        values = pc.if_else(fits, values, pa.scalar(None, pa.uint64()))
    categories = pa.array(feature.categories, pa.int64())
    return pc.index_in(values.cast(pa.int64()), value_set=categories)


def carried(batch: pa.RecordBatch, fields: Sequence[pa.Field]) -> list[pa.Array]:
    """The carried columns in the types of the output."""
    columns = []
    for field in fields:
        column = batch.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return columns
