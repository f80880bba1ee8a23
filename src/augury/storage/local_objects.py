"""Objects as files of a local folder.

A new object is written to a hidden file beside its place, brought to disk, renamed in one step that
refuses to replace anything, and the folder is brought to disk as well: a crash at any point leaves
the object whole or absent, and at most a hidden file that `sweep_stages` removes.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from augury import clock
from augury.errors import (
    AuguryError,
    ConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    UnavailableError,
)
from augury.storage.files import file_digest, make_folder, rename_exclusive, sync
from augury.storage.objects import (
    InputObject,
    ObjectInfo,
    changed,
    checked_key,
    checked_prefix,
    is_stage,
    stage_name,
)

if TYPE_CHECKING:
    from augury.storage.inputs import LocalInput

_log = logging.getLogger(__name__)


class LocalObjectStore:
    """Objects below one folder, which is made with the first object.

    Args:
        folder: an absolute path.
    """

    def __init__(self, folder: str) -> None:
        self._root = folder.rstrip("/") + "/"
        self.url = f"file://{self._root}"

    def uri(self, key: str) -> str:
        """See `ObjectStore.uri`."""
        return f"{self.url}{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`. Links are followed, except one that leads into itself."""
        start = checked_prefix(prefix)
        for key, found in _walk(self._root, start, ()):
            if not is_stage(key):
                yield self._info(key, found)

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        with self._translated(key):
            return self._info(key, self._regular(key))

    def read(self, key: str, *, tag: str | None = None) -> bytes:
        """See `ObjectStore.read`."""
        with self._translated(key), self._opened(key) as file:
            before = self._info(key, os.fstat(file.fileno()))
            _check(before, tag or before.tag)
            data = file.read()
            _check(self._info(key, os.fstat(file.fileno())), before.tag)
            return data

    def open(self, key: str, *, tag: str | None = None) -> InputObject:
        """See `ObjectStore.open`."""
        from augury.storage.inputs import LocalInput

        info = self.head(key)
        _check(info, tag or info.tag)
        with self._translated(key):
            opened = LocalInput.over(
                self._name(key), info, lambda: _check(self.head(key), info.tag)
            )
        self._check_opened(opened)
        return cast("InputObject", opened)

    def _check_opened(self, opened: LocalInput) -> None:
        try:
            opened.verify()  # it may have been replaced between the look and the opening
        except AuguryError:
            opened.close()
            raise

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> ObjectInfo:
        """See `ObjectStore.put`."""
        stage = self.stage(key)
        try:
            with self._translated(key), stage.open("xb") as file:
                file.write(data)
            return self._publish(key, stage, overwrite=overwrite)
        finally:
            stage.unlink(missing_ok=True)

    def stage(self, key: str) -> Path:
        """See `ObjectStore.stage`: a hidden file in the object's own folder."""
        folder = self._path(key).parent
        with self._translated(key):
            make_folder(folder)
        return folder / stage_name()

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """See `ObjectStore.put_file`."""
        with self._translated(key):
            info = self._publish(key, path, overwrite=False)
            path.unlink(missing_ok=True)
            return info

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`. The removal is on disk when this returns."""
        path = self._path(key)
        with self._translated(key):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError:
                if path.is_dir():  # which is no object; what the system says differs
                    return
                raise
            sync(path.parent)

    def sweep_stages(self, older_than_s: float) -> int:
        """See `ObjectStore.sweep_stages`."""
        limit = clock.utc_now().timestamp() - older_than_s
        removed = 0
        for key, found in _walk(self._root, "", ()):
            if is_stage(key) and found.st_mtime < limit:
                with self._translated(key):
                    Path(self._root + key).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _publish(self, key: str, path: Path, *, overwrite: bool) -> ObjectInfo:
        """Gives a file that is written its place; it may stay behind if nothing was to do."""
        target = self._path(key)
        with self._translated(key):
            if target.is_dir():
                raise ConflictError(f"{self.uri(key)} is a folder, expected an object", key=key)
            sync(path)
            if overwrite:
                path.replace(target)
            elif not self._rename(key, path, target):
                self._require_same(key, path)
                sync(target)  # whoever wrote it may have died before it was on disk
            sync(target.parent)
            return self._info(key, target.stat())

    def _rename(self, key: str, path: Path, target: Path) -> bool:
        """False if something is there already."""
        try:
            rename_exclusive(path, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return self._move_over(key, path, target)
        return True

    def _move_over(self, key: str, path: Path, target: Path) -> bool:
        """The file lies on another file system: it is copied to this one first."""
        stage = self.stage(key)
        try:
            shutil.copyfile(path, stage)
            sync(stage)
            return self._rename(key, stage, target)
        finally:
            stage.unlink(missing_ok=True)

    def _require_same(self, key: str, path: Path) -> None:
        ours, theirs = file_digest(path), file_digest(self._path(key))
        if ours != theirs:
            raise ConflictError(
                f"{self.uri(key)} is there already with other content: expected sha256 {ours}, "
                f"found {theirs}",
                key=key,
                expected=ours,
                found=theirs,
            )

    def _name(self, key: str) -> str:
        return self._root + checked_key(key)

    def _path(self, key: str) -> Path:
        return Path(self._name(key))

    def _regular(self, key: str) -> os.stat_result:
        """What the system says of a file, in one question: every shard asks several times."""
        name = self._name(key)
        found = os.stat(name)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a file", name)
        return found

    def _opened(self, key: str) -> BinaryIO:
        self._regular(key)
        return self._path(key).open("rb")

    def _info(self, key: str, found: os.stat_result) -> ObjectInfo:
        return ObjectInfo(
            uri=self.uri(key),
            key=key,
            size_bytes=found.st_size,
            tag=f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}",
            modified_at=datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1e6, UTC),
        )

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _translate(error, self.uri(key)) from error


def _translate(error: OSError, uri: str) -> AuguryError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LimitError(f"no space left for {uri} ({reason}); free some and try again", uri=uri)
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
        return InvalidError(f"{uri} cannot be a file here: {reason}", uri=uri)
    if isinstance(error, FileExistsError):
        return ConflictError(f"a file stands where {uri} needs a folder", uri=uri)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"there is no object {uri}", uri=uri)
    return UnavailableError(f"{uri} cannot be used: {reason}", uri=uri)


def _check(info: ObjectInfo, tag: str) -> None:
    if info.tag != tag:
        raise changed(info.uri, expected=tag, found=info.tag)


def _walk(
    root: str, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, os.stat_result]]:
    """Keys with what `stat` says, in order of key; what vanishes meanwhile is left out."""
    here = Path(root + prefix)
    try:
        own = here.stat()
        entries = _entries(here)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _translate(error, f"file://{here}") from error
    place = (own.st_dev, own.st_ino)
    if place in above:
        return
    for name, entry in entries:
        if name.endswith("/"):
            yield from _walk(root, prefix + name, (*above, place))
            continue
        with suppress(FileNotFoundError):
            found = entry.stat()
            if stat.S_ISREG(found.st_mode):
                yield prefix + name, found


def _entries(folder: Path) -> list[tuple[str, os.DirEntry[str]]]:
    """Sorted as their keys are: `a-b` comes before what is in the folder `a`."""
    with os.scandir(folder) as scanned:
        named = [(entry.name + ("/" if entry.is_dir() else ""), entry) for entry in scanned]
    return sorted(
        (pair for pair in named if _can_be_told(folder, pair[0])), key=lambda pair: pair[0]
    )


def _can_be_told(folder: Path, name: str) -> bool:
    """Events, manifests and URIs are UTF-8: a name that is not cannot be written in any."""
    try:
        name.encode()
    except UnicodeEncodeError:
        _log.warning(
            "left out a file whose name is not UTF-8: %r in %s",
            os.fsencode(name),
            folder,
            extra={"action": "object_name_unreadable"},
        )
        return False
    return True
