"""The object store as the rest of Augury sees it: whole objects, create-only, with identity.

A store is a tree of objects below one URI prefix. Keys are relative to it. An object appears whole
or not at all, is on disk (or with the server) when `put` returns, and is never overwritten unless
that is asked for: the same content again is a success, so a repeated or late writer does no harm,
and other content is an error that names both. The *tag* tells one content of a key from another
(ETag on S3; size, mtime, ctime and inode locally), and `{uri}#{tag}` is the object's identity.

URIs are plain text: nothing in them is percent-encoded or decoded (`file:///a b/100%.parquet`), and
joining a store's `url` and a key gives the object's URI. Local paths are made absolute, `..` in
them is resolved as text, symbolic links are left alone.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from augury.errors import IdentityError, InvalidError
from augury.ids import new_id

if TYPE_CHECKING:
    from augury.settings import Settings

_STAGE_PREFIX = ".augury-"
_STAGE_SUFFIX = ".tmp"
_LONGEST_KEY_BYTES = 1024
_MOST_STORES = 256


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as it was when it was looked at.

    Attributes:
        uri: the store's url and the key, joined.
        key: relative to the store, `/`-separated.
        size_bytes: size of the content.
        tag: tells this content from any other that the key had or will have.
        modified_at: when the content came to be, by the store's clock.
    """

    uri: str
    key: str
    size_bytes: int
    tag: str
    modified_at: datetime

    @property
    def identity(self) -> str:
        """`{uri}#{tag}`: this content at this place."""
        return f"{self.uri}#{self.tag}"


class InputObject(Protocol):
    """An open object: a `pyarrow.NativeFile`, which everything in pyarrow that reads accepts.

    Random access; reads of several threads are safe. A read that the store can prove to be of
    other content than `info` raises IdentityError at once; `verify` proves it for all before.
    """

    info: ObjectInfo

    def verify(self) -> None:
        """Call after the last byte.

        Raises:
            IdentityError: the key has other content by now; what was read may be a mixture.
            NotFoundError: the object was deleted meanwhile.
            UnavailableError: the store did not answer.
        """
        ...

    def read(self, nbytes: int | None = None) -> bytes:
        """Up to `nbytes` bytes from the present position; all that follow if None."""
        ...

    def seek(self, position: int, whence: int = 0) -> int:
        """Moves the position, as Python's files do."""
        ...

    def tell(self) -> int:
        """The present position in bytes."""
        ...

    def size(self) -> int:
        """Size of the object in bytes."""
        ...

    def close(self) -> None:
        """Closes; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any: ...


class ObjectStore(Protocol):
    """A tree of objects below one URI prefix. Safe to share among threads, not across a fork.

    Every method raises UnavailableError when the store does not answer or refuses access, and
    InvalidError for a key that is empty, absolute, or has an empty, `.` or `..` segment.
    """

    url: str

    def uri(self, key: str) -> str:
        """The object's URI; `""` gives the store's own."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix` (with or without a final `/`), in order of key.

        Temporary files of ours never show; a folder that does not exist holds nothing. Not a
        snapshot: objects that come or go meanwhile may or may not be seen.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Looks at one object.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def read(self, key: str, *, tag: str | None = None) -> bytes:
        """The whole content.

        Raises:
            NotFoundError: there is no such object.
            IdentityError: its content is not (or ceased to be) that of `tag`.
        """
        ...

    def open(self, key: str, *, tag: str | None = None) -> InputObject:
        """Opens for random access; of the content `tag`, or of the present one.

        Raises:
            NotFoundError: there is no such object.
            IdentityError: its content is not that of `tag`.
        """
        ...

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> ObjectInfo:
        """Writes an object, whole or not at all; it is durable when this returns.

        Idempotent: identical content that is there already is a success and stays untouched.

        Args:
            key: where.
            data: what.
            overwrite: replace other content instead of refusing.

        Raises:
            ConflictError: other content is there; attributes `expected` and `found` are digests.
            LimitError: no space left.
        """
        ...

    def stage(self, key: str) -> Path:
        """A local path that does not exist, to write `key`'s content to; then `put_file` it.

        What is never put is removed by `sweep_stages`.
        """
        ...

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Publishes a file, with the promise of a create-only `put`, and removes `path`.

        After an error the file may still be there; removing it is the caller's business.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is fine."""
        ...

    def sweep_stages(self, older_than_s: float) -> int:
        """Removes what writers that died left behind, if untouched for that long.

        Returns:
            Number of temporary files removed.
        """
        ...


