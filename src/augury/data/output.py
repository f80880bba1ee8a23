"""Writing a part: Parquet whose bytes follow from its rows alone.

Rows come in batches of any size. They are gathered until a row group is full, joined into one array
a column, and written as one: where a batch ended leaves no trace, neither in row groups nor in
pages. Together with the pinned settings and library version, a part written twice is the same part.

Dictionaries pay for text only: numbers are written plain, which is two to three times as fast.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from augury.errors import AuguryError, LimitError, UnavailableError
from augury.models.signature import Class, Signature, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


# --- the output's schema --------------------------------------------------------------------------


def prediction_names(
    task: Task, prediction: str, probability: str, probabilities: str
) -> tuple[str, ...]:
    """Names of the prediction columns of a task, in the order of the output."""
    match task:
        case Task.REGRESSION:
            return (prediction,)
        case Task.BINARY:
            return (prediction, probability)
        case Task.MULTICLASS:
            return (prediction, probabilities)


_NUMPY = {"float": "float32", "double": "float64"}


def prediction_fields(
    signature: Signature, names: Sequence[str], number: pa.DataType
) -> list[pa.Field]:
    """The prediction columns.

    Args:
        signature: the model's.
        names: as `prediction_names` gives them.
        number: type of predicted numbers and probabilities.
    """
    import pyarrow as pa

    if signature.task is Task.REGRESSION:
        return [pa.field(names[0], number)]
    classes = class_values(signature.classes).type
    scores = number
    if signature.task is Task.MULTICLASS:
        scores = pa.list_(pa.field("element", number), len(signature.classes))
    return [pa.field(names[0], classes), pa.field(names[1], scores)]


def class_values(classes: Sequence[Class]) -> pa.Array:
    """The classes as an Arrow array, in the order of the probabilities."""
    import numpy as np
    import pyarrow as pa

    # not `pa.array`, which imports pandas to see whether it was given something of it
    if isinstance(classes[0], str):
        return texts([str(value) for value in classes])
    if isinstance(classes[0], bool):
        bits = np.packbits(np.array(classes, dtype=bool), bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(classes), [None, pa.py_buffer(bits)])
    return from_numpy(np.array(classes))


def texts(values: Sequence[str]) -> pa.StringArray:
    """Texts as an Arrow array, of at most 2 GiB together."""
    import numpy as np
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))
    )


def encode_schema(schema: pa.Schema) -> str:
    """An Arrow schema as text, without metadata."""
    return base64.b64encode(schema.remove_metadata().serialize()).decode()


def decode_schema(text: str) -> pa.Schema:
    """What `encode_schema` gave."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))


def dictionary_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Columns that are worth a dictionary: text and bytes."""
    import pyarrow as pa

    types = pa.types
    return tuple(
        field.name
        for field in schema
        if types.is_string(field.type)
        or types.is_large_string(field.type)
        or types.is_binary(field.type)
        or types.is_large_binary(field.type)
    )


# --- predictions as columns -----------------------------------------------------------------------


def prediction_columns(
    predictions: NDArray[Any], signature: Signature, fields: Sequence[pa.Field]
) -> list[pa.Array]:
    """A batch's predictions as columns.

    Args:
        predictions: as `Model.predict` returns them: `(num_rows,)` or `(num_rows, num_classes)`.
        signature: the model's.
        fields: of the prediction columns.

    Returns:
        Regression: the numbers. Binary: the class (`classes[1]` if its probability is over 0.5)
        and that probability. Multi-class: the most probable class (the first of several equal
        ones) and all probabilities in the order of the classes.
    """
    import numpy as np
    import pyarrow as pa

    if signature.task is Task.REGRESSION:
        return [_numbers(predictions, fields[0].type)]
    classes = class_values(signature.classes)
    if signature.task is Task.BINARY:
        positive = (predictions > 0.5).astype(np.int8)
        return [classes.take(from_numpy(positive)), _numbers(predictions, fields[1].type)]
    chosen = predictions.argmax(axis=1)
    scores = _numbers(predictions.reshape(-1), fields[1].type.value_type)
    return [
        classes.take(from_numpy(chosen)),
        pa.FixedSizeListArray.from_arrays(scores, type=fields[1].type),
    ]


def _numbers(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    return from_numpy(values.astype(_NUMPY[str(kind)], copy=False))


def from_numpy(values: NDArray[Any]) -> pa.Array:
    """The same memory as an Arrow array; `pa.array` would import pandas first."""
    import numpy as np
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


# --- the part -------------------------------------------------------------------------------------


class PartWriter:
    """Writes one part into a local file. Not thread-safe.

    Args:
        path: does not exist yet.
        schema: of the part.
        codec: Parquet compression.
        row_group_rows: rows of every row group but the last.
        data_page_version: "1.0" or "2.0".
        dictionary_columns: columns written with dictionaries.

    Raises:
        LimitError: (any method) no space left.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        codec: str,
        row_group_rows: int,
        data_page_version: str,
        dictionary_columns: Sequence[str],
    ) -> None:
        import pyarrow as pa
        from pyarrow import parquet as pq

        self.num_rows = 0
        self._path = path
        self._schema = schema
        self._row_group_rows = row_group_rows
        self._waiting: list[pa.RecordBatch] = []
        self._num_waiting = 0
        with space_errors(path):
            # our own: the library forgets to close the file when the disk is full, and a deleted
            # file that is open goes on filling it
            self._file = pa.OSFile(str(path), "wb")
            try:
                self._writer = pq.ParquetWriter(
                    self._file,
                    schema,
                    compression=codec,
                    version="2.6",
                    data_page_version=data_page_version,
                    use_dictionary=list(dictionary_columns),
                )
            except BaseException:
                self._file.close()
                raise

    def write(self, columns: Sequence[pa.Array]) -> None:
        """Appends a batch: one array a field of the schema, all of one length."""
        import pyarrow as pa

        batch = pa.record_batch(list(columns), schema=self._schema)
        self.num_rows += batch.num_rows
        start = 0
        while start < batch.num_rows:
            taken = min(batch.num_rows - start, self._row_group_rows - self._num_waiting)
            self._waiting.append(batch.slice(start, taken))
            self._num_waiting += taken
            start += taken
            if self._num_waiting == self._row_group_rows:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
        self._waiting, self._num_waiting = [], 0
        with space_errors(self._path):
            self._writer.write_table(table, row_group_size=self._row_group_rows)

    def close(self) -> None:
        """Writes what is left and the footer; the file is closed even if that fails."""
        try:
            if self._num_waiting:
                self._flush()
            with space_errors(self._path):
                self._writer.close()
                self._file.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Closes the file without finishing it, after an error; never raises."""
        self._waiting = []
        with suppress(Exception):  # the file is thrown away; the first error counts
            self._writer.close()
        with suppress(Exception):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@contextmanager
def space_errors(path: Path) -> Iterator[None]:
    """Turns a failed write into an error that names the file.

    Raises:
        LimitError: no space left.
        UnavailableError: another failure of the file system.
    """
    try:
        yield
    except AuguryError:
        raise
    except OSError as error:
        if error.errno in _NO_SPACE or "No space left" in str(error):
            raise LimitError(
                f"no space left while writing {path}: free some, or choose another output; "
                "nothing incomplete was published",
                path=str(path),
            ) from error
        raise UnavailableError(f"cannot write {path}: {error}", path=str(path)) from error
