"""Unpacking what strangers packed: zip and tar, with nothing outside the folder.

Every member is judged before anything is written: its name must stay below the folder, it must be a
file, a folder or a link that stays inside, and all of them together must keep to the bounds. What
an archive announces is not believed: bytes are counted while they are written, so a bomb stops at
the bound. All faults of the members are named, not only the first.
"""

from __future__ import annotations

import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

from augury.errors import CorruptError, Fault, InvalidError, LimitError

_CHUNK_BYTES = 2**20
_MOST_NAMED = 10
_MAX_NAME_BYTES = 255
_EXECUTABLE = 0o111
# what the libraries raise for bytes that are no archive, or one that was cut off
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
    OSError,
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much an archive may hold once unpacked (inclusive)."""

    max_bytes: int = 16 * 2**30
    max_files: int = 100_000
    # text packs by a factor of 20 or so; zeros by 1,000
    max_ratio: int = 200
    # small archives may pack as well as they like
    free_bytes: int = 64 * 2**20

    def allowed_bytes(self, packed_bytes: int) -> int:
        """Most bytes that an archive of this size may unpack to."""
        return min(self.max_bytes, max(self.free_bytes, packed_bytes * self.max_ratio))


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: as the archive says it, `/` between its parts.
        kind: `file`, `folder`, `link` or what it is instead.
        size_bytes: as the archive announces it.
        is_executable: whether its mode says so.
        link: target of a symbolic link, relative to the link's own folder.
        handle: what the library knows it by.
    """

    name: str
    kind: str
    size_bytes: int = 0
    is_executable: bool = False
    link: str = ""
    handle: Any = None

    @property
    def path(self) -> str:
        """The name without `./` and the like."""
        return posixpath.normpath(self.name)


def faults_of(members: list[Member], bounds: Bounds, packed_bytes: int) -> list[Fault]:
    """Everything that speaks against unpacking; pure."""
    faults = [
        Fault(path=member.name, message=why) for member in members if (why := _objection(member))
    ]
    faults += _through_links(members)
    files = [member for member in members if member.kind != "folder"]
    if len(files) > bounds.max_files:
        message = f"expected at most {bounds.max_files} files, found {len(files)}"
        faults.append(Fault(path="", message=message))
    announced = sum(member.size_bytes for member in files)
    allowed = bounds.allowed_bytes(packed_bytes)
    if announced > allowed:
        message = (
            f"expected at most {allowed} bytes unpacked from {packed_bytes} packed ones, found "
            f"{announced}"
        )
        faults.append(Fault(path="", message=message))
    return faults


def _objection(member: Member) -> str:
    """Why a member may not be unpacked; empty if it may."""
    if why := _name_objection(member.name):
        return why
    if member.kind == "link":
        target = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.link))
        if member.link.startswith("/") or target == ".." or target.startswith("../"):
            return f"expected a link that stays inside the archive, found one to {member.link!r}"
        return ""
    if member.kind not in {"file", "folder"}:
        return f"expected a file, a folder or a link, found a {member.kind}"
    return ""


def _name_objection(name: str) -> str:
    parts = name.split("/")
    if not name or "\x00" in name or "\\" in name:
        return f"expected a path with / between its parts, found {name!r}"
    if name.startswith("/") or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "expected a path below the archive's root, found one that leads out of it"
    if any(len(part.encode(errors="surrogateescape")) > _MAX_NAME_BYTES for part in parts):
        return f"expected names of at most {_MAX_NAME_BYTES} bytes"
    return ""


def _through_links(members: list[Member]) -> Iterator[Fault]:
    """Members below a link of the same archive would be written to where it points."""
    links = {member.path for member in members if member.kind == "link"}
    for member in members:
        parents = member.path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in links:
                message = "expected a folder above it, found a link"
                yield Fault(path=member.name, message=message)
                break


