"""What is unpacked, and what never is. Files are made in temporary folders; nothing else is."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from augury.errors import AuguryError, CorruptError, InvalidError, LimitError
from augury.scripts.archive import Bounds, Member, faults_of, open_archive, remove_folder

_BOUNDS = Bounds(max_bytes=1_000_000, max_files=10, max_ratio=100, free_bytes=10_000)


def _zip(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


def _tar(path: Path, *infos: tarfile.TarInfo, content: bytes = b"", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info in infos:
            if info.isfile():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _info(name: str, **values: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in values.items():
        setattr(info, field, value)
    return info


def _unpack(path: Path, bounds: Bounds = _BOUNDS) -> Path:
    folder = path.parent / "out"
    folder.mkdir()
    with open_archive(path, path.name) as archive:
        archive.unpack(folder, bounds)
    return folder


def test_a_zip_comes_out_as_it_went_in(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"x/y.py": b"1", "z": b"2"}, {"x/l": "../z"})
    folder = _unpack(path)
    assert (folder / "x/y.py").read_bytes() == b"1"
    assert (folder / "x/l").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_a_tar_keeps_what_is_executable(tmp_path: Path, name: str, mode: str) -> None:
    infos = [
        _info("./run", mode=0o755),
        _info("d", type=tarfile.DIRTYPE),
        _info("d/f", mode=0o4644),
    ]
    folder = _unpack(_tar(tmp_path / name, *infos, content=b"text", mode=mode))
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "d/f").stat().st_mode) == 0o644


_ESCAPES: dict[str, Callable[[Path], Path]] = {
    "above": lambda p: _zip(p / "a.zip", {"../x": b""}),
    "absolute": lambda p: _zip(p / "a.zip", {"/x": b""}),
    "in the middle": lambda p: _zip(p / "a.zip", {"a/../../x": b""}),
    "drive": lambda p: _tar(p / "a.tar.gz", _info("C:/x")),
    "backslash": lambda p: _tar(p / "a.tar.gz", _info("..\\x")),
    "link out": lambda p: _zip(p / "a.zip", {}, {"l": "../x"}),
    "absolute link": lambda p: _tar(
        p / "a.tar.gz", _info("l", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    ),
    "through a link": lambda p: _zip(p / "a.zip", {"l/x": b""}, {"l": "d"}),
    "hard link": lambda p: _tar(
        p / "a.tar.gz", _info("l", type=tarfile.LNKTYPE, linkname="/etc/passwd")
    ),
    "device": lambda p: _tar(p / "a.tar.gz", _info("d", type=tarfile.CHRTYPE)),
    "pipe": lambda p: _tar(p / "a.tar.gz", _info("d", type=tarfile.FIFOTYPE)),
    "too many": lambda p: _zip(p / "a.zip", {f"{n}": b"" for n in range(11)}),
    "bomb": lambda p: _zip(p / "a.zip", {"x": b"0" * 900_000}),
    "too large": lambda p: _tar(p / "a.tar", _info("x"), content=b"0" * 1_000_001, mode="w"),
}


@pytest.mark.parametrize("case", _ESCAPES)
def test_nothing_comes_out_of_an_archive_that_is_refused(tmp_path: Path, case: str) -> None:
    path = _ESCAPES[case](tmp_path)
    with pytest.raises(InvalidError, match=r"not unpacked: .*expected"):
        _unpack(path)
    assert sorted(found.name for found in tmp_path.rglob("*")) == sorted([path.name, "out"])


def test_every_fault_is_named_up_to_some(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {f"../{n}": b"" for n in range(9)} | {"/a": b"", "/b": b""})
    with pytest.raises(InvalidError) as error:
        _unpack(path)
    assert len(error.value.faults) == 11
    assert "and 2 more" in str(error.value)


def test_what_an_archive_announces_is_not_believed(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"x": b"0" * 900_000})
    data = path.read_bytes()
    announced = (900_000).to_bytes(4, "little")
    path.write_bytes(data.replace(announced, (50).to_bytes(4, "little")))
    with pytest.raises(AuguryError) as error:
        _unpack(path)
    assert isinstance(error.value, CorruptError | LimitError)
    assert (tmp_path / "out" / "x").stat().st_size <= 20_000


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive at all")
    with pytest.raises(CorruptError, match="is no readable archive"):
        _unpack(tmp_path / name)


def test_an_archive_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar.gz", _info("x"), content=bytes(range(256)) * 1000)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CorruptError):
        _unpack(path)


def test_bounds_grow_with_the_archive() -> None:
    bounds = Bounds(max_bytes=100, max_ratio=10, free_bytes=20)
    assert [bounds.allowed_bytes(packed) for packed in (0, 1, 5, 50)] == [20, 20, 50, 100]
    members = [Member(name="x", kind="file", size_bytes=21)]
    assert faults_of(members, bounds, 2) != []
    assert faults_of(members, bounds, 3) == []


def test_a_folder_goes_whatever_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "locked").mkdir(parents=True)
    (folder / "locked" / "x").touch()
    (folder / "link").symlink_to(tmp_path)
    (folder / "locked").chmod(0)
    remove_folder(folder)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []
