"""Builds the forest kernel: as part of installing Augury, or by hand after its source changed.

    .venv/bin/python scripts/build_native.py

It needs a C compiler: the machine's (`cc`, `gcc` or `clang`), or else the one in the `ziglang`
wheel, which the package index has for every platform. Without either, or if compiling fails, Augury
is installed without the kernel and scores trees with the models' own libraries.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "augury" / "models" / "forest"
SOURCE = PACKAGE / "native"
LIBRARY = PACKAGE / "_forest.so"
_FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden",
    "-ffp-contract=off",  # a fused multiply-add rounds once where the libraries round twice
    "-fno-math-errno", "-Werror=implicit-function-declaration", "-Wall", "-Wextra",
    "-Wno-psabi", "-Wno-clobbered", "-Wno-unknown-warning-option",
)  # fmt: skip


def compiler() -> list[str] | None:
    """The command that compiles C on this machine."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if find_spec("ziglang") is not None:
        # zig would compile for this very processor; what is for which one is said below
        return [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline", "-fno-sanitize=all"]
    return None


def digest() -> str:
    """Names the source; the library carries it, so that a stale one is recognised."""
    files = sorted(path for path in SOURCE.iterdir() if path.suffix in {".c", ".h", ".inc"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def build() -> Path:
    """Compiles; the library appears whole.

    Raises:
        RuntimeError: there is no compiler, or it failed; says what it said.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler: install one (cc), or the package ziglang")
    wide = platform.machine() in {"x86_64", "AMD64"}
    defines = [f'-DFOREST_DIGEST="{digest()}"', *(["-DHAVE_AVX2"] if wide else [])]
    units = [("plan.c", []), ("transform.c", []), ("kernel.c", ["-DKERNEL=forest_run_baseline"])]
    if wide:
        units.append(("kernel.c", ["-mavx2", "-mno-vzeroupper", "-DKERNEL=forest_run_avx2"]))
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for number, (name, extra) in enumerate(units):
            objects.append(f"{folder}/{number}.o")
            source = str(SOURCE / name)
            _run([*command, *_FLAGS, *defines, *extra, "-c", source, "-o", objects[-1]])
        fresh = LIBRARY.with_name(f".{LIBRARY.name}.{Path(folder).name}")
        _run([*command, "-shared", *objects, "-o", str(fresh), "-lm"])
        fresh.replace(LIBRARY)  # processes that have the old one loaded keep it
    return LIBRARY


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object


class NativeBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Called by hatchling before it packs a wheel, editable ones included."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """A compiler, where the machine has none."""
        return [] if compiler() else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds and adds the library; without it the wheel is for every platform."""
        try:
            library = build()
        except (RuntimeError, OSError) as error:
            self.app.display_warning(f"Augury is installed without its forest kernel: {error}")
            return
        build_data["artifacts"].append(f"/{library.relative_to(ROOT)}")
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


if __name__ == "__main__":
    print(f"built {build().relative_to(ROOT)}")
