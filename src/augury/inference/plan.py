"""What an inference run will do, decided before a row is read. Pure: no store, no Arrow.

A plan pins everything that the output's bytes depend on: the model, each input's identity, the
library versions, the writer's settings, the names and types of the output's columns. A shard says
which row groups of which files, in which order. The bytes of a shard's part follow from these two
alone, so any worker may score any shard, twice if need be, and a worker that cannot honour the
pins refuses (`score.score_shard`).

The plan's text (`Plan.to_json`) is stored once per run; it names the files but not the shards. A
shard (`ShardSpec.to_json`) is stored with its work item. A plan has at least one shard: a run
without rows has one with no ranges, which writes an empty part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from augury import ids
from augury.data.dataset import RowGroup
from augury.data.manifest import REJECTS, FileRows, Part, Quarantined, Rows
from augury.data.policy import OnCorruptFile, RejectedRow, RowPolicy
from augury.errors import CorruptError
from augury.jobs.spec import Mode
from augury.models.signature import Signature

# --- how `auto` chooses, see choose_mode ----------------------------------------------------------

MINI_BATCH_BYTES = 8 * 2**20
MINI_BATCH_ROWS = 200_000
MINI_BATCH_FILES = 64
BATCH_BYTES = 256 * 2**20
BATCH_ROWS = 4_000_000


def choose_mode(total_bytes: int, total_rows: int, num_files: int) -> Mode:
    """The mode that `auto` stands for, by size.

    | mode | if the input has at most |
    |---|---|
    | mini_batch | 8 MiB, 200,000 rows and 64 files: a second of work, not worth a message |
    | batch | 256 MiB and 4,000,000 rows: a few shards, for which one copy of the model is enough |
    | distributed | (all else) |

    Args:
        total_bytes: compressed bytes of the columns that will be read.
        total_rows: rows of all files.
        num_files: input files.
    """
    if (
        total_bytes <= MINI_BATCH_BYTES
        and total_rows <= MINI_BATCH_ROWS
        and num_files <= MINI_BATCH_FILES
    ):
        return Mode.MINI_BATCH
    if total_bytes <= BATCH_BYTES and total_rows <= BATCH_ROWS:
        return Mode.BATCH
    return Mode.DISTRIBUTED


# --- shards ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShardRange:
    """One row group of one input file.

    Attributes:
        tag: the content tag that the file must have.
        row_group: its number in the file, from 0.
        num_rows: as its footer says.
    """

    uri: str
    tag: str
    row_group: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """The unit of scheduling, retry and commit: row groups in the order of the input.

    Attributes:
        label: in the names of its parts; empty in a run, unique for each retry of rejected rows.
    """

    seq: int
    ranges: tuple[ShardRange, ...]
    label: str = ""

    @property
    def num_rows(self) -> int:
        """Rows of all ranges."""
        return sum(each.num_rows for each in self.ranges)

    @property
    def part_key(self) -> str:
        """Key of the part that it writes, relative to the run's folder.

        Keys sort as `seq` does up to 100,000 shards; the manifest's order holds for any number.
        """
        return f"part-{self.label}{self.seq:05}.parquet"

    @property
    def reject_key(self) -> str:
        """Key of its reject part; readers skip names with an underscore."""
        return f"{REJECTS}{self.part_key}"

    def to_json(self) -> dict[str, Any]:
        """A plain document, complete in itself, as stored with the work item."""
        return _builtins(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        return _converted(document, cls)


@dataclass(frozen=True, kw_only=True)
class FileGroups:
    """An input file as planning sees it."""

    uri: str
    tag: str
    row_groups: tuple[RowGroup, ...]


def cut_shards(
    files: Iterable[FileGroups], target_shard_bytes: int, target_shard_rows: int
) -> list[ShardSpec]:
    """Cuts files into shards of whole row groups, in order.

    A shard is closed before the row group that would take it over either target, so it exceeds
    them only if it is a single row group that does. Small files share a shard. Row groups without
    rows are left out; every other is in exactly one shard.

    Returns:
        At least one shard; the only one may be empty. `seq` counts from 0.
    """
    shards: list[tuple[ShardRange, ...]] = []
    ranges: list[ShardRange] = []
    num_rows = size_bytes = 0
    for each, row_group in _ranges(files):
        too_many = num_rows + row_group.num_rows > target_shard_rows
        if ranges and (too_many or size_bytes + row_group.size_bytes > target_shard_bytes):
            shards.append(tuple(ranges))
            ranges, num_rows, size_bytes = [], 0, 0
        ranges.append(each)
        num_rows += row_group.num_rows
        size_bytes += row_group.size_bytes
    if ranges or not shards:
        shards.append(tuple(ranges))
    return [ShardSpec(seq=seq, ranges=each) for seq, each in enumerate(shards)]


def _ranges(files: Iterable[FileGroups]) -> Iterator[tuple[ShardRange, RowGroup]]:
    for file in files:
        for number, row_group in enumerate(file.row_groups):
            if row_group.num_rows:
                yield (
                    ShardRange(
                        uri=file.uri,
                        tag=file.tag,
                        row_group=number,
                        num_rows=row_group.num_rows,
                    ),
                    row_group,
                )


# --- the plan -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """The model version that a run uses; `uri` is where the artifact lies."""

    name: str
    version: int
    digest: str
    flavor: str
    uri: str
    size_bytes: int
    signature: Signature


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One input file and the identity that it must have when it is scored."""

    uri: str
    tag: str
    size_bytes: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """What the bytes of a part depend on besides its rows.

    Attributes:
        codec: Parquet compression.
        row_group_rows: rows of every row group but a part's last.
        data_page_version: "1.0" or "2.0".
        dictionary_columns: output columns written with dictionaries; the others are plain.
    """

    codec: str = "snappy"
    row_group_rows: int = 131_072
    data_page_version: str = "1.0"
    dictionary_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What must be the same wherever a shard of this plan is scored.

    Attributes:
        backend: what predicts, with its version, as `Model.backend` says; empty: not pinned.
        backend_reason: why that is the model's library; empty if it is Augury's kernel.
        machine: processor architecture, for rounding may differ between two of them.
        libraries: versions by distribution name, of those that touch a value or a byte.
    """

    backend: str
    machine: str
    libraries: Mapping[str, str]
    writer: WriterSettings
    backend_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An inference run, decided.

    Attributes:
        mode: never `auto`.
        files: in the order in which their rows are in the output.
        columns: input columns carried into the output, in this order.
        prediction_columns: names of the prediction columns, in order, after the carried ones.
        output_schema: the parts' Arrow schema, serialised, in base 64.
        num_shards: how many `cut_shards` gave.
        rows_in: rows of all files.
        size_bytes: compressed bytes of the columns that will be read.
        rows: what makes a row bad, and what becomes of it.
        on_corrupt_file: what becomes of one that cannot be read.
        quarantined: files whose footers could not be read; they are not among `files`.
        casts: input columns in another type than the model's, and what becomes of their values.
        generation: over 1, the files are reject parts: their rows say themselves which rows of
            which input they are.
    """

    mode: Mode
    model: PlannedModel
    files: tuple[PlannedFile, ...]
    columns: tuple[str, ...]
    prediction_columns: tuple[str, ...]
    output_schema: str
    num_shards: int
    rows_in: int
    size_bytes: int
    pins: Pins
    rows: RowPolicy = field(default_factory=RowPolicy)
    on_corrupt_file: OnCorruptFile = OnCorruptFile.FAIL
    quarantined: tuple[Quarantined, ...] = ()
    casts: tuple[str, ...] = ()
    generation: int = 1

    def to_json(self) -> str:
        """Canonical text: the same plan gives the same text everywhere."""
        document = _builtins(self)
        document["model"]["signature"] = self.model.signature.to_json()
        return msgspec.json.encode(document, order="sorted").decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            CorruptError: not a plan.
        """
        try:
            document = msgspec.json.decode(text, type=dict[str, Any])
            signature = Signature.from_json(document["model"].pop("signature"))
            return cls(
                mode=Mode(document.pop("mode")),
                model=PlannedModel(signature=signature, **document.pop("model")),
                files=msgspec.convert(document.pop("files"), tuple[PlannedFile, ...]),
                columns=tuple(document.pop("columns")),
                casts=tuple(document.pop("casts")),
                prediction_columns=tuple(document.pop("prediction_columns")),
                pins=msgspec.convert(document.pop("pins"), Pins),
                rows=msgspec.convert(document.pop("rows"), RowPolicy),
                on_corrupt_file=OnCorruptFile(document.pop("on_corrupt_file")),
                quarantined=msgspec.convert(document.pop("quarantined"), tuple[Quarantined, ...]),
                **document,
            )
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            raise CorruptError(f"not a plan: {error!r}") from error

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return ids.digest(self.to_json().encode())


class _Head(msgspec.Struct):
    """What is read of a plan without its files; the rest is skipped."""

    pins: Pins
    casts: tuple[str, ...]


def read_pins(text: str) -> Pins:
    """The pins of a plan's text, without reading its files."""
    return msgspec.json.decode(text, type=_Head).pins


