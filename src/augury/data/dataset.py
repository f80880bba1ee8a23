"""Finding the files of a data set, and reading their footers without reading a row.

A data set is a list of inputs: objects, or prefixes below which every `*.parquet` object counts.
Names that begin with `_` or `.` (at any level below the prefix) are skipped, as every reader of
such folders does: manifests, rejects and temporary files live there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augury.errors import AuguryError, CorruptError, IdentityError, NotFoundError, UnavailableError
from augury.storage.objects import InputObject, ObjectInfo, ObjectStore, changed, locate

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

    from augury.settings import Settings

SUFFIX = ".parquet"


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A row group as its footer describes it; `size_bytes` counts the asked-for columns only."""

    num_rows: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What a Parquet footer says."""

    schema: pa.Schema
    row_groups: tuple[RowGroup, ...]

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return sum(group.num_rows for group in self.row_groups)

    @property
    def size_bytes(self) -> int:
        """Compressed bytes of the asked-for columns."""
        return sum(group.size_bytes for group in self.row_groups)


# --- discovery ------------------------------------------------------------------------------------


def discover(inputs: Sequence[tuple[str, str | None]], settings: Settings) -> list[ObjectInfo]:
    """The objects of a data set, sorted by URI, each once.

    Args:
        inputs: (URI, content tag that the object must have or None). A URI names an object, or a
            prefix if it ends in `/` or if no object but a folder has that name.
        settings: for access to the stores.

    Returns:
        Possibly none, if a prefix exists and is empty (on S3 every prefix exists).

    Raises:
        NotFoundError: no such object or folder, or a folder with objects none of which is Parquet.
        IdentityError: an object's content is not the one that its input's tag names, or it is
            gone by now.
    """
    found: dict[str, ObjectInfo] = {}
    for uri, tag in inputs:
        for info in _objects(uri, tag, settings):
            if tag is not None and info.tag != tag:
                raise changed(info.uri, expected=tag, found=info.tag)
            found[info.uri] = info
    return [found[uri] for uri in sorted(found)]


def _objects(uri: str, tag: str | None, settings: Settings) -> list[ObjectInfo]:
    try:
        return _found(uri, settings)
    except NotFoundError:
        if tag is None:
            raise
        raise _gone(uri, tag) from None


def _found(uri: str, settings: Settings) -> list[ObjectInfo]:
    store, key = locate(uri, settings)
    if key and not key.endswith("/"):
        try:
            return [store.head(key)]
        except NotFoundError:
            listed = [] if _is_local(store) else _listed(store, f"{key}/")
            if not listed:
                raise
            return listed
    if _is_local(store) and not Path(store.url.removeprefix("file://")).is_dir():
        raise NotFoundError(f"there is no folder {store.url}", uri=store.url)
    return _listed(store, key)


def _is_local(store: ObjectStore) -> bool:
    return store.url.startswith("file://")


def _listed(store: ObjectStore, prefix: str) -> list[ObjectInfo]:
    others: list[str] = []
    kept: list[ObjectInfo] = []
    for info in store.list(prefix):
        if _hidden(info.key.removeprefix(prefix)):
            continue
        if info.key.endswith(SUFFIX):
            kept.append(info)
        else:
            others.append(info.key)
    if others and not kept:
        raise NotFoundError(
            f"expected {SUFFIX} objects below {store.uri(prefix)}, found {len(others)} others, "
            f"such as {others[0]!r}",
            uri=store.uri(prefix),
        )
    return kept


def _hidden(relative_key: str) -> bool:
    return any(part.startswith(("_", ".")) for part in relative_key.split("/"))


# --- opening --------------------------------------------------------------------------------------


def _gone(uri: str, tag: str) -> IdentityError:
    return changed(uri, expected=tag, found="nothing: it was deleted")


@contextmanager
def open_planned(uri: str, tag: str, settings: Settings) -> Iterator[InputObject]:
    """Opens an object whose identity was planned; what it is *now* is checked.

    Raises:
        IdentityError: it was replaced or deleted since.
    """
    store, key = locate(uri, settings)
    try:
        source = store.open(key, tag=tag)
    except NotFoundError:
        raise _gone(uri, tag) from None
    with source:
        yield source


def verify(source: InputObject, uri: str, tag: str) -> None:
    """Checks after the last byte that the object is still the planned one.

    Raises:
        IdentityError: it was replaced or deleted while being read.
    """
    try:
        source.verify()
    except NotFoundError:
        raise _gone(uri, tag) from None


@contextmanager
def parquet_errors(source: InputObject, uri: str, tag: str) -> Iterator[None]:
    """Turns what Arrow raises while reading `source` into an error that names the file.

    A file that was replaced under the reader looks corrupt: then the identity is what is reported.

    Raises:
        CorruptError: the bytes are not what Parquet allows.
        IdentityError: the object was replaced or deleted.
        UnavailableError: the store failed.
    """
    import pyarrow as pa

    try:
        yield
    except AuguryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        verify(source, uri, tag)
        if isinstance(error, OSError) and error.errno is not None:
            raise UnavailableError(f"cannot read {uri}: {error}", uri=uri) from error
        raise CorruptError(f"{uri} is not a sound Parquet file: {error}", uri=uri) from error


# --- footers --------------------------------------------------------------------------------------


def read_footer(
    info: ObjectInfo, settings: Settings, columns: Iterable[str] | None = None
) -> Footer:
    """Reads a file's schema and the sizes of its row groups; no page is touched.

    Args:
        info: the object, with the identity that it must still have.
        settings: for access to its store.
        columns: count only these columns' bytes; None: all.

    Raises:
        CorruptError: not a Parquet file.
        IdentityError: replaced or deleted since `info` was made.
    """
    from pyarrow import parquet as pq

    with (
        open_planned(info.uri, info.tag, settings) as source,
        parquet_errors(source, info.uri, info.tag),
    ):
        metadata = pq.ParquetFile(source).metadata
        schema = metadata.schema.to_arrow_schema()
        return Footer(schema=schema, row_groups=tuple(_row_groups(metadata, columns)))


def _row_groups(metadata: pq.FileMetaData, columns: Iterable[str] | None) -> Iterator[RowGroup]:
    wanted = column_indices(metadata, columns)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size_bytes = sum(group.column(index).total_compressed_size for index in wanted)
        yield RowGroup(num_rows=group.num_rows, size_bytes=size_bytes)


def column_indices(metadata: pq.FileMetaData, columns: Iterable[str] | None) -> list[int]:
    """Numbers of the leaf columns that belong to the named top-level columns; None: all."""
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if columns is None:
        return list(range(len(paths)))
    names = set(columns)
    return [
        index
        for index, path in enumerate(paths)
        if path in names or path.partition(".")[0] in names
    ]