def open_store(url: str, settings: Settings) -> ObjectStore:
    """The store at `url`; opening touches nothing and creates nothing.

    Args:
        url: `file:///folder`, `s3://bucket/prefix`, or a path, relative to the working folder.
        settings: say how S3 is reached.

    Raises:
        InvalidError: not such an address.
    """
    scheme, rest = split_url(url)
    if scheme == "file":
        from augury.storage.local_objects import LocalObjectStore

        return LocalObjectStore(rest)
    from augury.storage.s3_objects import S3ObjectStore

    return S3ObjectStore(rest, settings)


_located: OrderedDict[tuple[object, ...], ObjectStore] = OrderedDict()
_located_lock = threading.Lock()


def locate(uri: str, settings: Settings) -> tuple[ObjectStore, str]:
    """The store that holds an object or a prefix, and the key or prefix in it.

    `store.uri(key)` is the canonical form of `uri`. A URI that ends in `/`, and a local path that
    is a folder, are prefixes: the store is opened there and the key is "" (S3 keeps the prefix as
    a key, for one store serves the whole bucket). Stores are kept, so this is cheap to call.

    Raises:
        InvalidError: not an address that `open_store` understands.
    """
    scheme, rest = split_url(uri)
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        return _kept(f"s3://{bucket}/", settings), key
    if uri.endswith("/") or Path(rest).is_dir():
        return _kept(f"file://{rest}", settings), ""
    folder, _, name = rest.rpartition("/")
    return _kept(f"file://{folder}/", settings), name


def _kept(url: str, settings: Settings) -> ObjectStore:
    reach = (settings.s3_endpoint, settings.s3_region, settings.s3_access_key_id)
    secret = settings.s3_secret_access_key
    name = (os.getpid(), *reach, secret, settings.effective_cache_dir, url)  # none outlives a fork
    with _located_lock:
        if name not in _located:
            _located[name] = open_store(url, settings)
            if len(_located) > _MOST_STORES:
                _located.popitem(last=False)
        _located.move_to_end(name)
        return _located[name]


def canonical_url(url: str) -> str:
    """The one way to write this address: absolute, with scheme, without a final `/` added.

    Raises:
        InvalidError: not an address that `open_store` understands.
    """
    scheme, rest = split_url(url)
    return f"{scheme}://{rest}"


def split_url(url: str) -> tuple[str, str]:
    """Scheme (`file` or `s3`) and the rest: an absolute path, or `bucket/key`.

    A final `/` is kept.

    Raises:
        InvalidError: another scheme, or nothing behind it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url or "\x00" in url:
            raise InvalidError(f"expected a path or URI, found {url!r}")
        return "file", _absolute(url)
    if scheme == "file" and rest.startswith("/") and "\x00" not in rest:
        return scheme, _absolute(rest)
    if scheme == "s3" and not rest.startswith("/") and rest:
        return scheme, rest if "/" in rest else f"{rest}/"
    raise InvalidError(
        f"expected file:///absolute/path, s3://bucket/prefix or a local path, found {url!r}"
    )


def _absolute(path: str) -> str:
    found = os.path.abspath(path)  # noqa: PTH100 - as text: pathlib would follow links
    return f"{found.rstrip('/')}/" if path.endswith("/") else found


def checked_key(key: str) -> str:
    """The key itself, if it stays below its store on every kind of store.

    Raises:
        InvalidError: it does not.
    """
    segments = key.split("/")
    if {"", ".", ".."} & set(segments) or "\x00" in key:
        raise InvalidError(
            f"expected a key relative to the store, without empty, '.' or '..' segments, "
            f"found {key!r}",
            key=key,
        )
    if len(key.encode(errors="surrogateescape")) > _LONGEST_KEY_BYTES:
        raise InvalidError(f"expected a key of at most {_LONGEST_KEY_BYTES} bytes, found {key!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """The folder's key with a final `/`, or "" for the whole store.

    Raises:
        InvalidError: it leads out of the store.
    """
    bare = prefix.removesuffix("/")
    return f"{checked_key(bare)}/" if bare else ""


def stage_name() -> str:
    """Name of a temporary file of ours, unique and hidden."""
    return f"{_STAGE_PREFIX}{new_id('stage')}{_STAGE_SUFFIX}"


def is_stage(key: str) -> bool:
    """True if the key's last segment is the name of a temporary file of ours."""
    name = key.rpartition("/")[2]
    return name.startswith(_STAGE_PREFIX) and name.endswith(_STAGE_SUFFIX)


def changed(uri: str, *, expected: str, found: str) -> IdentityError:
    """The error that says that an object is not the one that was meant."""
    return IdentityError(
        f"{uri} has other content than planned: expected tag {expected}, found {found}",
        uri=uri,
        expected=expected,
        found=found,
    )
