"""What a source and a schedule say.

Pydantic checks a spec at the edge (apply, API); the field names are the same in YAML, API, CLI and
the stored JSON.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from augury.errors import InvalidError
from augury.sources.cron import Cron, checked_expression, checked_zone
from augury.storage.objects import canonical_url

type ObjectEvent = Literal["created", "updated"]


class Missed(StrEnum):
    """What becomes of ticks that came due while no scheduler ran."""

    LAST = "last"  #: the last one fires, the others are one recorded row
    NONE = "none"  #: none fires, unless it is less than half a minute late
    ALL = "all"  #: each fires, oldest first


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _folder(uri: str) -> str:
    try:
        return canonical_url(uri).removesuffix("/") + "/"
    except InvalidError as error:
        raise ValueError(error.message) from error


class SourceSpec(_Spec):
    """An object watcher: which objects below one prefix are announced.

    Attributes:
        uri: `file:///folder/`, `s3://bucket/prefix/` or a path; stored in its canonical form. A
            local folder that does not exist is made.
        include: globs of keys relative to `uri`, of which one must match; `*` stays within a
            folder, `**` crosses folders. None given: all keys.
        exclude: globs of keys that are left out; stronger than `include`.
        events: what is announced: objects at new keys, new content at known ones, or both.
        list_s: seconds between two listings; None: the setting `AUGURY_LIST_S`.
        enabled: False: nothing is watched. What came meanwhile is announced when it is enabled.
        description: for people.

    Names that begin with `.` or `_` (files and folders) and those of unfinished downloads (`.tmp`,
    `.part`, `.partial`, `.crdownload`, `.swp`, `~`) are never announced.
    """

    uri: Annotated[str, Field(min_length=1), AfterValidator(_folder)]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    events: Annotated[tuple[ObjectEvent, ...], Field(min_length=1)] = ("created", "updated")
    list_s: float | None = Field(default=None, gt=0)
    enabled: bool = True
    description: str | None = None


class ScheduleSpec(_Spec):
    """A schedule: when it ticks.

    Attributes:
        cron: five fields (minute, hour, day of month, month, day of week), six with seconds
            first, or `@hourly`, `@daily` and the like; see `sources.cron` for what happens when
            clocks are put forward or back.
        timezone: IANA name of the zone whose local time the fields mean.
        missed: what becomes of ticks that no scheduler was there for.
        enabled: False: it does not tick, and what comes due meanwhile is not missed.
        description: for people.
    """

    cron: Annotated[str, AfterValidator(checked_expression)]
    timezone: Annotated[str, AfterValidator(checked_zone)] = "UTC"
    missed: Missed = Missed.LAST
    enabled: bool = True
    description: str | None = None

    def rhythm(self) -> Cron:
        """The instants at which it ticks."""
        return Cron(self.cron, self.timezone)
