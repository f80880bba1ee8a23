"""Steps on local files that a crash cannot undo half-way.

Linux and macOS rename without replacing in one step. The way around, a second hard link and the
removal of the first, is for file systems that cannot: there the file's ctime changes once more
after it became visible, so whoever watches may take it for changed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCL = 4
_NOT_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

type _Rename = Callable[[bytes, bytes], int]


def rename_exclusive(source: Path, target: Path) -> None:
    """Renames within one file system.

    Raises:
        FileExistsError: `target` is there already; nothing has changed.
        OSError: as `os.rename`.
    """
    native = _native()
    if native is not None:
        if native(os.fsencode(source), os.fsencode(target)) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_HERE:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    link_exclusive(source, target)


def link_exclusive(source: Path, target: Path) -> None:
    """The way around; a crash in the middle leaves both names."""
    target.hardlink_to(source)
    source.unlink()


@cache
def _native() -> _Rename | None:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        return lambda old, new: int(
            library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE)
        )
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda old, new: int(library.renamex_np(old, new, _RENAME_EXCL))
    return None


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each durably; one that is there is fine.

    Raises:
        FileExistsError: a file is in the way.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "a file is in the way", str(folder))
    sync(folder.parent)


def sync(path: Path) -> None:
    """Brings a file's content, or a folder's entries, to disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
