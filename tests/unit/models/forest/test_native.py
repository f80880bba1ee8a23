"""The compiled library: there where it can be, and its absence told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from augury.errors import UnsupportedError
from augury.models.compiled import CompiledLibrary
from augury.models.forest import available, instructions, native, reason
from augury.models.forest.ensemble import Ensemble, Tree


def test_the_kernel_is_built_where_there_is_a_compiler() -> None:
    assert available() or not shutil.which("cc"), reason()
    if available():
        assert instructions() in native.INSTRUCTIONS


@pytest.mark.parametrize("content", [None, b"no library"])
def test_without_the_library_the_reason_is_told(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "_forest.so"
    if content is not None:
        library.write_bytes(content)
    broken = CompiledLibrary(library, "forest", native._declare)
    assert not broken.available()
    assert str(library) in broken.reason()
    monkeypatch.setattr(native, "library", broken.get)
    one = np.zeros(1, dtype=np.int32)
    leaf = Tree(
        left=one - 1, right=one - 1, feature=one, threshold=np.zeros(1),
        flags=np.zeros(1, dtype=np.uint8), value=np.zeros((1, 1)),
    )  # fmt: skip
    ensemble = Ensemble(
        trees=[leaf], num_features=1, num_outputs=1, compare="float32", accumulate="float32",
        initial=np.zeros(1),
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="the kernel is not there"):
        native.Compiled(ensemble)
