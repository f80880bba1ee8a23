"""A small C library of ours, compiled when Augury is installed and loaded with ctypes.

`scripts/build_native.py` builds one beside each package that has a folder `native/`. Where that was
not possible the package works without it: `available()` is False, `reason()` says why, and models
are scored by their own library. A library that was built from other sources than lie here is not
used: its structures could differ, and memory would be read as what it is not.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from augury.errors import UnsupportedError


class CompiledLibrary:
    """One library, loaded when it is first asked for. Safe to share among threads.

    Args:
        path: of the library; its sources are in `native/` beside it.
        prefix: of all its functions; `{prefix}_digest` names the sources it was built from.
        declare: gives its functions the types of their arguments and results.
    """

    def __init__(self, path: Path, prefix: str, declare: Callable[[ctypes.CDLL], None]) -> None:
        self._path = path
        self._prefix = prefix
        self._declare = declare

    def available(self) -> bool:
        """True if it was built for this machine."""
        return self._loaded[0] is not None

    def reason(self) -> str:
        """Why it is not available; empty if it is."""
        return self._loaded[1]

    def get(self) -> ctypes.CDLL:
        """The library.

        Raises:
            UnsupportedError: it is not available.
        """
        loaded, why = self._loaded
        if loaded is None:
            raise UnsupportedError(f"the kernel is not there: {why}")
        return loaded

    @cached_property
    def _loaded(self) -> tuple[ctypes.CDLL | None, str]:
        """The library, or None and why not."""
        if not self._path.exists():
            return None, f"{self._path} was not built; see scripts/build_native.py"
        try:
            library = ctypes.CDLL(str(self._path))
        except OSError as error:
            return None, f"{self._path} cannot be loaded: {error}"
        digest = getattr(library, f"{self._prefix}_digest")
        digest.restype = ctypes.c_char_p
        if digest().decode() != self._digest():
            return None, f"{self._path} was built from other sources; run scripts/build_native.py"
        self._declare(library)
        return library, ""

    def _digest(self) -> str:
        """Names the sources as scripts/build_native.py does."""
        folder = self._path.with_name("native")
        files = sorted(path for path in folder.iterdir() if path.suffix in {".c", ".h", ".inc"})
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