class Archive:
    """An archive that is open for reading. Made by `open_archive`."""

    def __init__(self, file: zipfile.ZipFile | tarfile.TarFile, packed_bytes: int) -> None:
        self._file = file
        self._packed_bytes = packed_bytes
        self.members = list(_zip_members(file) if _is_zip(file) else _tar_members(file))

    def check(self, bounds: Bounds) -> None:
        """Judges all members.

        Raises:
            InvalidError: with every fault, up to some.
        """
        faults = faults_of(self.members, bounds, self._packed_bytes)
        if faults:
            more = len(faults) - _MOST_NAMED
            if more > 0:
                faults = [*faults[:_MOST_NAMED], Fault(path="", message=f"and {more} more")]
            raise InvalidError("this archive is not unpacked", faults=faults)

    def files(self) -> frozenset[str]:
        """Paths of all files and links."""
        return frozenset(member.path for member in self.members if member.kind != "folder")

    def read(self, path: str, max_bytes: int) -> bytes:
        """The beginning of a file, at most `max_bytes`.

        Raises:
            CorruptError: it cannot be read.
        """
        member = next(m for m in self.members if m.path == path and m.kind == "file")
        with _reading(path), self._stream(member) as source:
            return source.read(max_bytes)

    def unpack(self, folder: Path, bounds: Bounds) -> None:
        """Writes all members below `folder`, which must exist and should be empty.

        Raises:
            InvalidError: see `check`; nothing was written.
            LimitError: more came out than was announced, or the disk is full.
            CorruptError: the archive is damaged.
        """
        self.check(bounds)
        left = bounds.allowed_bytes(self._packed_bytes)
        for member in sorted(self.members, key=lambda member: member.kind == "link"):
            target = folder / member.path
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.kind == "link":
                target.unlink(missing_ok=True)
                target.symlink_to(member.link)
            else:
                left -= self._write(member, target, left)

    def _write(self, member: Member, target: Path, left: int) -> int:
        """Writes one file of at most `left` bytes; returns its size."""
        written = 0
        with _reading(member.name), self._stream(member) as source, _creating(target) as sink:
            while chunk := source.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > left:
                    raise LimitError(
                        f"{member.name} unpacks to more than it announces: stopped at the bound "
                        f"for all files together, {left} bytes before it"
                    )
                sink.write(chunk)
        target.chmod(0o755 if member.is_executable else 0o644)
        return written

    def _stream(self, member: Member) -> IO[bytes]:
        if isinstance(self._file, zipfile.ZipFile):
            return self._file.open(member.handle)
        found = self._file.extractfile(member.handle)
        if found is None:
            raise CorruptError(f"{member.name} has no content")
        return found


def _is_zip(file: zipfile.ZipFile | tarfile.TarFile) -> bool:
    return isinstance(file, zipfile.ZipFile)


@contextmanager
def open_archive(path: Path, name: str) -> Iterator[Archive]:
    """Opens an archive by the ending of its name.

    Args:
        path: the file.
        name: what it is called, for example `job.tar.gz`.

    Raises:
        CorruptError: it is no such archive.
    """
    with ExitStack() as stack:
        with _reading(name):
            is_zip = name.lower().endswith(".zip")
            file: Any = stack.enter_context(
                zipfile.ZipFile(path) if is_zip else tarfile.open(path)  # noqa: SIM115 - the stack's
            )
            archive = Archive(file, path.stat().st_size)
        yield archive


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise LimitError(f"{name} cannot be unpacked: {error.strerror}") from error
        raise CorruptError(f"{name} is no readable archive: {error}") from error
    except RuntimeError as error:  # zipfile: encrypted
        raise InvalidError(f"{name}: expected an archive without a password: {error}") from error


def _creating(target: Path) -> IO[bytes]:
    """A new file; one that is there (or a link to somewhere) goes first."""
    target.unlink(missing_ok=True)
    return target.open("xb")


def _zip_members(file: Any) -> Iterator[Member]:
    for info in file.infolist():
        mode = info.external_attr >> 16
        kind = "folder" if info.is_dir() else "file"
        link = ""
        if stat.S_ISLNK(mode):
            kind, link = "link", file.read(info)[:4096].decode(errors="replace")
        yield Member(
            name=info.filename.rstrip("/") if info.is_dir() else info.filename,
            kind=kind,
            size_bytes=info.file_size,
            is_executable=bool(mode & _EXECUTABLE),
            link=link,
            handle=info,
        )


def _tar_members(file: Any) -> Iterator[Member]:
    for info in file:
        yield Member(
            name=info.name,
            kind=_tar_kind(info),
            size_bytes=info.size,
            is_executable=bool(info.mode & _EXECUTABLE),
            link=info.linkname if info.issym() else "",
            handle=info,
        )


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    if info.issym():
        return "link"
    if info.islnk():
        return "hard link"
    return "file" if info.isfile() else "device or pipe"


def remove_folder(folder: Path) -> None:
    """Removes a folder whatever is in it, also what its owner made unreadable."""
    for path, folders, _ in folder.walk():
        for name in folders:
            inner = path / name
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
