"""Objects in an S3 bucket, through obstore.

An object of S3 appears whole by itself; what is added here is that it appears only if none is there
(`If-None-Match: *`, which AWS, MinIO, Ceph, R2 and GCS know), that a read is of one content
(`If-Match` on every range), and that errors are ours. A large file is uploaded in parts under a
hidden key and then copied by the server, create-only, for parts alone cannot be.

What an interrupted upload in parts leaves behind is invisible and not ours to list: give the bucket
a lifecycle rule that aborts incomplete multipart uploads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from augury import clock
from augury.errors import (
    AuguryError,
    ConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    UnavailableError,
)
from augury.settings import Settings
from augury.storage.files import file_digest
from augury.storage.objects import (
    InputObject,
    ObjectInfo,
    changed,
    checked_key,
    checked_prefix,
    is_stage,
    stage_name,
)

LARGEST_SINGLE_PUT_BYTES = 64 * 2**20
_LARGEST_COPY_BYTES = 5 * 2**30
_PART_BYTES = 16 * 2**20
_LIST_CHUNK = 1000
_CONFLICT_ATTEMPTS = 5
_CLIENT: Any = {"connect_timeout": "3s", "timeout": "60s", "allow_http": True}
_RETRY: Any = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2.0,
    },
}


class S3ObjectStore:
    """Objects below one prefix of one bucket.

    Args:
        place: `bucket/prefix`, with or without a final `/`.
        settings: endpoint, region and credentials; without credentials the usual AWS chain.
    """

    def __init__(self, place: str, settings: Settings) -> None:
        self._bucket, _, prefix = place.partition("/")
        self._prefix = checked_prefix(prefix)
        self.url = f"s3://{self._bucket}/{self._prefix}"
        self._stage_dir = settings.effective_cache_dir / "stages"
        self._client = _client(
            os.getpid(),
            self._bucket,
            settings.s3_endpoint,
            settings.s3_region,
            settings.s3_access_key_id,
            settings.s3_secret_access_key,
        )

    def uri(self, key: str) -> str:
        """See `ObjectStore.uri`."""
        return f"{self.url}{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        for info in self._listed(prefix):
            if not is_stage(info.key):
                yield info

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        below = checked_prefix(prefix)
        with self._translated(below):
            for chunk in obstore.list(self._client, self._prefix + below, chunk_size=_LIST_CHUNK):
                for meta in chunk:
                    info = self._info(meta)
                    if info.size_bytes or not self._is_folder_mark(info.key):
                        yield info

    def _is_folder_mark(self, key: str) -> bool:
        """Consoles make an empty object `name/` for a folder; obstore lists it as `name`."""
        try:
            self.head(key)
        except NotFoundError:
            return True
        return False

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        path = self._path(key)
        with self._translated(key):
            return self._info(obstore.head(self._client, path))

    def read(self, key: str, *, tag: str | None = None) -> bytes:
        """See `ObjectStore.read`."""
        path = self._path(key)
        options: Any = {"if_match": f'"{tag}"'} if tag else {}
        with self._translated(key, tag):
            return bytes(obstore.get(self._client, path, options=options).bytes())

    def open(self, key: str, *, tag: str | None = None) -> InputObject:
        """See `ObjectStore.open`. Every read asks for the same content again."""
        from augury.storage.inputs import RangeInput

        info = self.head(key)
        self._check(info, tag or info.tag)
        return cast(
            "InputObject",
            RangeInput.over(
                info, self._fetcher(info), lambda: self._check(self.head(key), info.tag)
            ),
        )

    def _fetcher(self, info: ObjectInfo) -> Callable[[int, int], Any]:
        path = self._path(info.key)

        def fetch(start: int, end: int) -> Any:
            options: Any = {"range": (start, end), "if_match": f'"{info.tag}"'}
            with self._translated(info.key, info.tag):
                return obstore.get(self._client, path, options=options).bytes()

        return fetch

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> ObjectInfo:
        """See `ObjectStore.put`."""
        path = self._path(key)
        with self._translated(key):
            if overwrite:
                obstore.put(self._client, path, data)
                return self.head(key)
        digest = hashlib.sha256(data).hexdigest()
        return self._create(key, digest, lambda: self._put_new(path, data))

    def _put_new(self, path: str, data: bytes | Path) -> None:
        obstore.put(self._client, path, data, mode="create", use_multipart=False)

    def stage(self, key: str) -> Path:
        """See `ObjectStore.stage`: a file in the cache folder of this host."""
        checked_key(key)
        self._stage_dir.mkdir(parents=True, exist_ok=True)
        return self._stage_dir / stage_name()

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """See `ObjectStore.put_file`.

        Raises:
            LimitError: larger than 5 GiB, which S3 does not copy in one step.
        """
        size_bytes = path.stat().st_size
        if size_bytes > _LARGEST_COPY_BYTES:
            raise LimitError(
                f"{self.uri(key)} would have {size_bytes} bytes; at most {_LARGEST_COPY_BYTES} "
                "can be put at once: choose smaller shards",
                key=key,
            )
        target = self._path(key)
        if size_bytes <= LARGEST_SINGLE_PUT_BYTES:
            info = self._create(key, file_digest(path), lambda: self._put_new(target, path))
        else:
            info = self._put_large(key, target, path)
        path.unlink(missing_ok=True)
        return info

    def _put_large(self, key: str, target: str, path: Path) -> ObjectInfo:
        hidden = f"{target.rpartition('/')[0]}/{stage_name()}".lstrip("/")
        with self._translated(key):
            obstore.put(self._client, hidden, path, chunk_size=_PART_BYTES, max_concurrency=4)
        try:
            return self._create(
                key,
                file_digest(path),
                lambda: obstore.copy(self._client, hidden, target, overwrite=False),
            )
        finally:
            with self._translated(key):
                obstore.delete(self._client, hidden)

    def _create(self, key: str, digest: str, create: Callable[[], object]) -> ObjectInfo:
        for _ in range(_CONFLICT_ATTEMPTS):
            with self._translated(key):
                try:
                    create()
                    return self.head(key)
                except AlreadyExistsError:
                    pass
            try:
                return self._require_same(key, digest)
            except NotFoundError:  # it was deleted between the two looks
                continue
        raise UnavailableError(f"{self.uri(key)} comes and goes; try again", key=key)

    def _require_same(self, key: str, digest: str) -> ObjectInfo:
        info = self.head(key)
        found = hashlib.sha256()
        with self._translated(key, info.tag):
            options: Any = {"if_match": f'"{info.tag}"'}
            for block in obstore.get(self._client, self._path(key), options=options).stream():
                found.update(block)
        if found.hexdigest() != digest:
            raise ConflictError(
                f"{info.uri} is there already with other content: expected sha256 {digest}, "
                f"found {found.hexdigest()}",
                key=key,
                expected=digest,
                found=found.hexdigest(),
            )
        return info

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        path = self._path(key)
        try:
            with self._translated(key):
                obstore.delete(self._client, path)
        except NotFoundError:
            return

    def sweep_stages(self, older_than_s: float) -> int:
        """See `ObjectStore.sweep_stages`: hidden keys, and files staged on this host."""
        limit = clock.utc_now() - timedelta(seconds=older_than_s)
        left = [
            info.key for info in self._listed("") if is_stage(info.key) and info.modified_at < limit
        ]
        for key in left:
            self.delete(key)
        return len(left) + _sweep_folder(self._stage_dir, limit.timestamp())

    def _path(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _info(self, meta: Any) -> ObjectInfo:
        key = meta["path"].removeprefix(self._prefix)
        return ObjectInfo(
            uri=self.uri(key),
            key=key,
            size_bytes=meta["size"],
            tag=_tag(meta),
            modified_at=meta["last_modified"],
        )

    def _check(self, info: ObjectInfo, tag: str) -> None:
        if info.tag != tag:
            raise changed(info.uri, expected=tag, found=info.tag)

    @contextmanager
    def _translated(self, key: str, tag: str | None = None) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._translate(error, key, tag) from error

    def _translate(self, error: Exception, key: str, tag: str | None) -> AuguryError:
        uri = self.uri(key)
        if isinstance(error, PreconditionError) and tag:
            return changed(uri, expected=tag, found=self._present_tag(key))
        if "NoSuchBucket" in str(error):
            return NotFoundError(f"there is no bucket {self._bucket!r}; create it", uri=uri)
        if isinstance(error, FileNotFoundError):
            return NotFoundError(f"there is no object {uri}", uri=uri)
        if isinstance(error, InvalidPathError):
            return InvalidError(f"a key at {uri} cannot be read: {_reason(error)}", uri=uri)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return UnavailableError(
                f"access to {uri} was refused; check AUGURY_S3_ACCESS_KEY_ID and the bucket's "
                f"policy ({_reason(error)})",
                uri=uri,
            )
        return UnavailableError(f"{uri} did not answer: {_reason(error)}", uri=uri)

    def _present_tag(self, key: str) -> str:
        try:
            return self.head(key).tag
        except AuguryError:
            return "nothing"


def _tag(meta: Any) -> str:
    return str(meta["e_tag"] or "").removeprefix('"').removesuffix('"')


def _reason(error: Exception) -> str:
    """Obstore's messages end with a dump of Rust's structures."""
    return str(error).partition("\n\nDebug source")[0].strip()[:500]


def _sweep_folder(folder: Path, older_than: float) -> int:
    if not folder.is_dir():
        return 0
    left = [p for p in folder.iterdir() if is_stage(p.name) and p.stat().st_mtime < older_than]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


@lru_cache(maxsize=64)
def _client(
    _process: int, bucket: str, endpoint: str, region: str, key_id: str, secret: str
) -> S3Store:
    """One per process and bucket: connections are pooled, and do not survive a fork."""
    given: dict[str, Any] = {"region": region}
    if endpoint:
        given["endpoint"] = endpoint
    if key_id:
        given |= {"access_key_id": key_id, "secret_access_key": secret}
    return S3Store(
        bucket,
        client_options=_CLIENT,
        retry_config=_RETRY,
        copy_if_not_exists="multipart",
        conditional_put="etag",
        **given,
    )
