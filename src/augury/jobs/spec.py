"""What a job says, and what a run overrides.

Pydantic checks a spec at the edge (apply, API); inside, the validated model is passed around. The
field names are the same in YAML, API, CLI and the stored JSON.
"""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from augury.data.policy import ColumnPolicy, OnBadRow, OnCorruptFile, UnknownCategory

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
MOST_ARGUMENT_CHARS = 4_000
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(value: Any) -> Any:
    """Turns `"2 GiB"` or `"500 MB"` into bytes; passes integers through."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError(f"expected a size such as '2 GiB' or '500 MB', found {value!r}")
    unit = (match[2] or "").upper()
    return int(float(match[1]) * {**_UNITS, **_BINARY_UNITS}[unit])


SizeBytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]


class Mode(StrEnum):
    """How an inference run is carried out."""

    AUTO = "auto"  #: chosen by size when the run is planned
    MINI_BATCH = "mini_batch"  #: plan, score and commit in one task on a warm worker
    BATCH = "batch"  #: all shards on one host, one copy of the model
    DISTRIBUTED = "distributed"  #: shards go anywhere


class Spec(BaseModel):
    """Base of all specs: what is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(Spec):
    """Compute size of one worker's share of a run."""

    cpus: int = Field(default=1, ge=1, le=1024, description="Threads that may compute at once.")
    memory: SizeBytes = Field(default=2 * 2**30, description="Bytes; '2 GiB' is understood.")


class Input(Spec):
    """One input: an object, or every object below a prefix.

    Attributes:
        uri: `file:///...`, `s3://bucket/key` or a prefix of keys ending in `/`.
        tag: content tag that the object must have (see `storage.objects`); None: as found when
            the run is planned.
    """

    uri: str = Field(min_length=1)
    tag: str | None = None


class PredictionColumns(Spec):
    """Names of the output's prediction columns."""

    prediction: str = "prediction"
    probability: str = "probability"
    probabilities: str = "probabilities"


class Expectation(Spec):
    """What a job expects of one input column of its model; a row that breaks it is bad.

    Attributes:
        nullable: false: neither null nor NaN.
        finite: true: neither NaN nor infinite.
        range: `[low, high]`, both allowed; null leaves a side open. Missing values are not judged.
        unknown_category: of a value that is not among the model's categories: `missing` scores it
            as missing, `reject` and `fail` do so whatever `on_bad_row` says.
    """

    nullable: bool = True
    finite: bool = False
    range: tuple[int | float | None, int | float | None] | None = None
    unknown_category: UnknownCategory = UnknownCategory.MISSING

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        low, high = self.range or (None, None)
        if self.range is not None and low is None and high is None:
            raise ValueError("expected a bound in `range`, found [null, null]")
        if low is not None and high is not None and low > high:
            raise ValueError(f"expected `range` as [low, high], found [{low}, {high}]")
        return self

    def policy(self, name: str) -> ColumnPolicy:
        """As the plan pins it."""
        low, high = self.range or (None, None)
        return ColumnPolicy(
            name=name,
            nullable=self.nullable,
            finite=self.finite,
            low=low,
            high=high,
            unknown_category=self.unknown_category,
        )


class MaxRejected(Spec):
    """How many rows a run may reject: it fails as soon as it is over one of the bounds.

    Attributes:
        share: of all rows, 0 to 1.
        count: rows; None: any number.
    """

    share: float = Field(default=0.5, ge=0, le=1)
    count: int | None = Field(default=None, ge=0)


def split_arguments(value: Any) -> Any:
    """A command line as a shell would split it; a list stays as it is."""
    return shlex.split(value) if isinstance(value, str) else value


def _within_limit(arguments: tuple[str, ...]) -> tuple[str, ...]:
    num_chars = sum(map(len, arguments)) + max(0, len(arguments) - 1)
    if num_chars > MOST_ARGUMENT_CHARS:
        raise ValueError(
            f"expected command-line arguments of at most {MOST_ARGUMENT_CHARS} characters in all, "
            f"found {num_chars}"
        )
    if any("\x00" in argument for argument in arguments):
        raise ValueError("expected arguments without a NUL character")
    return arguments