def read_casts(text: str) -> tuple[str, ...]:
    """The casts of a plan's text, without reading its files."""
    return msgspec.json.decode(text, type=_Head).casts


# --- what scoring one shard gives -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What one scored shard reports.

    Attributes:
        files: this shard's share of each of its files, in order.
        part: the object it wrote.
        reject_part: the object that holds its rejected rows; None if there are none.
        rejected_by_file: rejected rows by the input that they come from.
        first_rejects: some of them, for messages.
        quarantined: its row groups that could not be read; their rows are in none of the counts.
        unknown_categories: as in the manifest.
        seconds: wall time.
    """

    seq: int
    rows_in: int
    rows_predicted: int
    rows_rejected: int
    rows_filtered: int
    files: tuple[FileRows, ...]
    part: Part | None
    reject_part: Part | None = None
    rejected_by_file: Mapping[str, int] = field(default_factory=dict)
    first_rejects: tuple[RejectedRow, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    unknown_categories: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rows(self) -> Rows:
        """The counts alone."""
        return Rows(
            rows_in=self.rows_in,
            rows_predicted=self.rows_predicted,
            rows_rejected=self.rows_rejected,
            rows_filtered=self.rows_filtered,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain document, as stored with the work item."""
        return _builtins(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        return _converted(document, cls)


def total_rows(counts: Sequence[Rows]) -> Rows:
    """The sum."""
    return sum(counts, Rows())


def _builtins(value: object) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(value)
    return document


def _converted[T](document: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.MsgspecError as error:
        raise CorruptError(f"not a {kind.__name__}: {error}") from error
