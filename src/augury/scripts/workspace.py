"""The fresh folder of one attempt, gone when the attempt is over.

A worker that was killed cannot remove its folders; each is locked by the process that uses it, so
any worker can tell those that nobody uses any more, and removes them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from augury.errors import LimitError
from augury.scripts.archive import remove_folder

_LOCK_SUFFIX = ".lock"
#: folder of temporary files within the working folder
TEMPORARY = ".tmp"


@contextmanager
def workspace(scratch: Path, name: str) -> Iterator[Path]:
    """A new, empty folder below `scratch`, with a folder for temporary files in it.

    Args:
        scratch: folder on a local disk for the working folders of this host.
        name: unlike any other's on this host.

    Raises:
        LimitError: it cannot be made.
    """
    folder = scratch / name
    held = _locked_folder(folder)
    try:
        yield folder
    finally:
        remove_folder(folder)
        _lock_of(folder).unlink(missing_ok=True)
        held.close()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK_SUFFIX}")


def _locked_folder(folder: Path) -> IO[str]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = _lock_of(folder).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_folder(folder)
        (folder / TEMPORARY).mkdir(parents=True)
    except OSError as error:
        raise LimitError(f"no working folder at {folder}: {error.strerror}") from error
    return held


def remove_abandoned(scratch: Path) -> int:
    """Removes the folders of workers that died; returns how many."""
    removed = 0
    for lock in scratch.glob(f"*{_LOCK_SUFFIX}"):
        with suppress(OSError), lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_folder(lock.with_suffix(""))
            lock.unlink(missing_ok=True)
            removed += 1
    return removed