Arguments = Annotated[
    tuple[str, ...], BeforeValidator(split_arguments), AfterValidator(_within_limit)
]


class LogSettings(Spec):
    """What is kept of the lines that a script writes; see docs/jobs.md.

    Attributes:
        enabled: false: nothing of it is kept.
        max_bytes: text kept of one run; what comes after is counted, not kept.
        lines_per_s: lines kept of any second; the others are counted, not kept.
    """

    enabled: bool = True
    max_bytes: SizeBytes = 64 * 2**20
    lines_per_s: int = Field(default=20_000, ge=1)


class RunOverrides(Spec):
    """What one run may change of its job's spec; None leaves the job's value."""

    model: str | None = None
    input: tuple[Input, ...] | None = None
    output: str | None = None
    mode: Mode | None = None
    columns: tuple[str, ...] | None = None
    max_concurrency: int | None = Field(default=None, ge=1)
    maximum_runtime_s: float | None = Field(default=None, gt=0)
    maximum_shard_runtime_s: float | None = Field(default=None, gt=0)
    on_bad_row: OnBadRow | None = None
    expect: dict[str, Expectation] | None = None
    max_rejected: MaxRejected | None = None
    on_corrupt_file: OnCorruptFile | None = None
    environment: dict[str, str] | None = None
    arguments: Arguments | None = None
    logging: LogSettings | None = None
    tags: dict[str, str] | None = None
    display_name: str | None = Field(default=None, max_length=255)


class JobSpec(Spec):
    """A job of kind `inference`: everything a run needs but the event that causes it.

    Attributes:
        model: `name@alias`, `name@3` or `name` (the newest version).
        input: what to score when neither the run nor the event says; may be empty.
        output: URI prefix; a run writes below `{output}/{run_id}/`.
        columns: input columns carried into the output, in this order.
        on_bad_row: `fail` the run at a bad row, or `reject` such rows (docs/rejects.md).
        expect: what makes a row bad, by input column.
        max_rejected: more rejected rows than this fail the run.
        on_corrupt_file: `fail` the run at a file that cannot be read, or `quarantine` it.
        max_concurrency: most shards of one run in the hands of workers at once.
        maximum_runtime_s: seconds from the first worker's start to forced failure.
        maximum_shard_runtime_s: a worker that has a shard for longer loses it, and the attempt
            counts; None: no deadline.
        max_attempts: at one shard. One that killed or outlasted its worker so often is set aside,
            and the others are finished before the run fails.
        target_shard_bytes: compressed bytes a shard should hold, about.
        target_shard_rows: rows a shard holds at most, unless one row group has more.
    """

    kind: Literal["inference"] = "inference"
    model: str = Field(min_length=1)
    input: tuple[Input, ...] = ()
    output: str = Field(min_length=1)
    mode: Mode = Mode.AUTO
    columns: tuple[str, ...] = ()
    prediction_columns: PredictionColumns = PredictionColumns()
    on_bad_row: OnBadRow = OnBadRow.FAIL
    expect: dict[str, Expectation] = Field(default_factory=dict)
    max_rejected: MaxRejected = MaxRejected()
    on_corrupt_file: OnCorruptFile = OnCorruptFile.FAIL
    shape: Shape = Shape()
    max_concurrency: int = Field(default=16, ge=1)
    maximum_runtime_s: float = Field(default=86_400.0, gt=0)
    maximum_shard_runtime_s: float | None = Field(default=None, gt=0)
    max_attempts: int = Field(default=4, ge=1, le=100)
    target_shard_bytes: SizeBytes = 64 * 2**20
    target_shard_rows: int = Field(default=1_000_000, ge=1)
    environment: dict[str, str] = Field(default_factory=dict)

    def overridden(self, overrides: RunOverrides) -> JobSpec:
        """This spec with the run's values on top; environments are merged key by key."""
        changed = overrides.model_dump(exclude_none=True, exclude={"display_name", "environment"})
        environment = {**self.environment, **(overrides.environment or {})}
        return JobSpec.model_validate({**self.model_dump(), **changed, "environment": environment})
