"""The manifest: what a run read and wrote, as canonical bytes.

A manifest is built once, when the last shard is in, and its bytes decide the commit: they are
stored in the ledger first and then put beside the parts, by whichever process comes first. So the
same manifest must give the same bytes everywhere: keys sorted, no spaces, UTF-8, a final newline.
Nothing here knows Arrow; the audit reads manifests without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from augury import ids
from augury.errors import CorruptError

MANIFEST_KEY = "_manifest.json"
#: folder of the reject parts within a run's output
REJECTS = "_rejected/"
VERSION = 1

_RESERVED = ("_", ".")

UnknownCategories = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Counts of law 2. `rows_in` is what the footers of the inputs say."""

    rows_in: int = 0
    rows_predicted: int = 0
    rows_rejected: int = 0
    rows_filtered: int = 0

    @property
    def balanced(self) -> bool:
        """True if every row that went in is accounted for."""
        return self.rows_in == self.rows_predicted + self.rows_rejected + self.rows_filtered

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            rows_in=self.rows_in + other.rows_in,
            rows_predicted=self.rows_predicted + other.rows_predicted,
            rows_rejected=self.rows_rejected + other.rows_rejected,
            rows_filtered=self.rows_filtered + other.rows_filtered,
        )


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """What became of the rows of one input file (or of one shard's share of it)."""

    uri: str
    tag: str
    rows_in: int = 0
    rows_predicted: int = 0
    rows_rejected: int = 0
    rows_filtered: int = 0

    @property
    def rows(self) -> Rows:
        """The counts alone."""
        return Rows(
            rows_in=self.rows_in,
            rows_predicted=self.rows_predicted,
            rows_rejected=self.rows_rejected,
            rows_filtered=self.rows_filtered,
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One output object.

    Attributes:
        key: relative to the run's folder.
        sha256: of the object's bytes, 64 hexadecimal digits.
        shard: `seq` of the shard that wrote it.
    """

    key: str
    size_bytes: int
    sha256: str
    num_rows: int
    shard: int


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file, or a row group of one, that could not be read and was left out.

    Attributes:
        row_group: its number in the file; None: the whole file.
        num_rows: what the footer says of a row group; None: unknown, the file has no footer that
            can be read.
        reason: what was wrong with it.
    """

    uri: str
    tag: str
    row_group: int | None
    num_rows: int | None
    reason: str

    def __str__(self) -> str:
        what = f"row group {self.row_group} of " if self.row_group is not None else ""
        return f"{what}{self.uri}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The complete account of a run's output.

    Attributes:
        generation: 1 for a run's first commit, one more for each retry of its rejected rows.
            `model`, `pins` and `plan_digest` are those of the last one.
        previous: SHA-256 of the manifest of the generation before; None for the first.
        complete: False if something was quarantined: its rows are in none of the counts.
        quarantined: what was left out because it could not be read, in the order of the plan.
        model: name, version, digest and flavor of the model that predicted.
        files: in the order of the plan.
        parts: in the order of the shards; read in this order, rows come as they were in the input.
        reject_parts: the same for the rows that were rejected; a shard without any has none.
        superseded: reject parts of former generations: their rows are in `parts` or in
            `reject_parts` by now.
        unknown_categories: per column, values that the model does not know (scored as missing) and
            in how many rows; at most `MAX_UNKNOWN` values a column, the rest under `OTHERS`.
        pins: what the bytes depend on (see `inference.plan.Pins`).
        plan_digest: SHA-256 of the plan's text.
    """

    run_id: str
    job: str
    generation: int = 1
    previous: str | None = None
    complete: bool = True
    model: Mapping[str, Any]
    rows: Rows
    files: tuple[FileRows, ...]
    parts: tuple[Part, ...]
    reject_parts: tuple[Part, ...] = ()
    superseded: tuple[Part, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    unknown_categories: UnknownCategories = field(default_factory=dict)
    pins: Mapping[str, Any]
    plan_digest: str

    @property
    def objects(self) -> tuple[Part, ...]:
        """Every object that it accounts for: parts, reject parts, and what those superseded."""
        return (*self.parts, *self.reject_parts, *self.superseded)

    @property
    def content_digest(self) -> str:
        """SHA-256 over the SHA-256s of parts and reject parts, in order.

        Equal if and only if all output bytes are.
        """
        return content_digest(part.sha256 for part in (*self.parts, *self.reject_parts))

    def to_bytes(self) -> bytes:
        """Canonical form; the same manifest gives the same bytes everywhere."""
        rows = {
            name.removeprefix("rows_"): count
            for name, count in msgspec.to_builtins(self.rows).items()
        }
        document = {
            **msgspec.to_builtins(self),
            "version": VERSION,
            "rows": rows,
            "content_digest": self.content_digest,
        }
        return msgspec.json.encode(document, order="sorted") + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of `to_bytes()`."""
        return ids.digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads what `to_bytes` wrote.

        Raises:
            CorruptError: not a manifest, of another version, or its digests contradict its parts.
        """
        try:
            document = msgspec.json.decode(data, type=dict[str, Any])
            if document.pop("version") != VERSION:
                raise CorruptError(f"expected a manifest of version {VERSION}")
            claimed = document.pop("content_digest")
            rows = {f"rows_{name}": count for name, count in document.pop("rows").items()}
            manifest = msgspec.convert({**document, "rows": rows}, cls)
        except (msgspec.MsgspecError, KeyError, AttributeError) as error:
            raise CorruptError(f"not a manifest: {error}") from error
        if claimed != manifest.content_digest:
            raise CorruptError(
                f"the manifest's content digest is {claimed}, but its parts give "
                f"{manifest.content_digest}",
                expected=claimed,
                found=manifest.content_digest,
            )
        return manifest


def manifest_key(generation: int) -> str:
    """Where the manifest of a generation lies: no manifest is ever overwritten."""
    return MANIFEST_KEY if generation == 1 else f"_manifest.{generation}.json"


def chain_faults(before: Manifest, after: Manifest) -> Iterator[tuple[str, str]]:
    """(expected, found) for each way in which a generation does not follow from the one before."""
    if after.generation != before.generation + 1:
        yield f"generation {before.generation + 1}", str(after.generation)
    if after.previous != before.digest:
        yield f"previous={before.digest}, the manifest before", f"previous={after.previous}"
    if after.parts[: len(before.parts)] != before.parts:
        yield "all parts of the generation before, first", "others"
    if after.superseded != (*before.superseded, *before.reject_parts):
        yield "the reject parts of the generations before as superseded", "others"
    if [(f.uri, f.rows_in) for f in after.files] != [(f.uri, f.rows_in) for f in before.files]:
        yield "the same input files and rows", "others"


def looks_like_data(key: str) -> bool:
    """True for keys that somebody would take for output, whoever wrote them.

    Readers skip names with an underscore or a dot before them. They skip rejects too, but whoever
    looks for rejects lists their folder.
    """
    names = key.removeprefix(REJECTS).split("/")
    return not any(name.startswith(_RESERVED) for name in names)


def content_digest(sha256s: Iterable[str]) -> str:
    """SHA-256 over hexadecimal SHA-256s in order, as 64 hexadecimal digits."""
    return hashlib.sha256("".join(sha256s).encode()).hexdigest()
