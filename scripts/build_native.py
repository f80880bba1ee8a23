"""Builds the kernels: as part of installing Augury, or by hand after their sources changed.

    .venv/bin/python scripts/build_native.py

It needs a C compiler: the machine's (`cc`, `gcc` or `clang`), or else the one in the `ziglang`
wheel, which the package index has for every platform. Without either, or if compiling fails, Augury
is installed without the kernels and scores with the models' own libraries.
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
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "src" / "augury" / "models"
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


class Kernel(NamedTuple):  # no dataclass: hatchling runs this file without naming it a module
    """A library of one package: `{name}/native/*.c` becomes `{name}/_{name}.so`.

    Attributes:
        name: the package's.
        once: sources that are compiled once.
        passes: the source that is compiled once for each instruction set.
        functions: macros of `passes` that name its functions; the set's name is added to the value.
        flags: of the sets above the baseline, besides the set's own.
    """

    name: str
    once: tuple[str, ...]
    passes: str
    functions: dict[str, str]
    flags: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        """The folder of the sources."""
        return MODELS / self.name / "native"

    @property
    def library(self) -> Path:
        """What is built."""
        return MODELS / self.name / f"_{self.name}.so"

    def digest(self) -> str:
        """Names the source; the library carries it, so that a stale one is recognised."""
        files = sorted(p for p in self.source.iterdir() if p.suffix in {".c", ".h", ".inc"})
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]

    def units(self, *, wide: bool) -> list[tuple[str, list[str]]]:
        """(source, flags of its own); `wide`: the machine may have AVX2."""
        units: list[tuple[str, list[str]]] = [(name, []) for name in self.once]
        units.append((self.passes, self._named("baseline")))
        if wide:
            units.append((self.passes, ["-mavx2", *self.flags, *self._named("avx2")]))
        return units

    def _named(self, instructions: str) -> list[str]:
        return [f"-D{macro}={name}_{instructions}" for macro, name in self.functions.items()]


KERNELS = (
    Kernel(
        name="forest",
        once=("plan.c", "transform.c"),
        passes="kernel.c",
        functions={"KERNEL": "forest_run"},
        flags=("-mno-vzeroupper",),
    ),
    Kernel(
        name="fused",
        once=("entry.c",),
        passes="passes.c",
        functions={"MARGINS": "fused_margins", "FEATURES": "fused_features"},
    ),
)


def build(kernel: Kernel) -> Path:
    """Compiles; the library appears whole.

    Raises:
        RuntimeError: there is no compiler, or it failed; says what it said.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler: install one (cc), or the package ziglang")
    wide = platform.machine() in {"x86_64", "AMD64"}
    defines = [f'-D{kernel.name.upper()}_DIGEST="{kernel.digest()}"']
    defines += ["-DHAVE_AVX2"] if wide else []
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for number, (name, extra) in enumerate(kernel.units(wide=wide)):
            objects.append(f"{folder}/{number}.o")
            source = str(kernel.source / name)
            _run([*command, *_FLAGS, *defines, *extra, "-c", source, "-o", objects[-1]])
        library = kernel.library
        fresh = library.with_name(f".{library.name}.{Path(folder).name}")
        _run([*command, "-shared", *objects, "-o", str(fresh), "-lm"])
        fresh.replace(library)  # processes that have the old one loaded keep it
    return library


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
        """Builds and adds the libraries; without them the wheel is for every platform."""
        try:
            libraries = [build(kernel) for kernel in KERNELS]
        except (RuntimeError, OSError) as error:
            self.app.display_warning(f"Augury is installed without its kernels: {error}")
            return
        build_data["artifacts"].extend(f"/{library.relative_to(ROOT)}" for library in libraries)
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


if __name__ == "__main__":
    for each in KERNELS:
        print(f"built {build(each).relative_to(ROOT)}")
