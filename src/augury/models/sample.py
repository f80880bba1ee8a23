"""The columns of a sample: a Parquet file that looks like the model's input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import CorruptError, NotFoundError
from augury.models.signature import InputColumn, type_name

if TYPE_CHECKING:
    import pyarrow as pa


def read_sample(path: Path) -> dict[str, InputColumn]:
    """Columns by name, in the file's order; dictionary columns with their categories.

    Raises:
        NotFoundError: no such file.
        CorruptError: not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise NotFoundError(f"no sample file {path}", path=str(path))
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            coded = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            table = file.read(columns=coded) if coded else None
    except (pa.ArrowException, OSError) as error:
        raise CorruptError(f"sample {path} is not readable as Parquet: {error}") from error
    return {field.name: _column(field, table) for field in schema}


def _column(field: pa.Field[Any], table: pa.Table | None) -> InputColumn:
    import pyarrow as pa

    if table is None or not pa.types.is_dictionary(field.type):
        return InputColumn(name=field.name, type=type_name(str(field.type)))
    # Parquet keeps dictionaries of text only; others come back as plain columns
    kind = type_name(str(field.type.value_type))
    unified = table.column(field.name).unify_dictionaries()
    values = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    return InputColumn(name=field.name, type=kind, categories=tuple(values) or None)
