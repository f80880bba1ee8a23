"""Which code scores a model: one of Augury's own kernels, or the model's library.

A kernel scores a model only after it predicted as the library does on rows made from the model's
own thresholds (`judge`): every bit of trees, within a stated bound for linear models. The verdict
is found once for a file: when it is registered, and kept with the version, or when `augury score`
first meets it, and kept in the cache folder.

A verdict is a preference. A plan pins what its own installation has (`pick`), and a worker loads
exactly what the plan pinned, or refuses the shard: no run mixes two backends.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from augury.errors import AuguryError, UnsupportedError
from augury.ids import new_id
from augury.models import forest, fused
from augury.models.flavors import get_flavor
from augury.models.forest import FOREST
from augury.models.fused import LINEAR
from augury.models.port import Flavor, Model
from augury.models.signature import Signature

_KERNELS = {FOREST: forest, LINEAR: fused}

# distribution that computes for each flavor
_LIBRARIES = {
    "xgboost": "xgboost",
    "sklearn": "scikit-learn",
    "lightgbm": "lightgbm",
    "onnx": "onnxruntime",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the self-check of a model found.

    Attributes:
        backend: what shall score it, as `Model.backend` says; empty: nobody has checked.
        reason: why it is no kernel of Augury's, or how far the kernel's predictions may lie from
            the library's; empty if they are equal in every bit.
    """

    backend: str = ""
    reason: str = ""


UNCHECKED = Verdict(reason="its predictions were not compared with the kernel's")


def judge(flavor: Flavor, path: Path, signature: Signature) -> Verdict:
    """Loads the model with its library, and compares the kernel's predictions with it.

    Raises:
        CorruptError, InvalidError: as `Flavor.load`, for the same reasons.
    """
    native = flavor.load(path, signature, num_threads=1)
    if not available():
        return Verdict(backend=native.backend, reason=reason())
    try:
        kernel = flavor.kernel(path, signature)
        difference = kernel.difference(native)
    except AuguryError as error:  # the library takes it, so it can be scored
        return Verdict(backend=native.backend, reason=str(error))
    if difference:
        return Verdict(backend=native.backend, reason=difference)
    return Verdict(backend=kernel.backend, reason=kernel.note)


def available() -> bool:
    """True if all kernels were built for this machine."""
    return not reason()


def reason() -> str:
    """Why the kernels are not available; empty if they are."""
    return forest.reason() or fused.reason()


def judge_once(
    folder: Path, flavor: Flavor, path: Path, signature: Signature, *, digest: str
) -> Verdict:
    """`judge`, remembered in `folder` for this file, this kernel and this library.

    Args:
        folder: made if there is none; if it cannot be written, the next call judges again.
        flavor: the file's format.
        path: the file.
        signature: its inputs and outputs.
        digest: the file's SHA-256.

    Raises:
        CorruptError, InvalidError: as `Flavor.load`; not if the file was judged before.
    """
    if not available():  # nothing to remember: it may be built tomorrow
        return Verdict(backend=library(flavor.name), reason=reason())
    known = folder / _key(flavor, signature, digest)
    verdict = _recall(known)
    if verdict is None:
        verdict = judge(flavor, path, signature)
        _remember(known, verdict)
    return verdict


def _key(flavor: Flavor, signature: Signature, digest: str) -> str:
    parts = (digest, signature.task, signature.dtype, *_KERNELS, library(flavor.name))
    return "-".join(parts).replace(" ", "-") + ".json"


def _recall(path: Path) -> Verdict | None:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


def _remember(path: Path, verdict: Verdict) -> None:
    import msgspec

    part = path.with_name(f".{new_id('verdict')}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(verdict))
        part.replace(path)


def pick(verdict: Verdict, flavor: str) -> Verdict:
    """What this installation scores with: the verdict's backend, or the library and why.

    Args:
        verdict: found anywhere, by any version of Augury.
        flavor: the model's.
    """
    native = library(flavor)
    if verdict.backend in _KERNELS:
        return verdict if available() else Verdict(backend=native, reason=reason())
    if is_own(verdict.backend):
        ours = " and ".join(_KERNELS)
        why = f"checked for {verdict.backend}, not for {ours}; register the model's file again"
        return Verdict(backend=native, reason=why)
    return Verdict(backend=native, reason=verdict.reason)


def load(flavor: str, path: Path, signature: Signature, *, backend: str, num_threads: int) -> Model:
    """Loads a model to score with a backend that `pick` gave, maybe elsewhere.

    What this installation does not have is not replaced silently: the library's model comes back,
    whose own `backend` then differs from the one asked for.

    Raises:
        CorruptError, InvalidError: as `Flavor.load`.
    """
    found = get_flavor(flavor)
    if backend in _KERNELS and available():
        with contextlib.suppress(UnsupportedError):
            kernel = found.kernel(path, signature)
            if kernel.backend == backend:
                return kernel.ready(signature, num_threads=num_threads)
    return found.load(path, signature, num_threads=num_threads)


def is_own(backend: str) -> bool:
    """True if a backend is a kernel of Augury's own, of any version."""
    return backend.startswith(tuple(name.rpartition(" ")[0] for name in _KERNELS))


def library(flavor: str) -> str:
    """A flavor's library with its installed version, as its `Model.backend`; empty if it has none.

    Nothing is imported.
    """
    name = _LIBRARIES.get(flavor)
    return f"{name} {version(name)}" if name else ""


def library_name(flavor: str) -> str | None:
    """The distribution that computes for a flavor."""
    return _LIBRARIES.get(flavor)


@cache
def version(distribution: str) -> str:
    """The installed version; "none" if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
