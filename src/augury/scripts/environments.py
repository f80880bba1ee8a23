"""Isolated Python environments: built once by uv from a `requirements.txt`, then found again.

An environment is known by what it follows from: the text of the file, the interpreter, and the
whole artifact if the text names files of it. The folder is shared by all processes of the host;
one builds, the others wait, and an environment counts only once it is complete.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from augury import clock, ids
from augury.errors import InvalidError, LimitError, UnavailableError
from augury.scripts.archive import remove_folder
from augury.scripts.variables import INHERITED
from augury.settings import passed_environment

REQUIREMENTS = "requirements.txt"
_COMPLETE = ".complete"
_BUILD_S = 1800.0
_POLL_S = 0.05
_SHOWN_CHARS = 1500
# requirements that mean files of the artifact
_LOCAL = re.compile(r"^\s*(-[rcef]|--|\.|/|[^#\s]*\s*@\s*file:|[^#\s]+\.(whl|zip|gz)\b)", re.M)


def environment_digest(requirements: bytes, artifact_digest: str) -> str:
    """What an environment follows from, as one digest."""
    local = artifact_digest if _LOCAL.search(requirements.decode(errors="replace")) else ""
    return ids.derived_id("env", requirements.hex(), sys.version, sys.executable, local)


class Environments:
    """The environments of this host.

    Args:
        folder: where they are kept; on a local disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "environments"

    def python(
        self, root: Path, artifact_digest: str, check: Callable[[], None]
    ) -> tuple[Path, float]:
        """The interpreter with what `requirements.txt` in `root` asks for.

        Args:
            root: the artifact's files.
            artifact_digest: of the artifact.
            check: called while building; what it raises ends the building.

        Returns:
            Its path, and the seconds that building took: 0.0 if it was there.

        Raises:
            InvalidError: the requirements cannot be installed; with uv's own words.
            UnavailableError: there is no uv on this host.
            LimitError: building takes too long.
        """
        from filelock import FileLock

        digest = environment_digest((root / REQUIREMENTS).read_bytes(), artifact_digest)
        target = self._folder / digest
        python = target / "bin" / "python"
        if (target / _COMPLETE).exists():
            return python, 0.0
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / f"{digest}.lock"):
            if (target / _COMPLETE).exists():
                return python, 0.0
            began_s = clock.monotonic_s()
            remove_folder(target)
            uv = find_uv()
            make = [uv, "venv", "--quiet", "--python", sys.executable, str(target)]
            run_checked(make, root, check)
            install = [uv, "pip", "install", "--quiet", "--python", str(python), "-r", REQUIREMENTS]
            run_checked(install, root, check)
            (target / _COMPLETE).touch()
            return python, clock.monotonic_s() - began_s


def find_uv() -> str:
    """Path of uv.

    Raises:
        UnavailableError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise UnavailableError(
            f"an artifact with {REQUIREMENTS} needs uv on every worker: "
            "pip install 'augury[scripts]'"
        )
    return found


def run_checked(command: list[str], folder: Path, check: Callable[[], None]) -> None:
    """Runs a command of ours in the artifact's folder.

    Raises:
        InvalidError: it failed.
        LimitError: it takes too long.
    """
    began_s = clock.monotonic_s()
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=passed_environment({"PATH", "HOME", *INHERITED}, "UV_", "PIP_"),
    ) as process:
        try:
            _wait(process, began_s, check)
        except BaseException:
            process.kill()
            raise
        assert process.stderr is not None  # a pipe was asked for
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise InvalidError(f"{REQUIREMENTS} cannot be installed: {said[-_SHOWN_CHARS:]}")


def _wait(process: subprocess.Popen[bytes], began_s: float, check: Callable[[], None]) -> None:
    while True:
        try:
            process.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            check()
            if clock.monotonic_s() - began_s > _BUILD_S:
                raise LimitError(
                    f"{REQUIREMENTS} could not be installed within {_BUILD_S:g} s"
                ) from None
