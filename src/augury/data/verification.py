"""Checking an output against its manifest, from what lies in the store alone.

Needs neither ledger nor service: an output is complete in itself, wherever it was copied. Nothing
is believed but the manifest's own account: sizes and digests are computed from the bytes, rows are
counted by the parts' footers, and law 2 is added up again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from augury.data.manifest import (
    MANIFEST_KEY,
    Manifest,
    Part,
    Rows,
    chain_faults,
    looks_like_data,
    manifest_key,
)
from augury.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from augury.storage.objects import ObjectInfo, ObjectStore

_BLOCK_BYTES = 8 * 2**20

#: called with bytes read so far, and bytes to read in all
type Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PartFound:
    """A part as its bytes say.

    Attributes:
        num_rows: of its footer; None if it has none that can be read.
    """

    size_bytes: int
    sha256: str
    num_rows: int | None


@dataclass(frozen=True, kw_only=True)
class OutputViolation:
    """One thing that is not as the manifest says.

    Attributes:
        check: which promise is broken; see docs/rejects.md, "Verifying an output".
        subject: the object or file that it is about.
    """

    check: str
    subject: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.check}: {self.subject}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        generation: of the last manifest, which is the one that counts; 0 without one.
        complete: False if the result is partial, by its own account; None without a manifest.
        rows: by the manifest.
        num_parts: read, reject parts among them.
        size_bytes: of these.
    """

    output_uri: str
    generation: int
    ok: bool
    complete: bool | None
    rows: Rows
    num_parts: int
    size_bytes: int
    violations: tuple[OutputViolation, ...]
    quarantined: tuple[str, ...] = ()


@dataclass
class _Counter:
    """Bytes read so far, of how many."""

    total: int
    on_progress: Progress
    done: int = 0

    def add(self, num_bytes: int) -> None:
        self.done += num_bytes
        self.on_progress(self.done, self.total)


def verify_output(
    store: ObjectStore, *, on_progress: Progress = lambda done, total: None
) -> Verification:
    """Reads an output, every byte of its parts, and compares it with its manifest.

    Args:
        store: rooted at the output's folder.
        on_progress: called after each block.

    Raises:
        NotFoundError: nothing lies there.
        UnavailableError: the store does not answer.
    """
    objects = {info.key: info for info in store.list()}
    if not objects:
        raise NotFoundError(f"expected an output at {store.url}, found nothing", uri=store.url)
    try:
        generations = read_generations(store, objects)
    except NotFoundError:
        found = "none: this is no output, or its run has not finished"
        return _without_manifest(store, found)
    except CorruptError as error:
        return _without_manifest(store, error.message)
    manifest = generations[-1]
    violations = [
        *_chain_faults(generations),
        *_law_faults(manifest),
        *_part_faults(store, manifest, objects, on_progress),
        *_strays(manifest, objects),
    ]
    parts = manifest.objects
    return Verification(
        output_uri=store.url,
        generation=manifest.generation,
        ok=not violations,
        complete=manifest.complete,
        rows=manifest.rows,
        num_parts=len(parts),
        size_bytes=sum(part.size_bytes for part in parts),
        violations=tuple(violations),
        quarantined=tuple(str(each) for each in manifest.quarantined),
    )


def _without_manifest(store: ObjectStore, found: str) -> Verification:
    violation = OutputViolation(
        check="manifest", subject=store.uri(MANIFEST_KEY), expected="a manifest", found=found
    )
    return Verification(
        output_uri=store.url,
        generation=0,
        ok=False,
        complete=None,
        rows=Rows(),
        num_parts=0,
        size_bytes=0,
        violations=(violation,),
    )


def read_generations(store: ObjectStore, keys: Container[str]) -> list[Manifest]:
    """The manifests of all generations, in order.

    Args:
        store: rooted at the output's folder.
        keys: what lies there.

    Raises:
        NotFoundError: there is not even the first.
        CorruptError: one of them is no manifest; names it.
    """
    found: list[Manifest] = []
    while not found or manifest_key(len(found) + 1) in keys:
        key = manifest_key(len(found) + 1)
        try:
            found.append(Manifest.from_bytes(store.read(key)))
        except CorruptError as error:
            raise CorruptError(f"{key}: {error.message}", uri=store.uri(key)) from error
    return found


