"""What a run leaves in `OUTPUT_DIR`, on its way to `OUTPUT_URI`.

Regular files only: a link may point anywhere on the host, so it is left out and counted. An object
that is there already (an earlier attempt's, or where the job says where to write) is replaced.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from augury.errors import ConflictError, InvalidError
from augury.settings import Settings
from augury.storage.objects import ObjectStore, open_store


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """How much was uploaded, and how many entries were left out (links, pipes)."""

    num_files: int
    size_bytes: int
    num_left_out: int


def output_folder(home: Path, path: str) -> Path:
    """The folder to upload.

    Raises:
        InvalidError: it is not below the run's working folder.
    """
    folder = Path(os.path.normpath(home / path))
    if not folder.is_relative_to(home):
        raise InvalidError(f"expected OUTPUT_DIR below the run's working folder, found {path!r}")
    return folder


def upload(folder: Path, uri: str, settings: Settings, check: Callable[[], None]) -> Uploaded:
    """Uploads all files below a folder; a folder that is not there holds none.

    Args:
        folder: on this host.
        uri: prefix; the files' relative paths follow it.
        settings: say how the store is reached.
        check: called before each file; what it raises ends the uploading.

    Raises:
        UnavailableError: the store did not answer.
        InvalidError: the URI or a file's name is none that the store can have.
    """
    store = open_store(uri.rstrip("/") + "/", settings)
    num_files = size_bytes = num_left_out = 0
    for path in _entries(folder):
        check()
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            num_left_out += 1
            continue
        _put(store, path.relative_to(folder).as_posix(), path)
        num_files += 1
        size_bytes += found.st_size
    return Uploaded(num_files=num_files, size_bytes=size_bytes, num_left_out=num_left_out)


def _entries(folder: Path) -> Iterator[Path]:
    """Everything but folders, in order of name."""
    if folder.is_symlink():
        return
    for path, folders, names in folder.walk():
        folders.sort()
        yield from (path / name for name in sorted(names))
        yield from (path / name for name in folders if (path / name).is_symlink())


def _put(store: ObjectStore, key: str, path: Path) -> None:
    for _ in range(2):
        staged = store.stage(key)
        try:
            shutil.copyfile(path, staged, follow_symlinks=False)
            store.put_file(key, staged)
            return
        except ConflictError:
            store.delete(key)
        finally:
            staged.unlink(missing_ok=True)
    raise ConflictError(f"{store.uri(key)} is being written by somebody else, too")