def _chain_faults(generations: Sequence[Manifest]) -> Iterator[OutputViolation]:
    for before, after in pairwise(generations):
        for expected, found in chain_faults(before, after):
            yield _differs("generation", manifest_key(after.generation), expected, found)


# --- the manifest's own account -------------------------------------------------------------------


def _law_faults(manifest: Manifest) -> Iterator[OutputViolation]:
    for file in manifest.files:
        if not file.rows.balanced:
            yield _rows_fault(f"input {file.uri}", file.rows)
    total = sum((file.rows for file in manifest.files), Rows())
    if total != manifest.rows:
        yield _differs("rows", "the sum of its files", str(manifest.rows), str(total))
    for what, count, parts in (
        ("predicted", manifest.rows.rows_predicted, manifest.parts),
        ("rejected", manifest.rows.rows_rejected, manifest.reject_parts),
    ):
        held = sum(part.num_rows for part in parts)
        if held != count:
            yield _differs("rows", f"the {what} parts", f"{count} rows", f"{held}")
    if manifest.complete == bool(manifest.quarantined):
        expected = "complete if and only if nothing is quarantined"
        found = f"complete={manifest.complete}, {len(manifest.quarantined)} quarantined"
        yield _differs("complete", "the manifest", expected, found)


def _rows_fault(subject: str, rows: Rows) -> OutputViolation:
    found = f"{rows.rows_predicted} predicted + {rows.rows_rejected} rejected + "
    found += f"{rows.rows_filtered} filtered"
    return _differs("rows", subject, f"{rows.rows_in} rows accounted for", found)


def _differs(check: str, subject: str, expected: str, found: str) -> OutputViolation:
    return OutputViolation(check=check, subject=subject, expected=expected, found=found)


# --- the objects ----------------------------------------------------------------------------------


def _part_faults(
    store: ObjectStore,
    manifest: Manifest,
    objects: Mapping[str, ObjectInfo],
    on_progress: Progress,
) -> Iterator[OutputViolation]:
    parts = manifest.objects
    counter = _Counter(sum(part.size_bytes for part in parts), on_progress)
    for part in parts:
        found = _found(store, part, objects, counter)
        if found is None:
            expected = "an object, for the manifest names it"
            yield _differs("missing", part.key, expected, "no such object")
        elif found.size_bytes != part.size_bytes:
            expected = f"{part.size_bytes} bytes"
            yield _differs("size", part.key, expected, f"{found.size_bytes}")
        elif found.sha256 != part.sha256:
            yield _differs("sha256", part.key, part.sha256, found.sha256)
        elif found.num_rows != part.num_rows:
            yield _differs("footer", part.key, f"{part.num_rows} rows", f"{found.num_rows}")


def _found(
    store: ObjectStore, part: Part, objects: Mapping[str, ObjectInfo], counter: _Counter
) -> PartFound | None:
    if part.key not in objects:
        return None
    try:
        return read_part(store, part.key, counter.add)
    except NotFoundError:  # deleted since it was listed
        return None


def _strays(manifest: Manifest, objects: Mapping[str, ObjectInfo]) -> Iterator[OutputViolation]:
    named = {part.key for part in manifest.objects}
    for key in sorted(objects):
        if looks_like_data(key) and key not in named:
            expected = "in the manifest, or not there"
            yield _differs("extra", key, expected, f"{objects[key].size_bytes} bytes")


def read_part(
    store: ObjectStore, key: str, on_read: Callable[[int], None] = lambda num_bytes: None
) -> PartFound:
    """Reads an object whole.

    Args:
        store: where it is.
        key: which.
        on_read: called with the size of each block.

    Raises:
        NotFoundError: there is none.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    hasher = hashlib.sha256()
    file: Any
    with store.open(key) as file:
        size_bytes = file.size()
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            on_read(len(block))
        file.seek(0)
        try:
            num_rows = read_metadata(file).num_rows
        except (ArrowException, OSError):
            num_rows = None
    return PartFound(size_bytes, hasher.hexdigest(), num_rows)
