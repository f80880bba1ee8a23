"""What a source and a schedule say.

Pydantic checks a spec at the edge (apply, API); the field names are the same in YAML, API, CLI and
the stored JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from augury.actions.fields import SecretName
from augury.errors import InvalidError
from augury.events.normalise import Provider
from augury.sources.cron import Cron, checked_expression
from augury.sources.local_time import Autumn, LocalTime, Spring, checked_zone
from augury.sources.rhythm import Every, Once, Rhythm, checked_time
from augury.storage.objects import canonical_url

MOST_BOUNDED = 200  # ticks that fire in one transaction
_LONGEST_EVERY_S = 366 * 86_400

type ObjectEvent = Literal["created", "updated", "deleted", "read"]

_SNS_TOPIC = re.compile(r"arn:aws(?:-cn|-us-gov)?:sns:[a-z]{2}(?:-[a-z]+)+-\d:\d{12}:[\w-]{1,256}")


class Missed(StrEnum):
    """What becomes of ticks that came due while no scheduler ran."""

    LAST = "last"  #: the last one fires, the others are one recorded row
    NONE = "none"  #: none fires, unless it is less than half a minute late
    ALL = "all"  #: each fires, oldest first
    BOUNDED = "bounded"  #: the newest `missed_limit` fire, the others are one recorded row


class Overlap(StrEnum):
    """What becomes of a tick while a run that the previous tick started is active."""

    ALLOW = "allow"  #: it fires all the same
    SKIP = "skip"  #: it does not fire, and is recorded
    QUEUE = "queue"  #: it fires once that run is over, ticks in their order


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _folder(uri: str) -> str:
    try:
        return canonical_url(uri).removesuffix("/") + "/"
    except InvalidError as error:
        raise ValueError(error.message) from error


class SourceKind(StrEnum):
    """How a source learns of what happened."""

    OBJECTS = "objects"  #: lists a prefix, and hears of changes where the system tells
    WEBHOOK = "webhook"  #: is told over HTTP, at `POST /v1/webhooks/{source}`
    QUEUE = "queue"  #: consumes a queue of another broker


class Signature(StrEnum):
    """How a webhook's sender proves who it is, with a shared secret."""

    STANDARD = "standard"  #: HMAC and timestamp, https://www.standardwebhooks.com
    GITHUB = "github"  #: HMAC of the body in `X-Hub-Signature-256`
    # the secret itself: `Authorization` (Bearer, or Basic's password), or `access_token` in the URL
    TOKEN = "token"  # noqa: S105 - no secret, the name of a way


def _bucket(uri: str) -> str:
    folder = _folder(uri)
    if not folder.startswith("s3://"):
        raise ValueError(f"expected s3://bucket/prefix/, for only S3 and MinIO tell; found {uri!r}")
    return folder


class Reconcile(_Spec):
    """What a source that is told of objects lists, to find those that nobody told it of.

    Attributes:
        uri: `s3://bucket/prefix/`.
        every_s: seconds between two listings.
        include: globs of keys relative to `uri`, of which one must match; none given: all keys.
        exclude: globs of keys that are left out; stronger than `include`.
    """

    uri: Annotated[str, Field(min_length=1), AfterValidator(_bucket)]
    every_s: float = Field(default=300.0, gt=0)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What an object watcher looks at.

    Attributes:
        uri: the prefix.
        include: globs of which one must match, if there are any.
        exclude: globs of what is left out.
        list_s: seconds between two listings; None: the setting.
        listens: True if news of the operating system are heard between listings.
    """

    uri: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    list_s: float | None
    listens: bool


def _only[T](*kinds: SourceKind, required: bool = False) -> AfterValidator:
    """A field that only sources of these kinds have, and must have if it is required."""
    names = " or ".join(kinds)

    def check(value: T, info: ValidationInfo) -> T:
        kind = info.data.get("kind")
        if kind is not None and kind not in kinds and value:
            raise ValueError(f"expected only where kind is {names}, found in one of kind {kind}")
        if kind in kinds and required and value is None:
            raise ValueError(f"expected, for a source of kind {kind} needs it; found nothing")
        return value

    return AfterValidator(check)


_TOLD = (SourceKind.WEBHOOK, SourceKind.QUEUE)
_NOT_GIVEN = Field(default=None, validate_default=True)


def _topic(arn: str) -> str:
    if not _SNS_TOPIC.fullmatch(arn):
        raise ValueError(f"expected arn:aws:sns:region:account:name, found {arn!r:.80}")
    return arn


def _broker(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme:
        raise ValueError(f"expected a broker's URL such as amqp://host:5672//, found {url!r:.80}")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise ValueError(
            "a URL with a password must not stand in a source: put all of it into the environment "
            "as AUGURY_SECRET_{NAME}, and name it here by `url_secret`"
        )
    return url


def _or_url(name: str | None, info: ValidationInfo) -> str | None:
    given = (info.data.get("url") is not None) + (name is not None)
    if info.data.get("kind") is SourceKind.QUEUE and "url" in info.data and given != 1:
        raise ValueError(f"expected exactly one of url and url_secret, found {given or 'none'}")
    return name


def _of_s3(reconcile: Reconcile | None, info: ValidationInfo) -> Reconcile | None:
    provider = info.data.get("provider")
    if reconcile is not None and provider not in {Provider.S3, Provider.MINIO}:
        raise ValueError(
            "expected provider s3 or minio beside it, whose objects are listed and notified under "
            f"one name; found {provider or 'no provider'}"
        )
    return reconcile


def _tellable(
    events: tuple[ObjectEvent, ...] | None, info: ValidationInfo
) -> tuple[ObjectEvent, ...] | None:
    unheard = set(events or ()) - {"created", "updated"}
    if info.data.get("kind") is SourceKind.OBJECTS and unheard:
        raise ValueError(
            f"expected created or updated: a listing does not show what was {min(unheard)}; a "
            f"source of kind webhook or queue is told of it; found {events}"
        )
    return events


class SourceSpec(_Spec):
    """What produces events from the outside: objects that are watched, a webhook, a queue.

    Attributes:
        kind: `objects` (the default), `webhook` or `queue`; which other fields there are depends
            on it.
        uri: objects: `file:///folder/`, `s3://bucket/prefix/` or a path; stored in its canonical
            form. A local folder that does not exist is made.
        include: objects: globs of keys relative to `uri`, of which one must match; `*` stays
            within a folder, `**` crosses folders. None given: all keys.
        exclude: objects: globs of keys that are left out; stronger than `include`.
        list_s: objects: seconds between two listings; None: the setting `AUGURY_LIST_S`.
        provider: webhook, queue: whose notifications become events about objects; what is none of
            theirs passes through untouched, as everything does where no provider is named.
        secret: webhook: name of the shared secret; `AUGURY_SECRET_{secret}` holds it, in the
            environment of `augury api`.
        signature: webhook: how a sender proves that it knows the secret.
        tolerance_s: webhook: how far a signature's timestamp may be from now.
        topic: webhook: ARN of the SNS topic whose subscription is confirmed.
        url, url_secret: queue: the broker, as kombu writes it: `amqp://host//`,
            `redis://host:6379/0`, `sqs://`; with a password only as the name of a secret, in the
            environment of `augury sources`. Exactly one of them.
        queue: queue: its name; it must exist.
        prefetch: queue: most messages that are taken and not yet acknowledged.
        reconcile: webhook, queue: what is listed now and then, to find what nobody told of.
        events: what is announced; None: all that the kind can tell (objects: created, updated).
        enabled: False: nothing is watched, accepted or consumed. An object watcher announces
            later what came meanwhile; a sender is asked to try again; messages wait.
        description: for people.

    Names that begin with `.` or `_` (files and folders) and those of unfinished downloads (`.tmp`,
    `.part`, `.partial`, `.crdownload`, `.swp`, `~`) are never announced by listing.
    """

    kind: SourceKind = SourceKind.OBJECTS
    uri: Annotated[
        Annotated[str, Field(min_length=1), AfterValidator(_folder)] | None,
        _only(SourceKind.OBJECTS, required=True),
    ] = _NOT_GIVEN
    include: Annotated[tuple[str, ...], _only(SourceKind.OBJECTS)] = ()
    exclude: Annotated[tuple[str, ...], _only(SourceKind.OBJECTS)] = ()
    list_s: Annotated[Annotated[float, Field(gt=0)] | None, _only(SourceKind.OBJECTS)] = None
    provider: Annotated[Provider | None, _only(*_TOLD)] = None
    secret: Annotated[SecretName | None, _only(SourceKind.WEBHOOK, required=True)] = _NOT_GIVEN
    signature: Annotated[Signature | None, _only(SourceKind.WEBHOOK)] = None
    tolerance_s: Annotated[
        Annotated[float, Field(gt=0, le=3600)] | None, _only(SourceKind.WEBHOOK)
    ] = None
    topic: Annotated[Annotated[str, AfterValidator(_topic)] | None, _only(SourceKind.WEBHOOK)] = (
        None
    )
    url: Annotated[Annotated[str, AfterValidator(_broker)] | None, _only(SourceKind.QUEUE)] = None
    url_secret: Annotated[SecretName | None, _only(SourceKind.QUEUE), AfterValidator(_or_url)] = (
        _NOT_GIVEN
    )
    queue: Annotated[
        Annotated[str, Field(min_length=1, max_length=255)] | None,
        _only(SourceKind.QUEUE, required=True),
    ] = _NOT_GIVEN
    prefetch: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, _only(SourceKind.QUEUE)] = None
    reconcile: Annotated[Reconcile | None, _only(*_TOLD), AfterValidator(_of_s3)] = None
    events: Annotated[
        Annotated[tuple[ObjectEvent, ...], Field(min_length=1)] | None,
        AfterValidator(_tellable),
    ] = None
    enabled: bool = True
    description: str | None = None

    @property
    def is_told(self) -> bool:
        """True if it is told of objects, and finds them itself only by reconciling."""
        return self.kind is not SourceKind.OBJECTS

    @property
    def watch(self) -> Watch | None:
        """What it lists; None if it lists nothing."""
        if self.uri is not None:
            return Watch(
                uri=self.uri,
                include=self.include,
                exclude=self.exclude,
                list_s=self.list_s,
                listens=True,
            )
        if self.reconcile is None:
            return None
        return Watch(
            uri=self.reconcile.uri,
            include=self.reconcile.include,
            exclude=self.reconcile.exclude,
            list_s=self.reconcile.every_s,
            listens=False,
        )

    def announces(self, change: str) -> bool:
        """True if this change of an object (`created`, `deleted`, ...) becomes an event."""
        return self.events is None or change in self.events

    def stored(self) -> dict[str, Any]:
        """As it is kept and shown: without what was not given."""
        return self.model_dump(mode="json", exclude_none=True)


def _time(text: str) -> str:
    checked_time(text)
    return text


def _one_rhythm(at: str | None, info: ValidationInfo) -> str | None:
    """Looked at where the last of the three is: faults of the others are their own."""
    if {"cron", "every_s"} <= info.data.keys():
        given = [name for name in ("cron", "every_s") if info.data[name] is not None]
        given += ["at"] if at is not None else []
        if len(given) != 1:
            found = " and ".join(given) or "nothing"
            raise ValueError(f"expected exactly one of cron, every_s and at, found {found}")
    return at


def _only_bounded(limit: int | None, info: ValidationInfo) -> int | None:
    bounded = info.data.get("missed") is Missed.BOUNDED
    if "missed" in info.data and bounded is not (limit is not None):
        raise ValueError(
            f"expected it together with missed: bounded, found {limit or 'nothing'} with missed: "
            f"{info.data['missed']}"
        )
    return limit


class ScheduleSpec(_Spec):
    """A schedule: when it ticks. It has exactly one of `cron`, `every_s` and `at`.

    Attributes:
        cron: five fields (minute, hour, day of month, month, day of week), six with seconds
            first, or `@hourly`, `@daily` and the like.
        every_s: seconds between two ticks, at most a leap year, counted from 1970-01-01T00:00Z.
        at: the one time at which it ticks, from 1970 to 9998; local time of `timezone` if it
            names no zone. One that is past when it is applied never ticks.
        timezone: IANA name of the zone whose local time `cron` and `at` mean.
        spring: what a local time means that is skipped when clocks go forward: `next`, the
            instant of the change, or `skip`, nothing.
        autumn: what a local time means that comes twice when clocks go back: `first`, `second`
            or `both`. Neither concerns a cron whose hour is `*`: it keeps its beat in real time.
        missed: what becomes of ticks that no scheduler was there for.
        missed_limit: where `missed` is `bounded`: how many of them fire, the newest.
        overlap: what becomes of a tick while a run that the previous one started is active.
        enabled: False: it does not tick, and what comes due meanwhile is not missed.
        description: for people.
    """

    cron: Annotated[str, AfterValidator(checked_expression)] | None = None
    every_s: Annotated[int, Field(ge=1, le=_LONGEST_EVERY_S)] | None = None
    at: Annotated[Annotated[str, AfterValidator(_time)] | None, AfterValidator(_one_rhythm)] = (
        _NOT_GIVEN
    )
    timezone: Annotated[str, AfterValidator(checked_zone)] = "UTC"
    spring: Spring = Spring.NEXT
    autumn: Autumn = Autumn.FIRST
    missed: Missed = Missed.LAST
    missed_limit: Annotated[
        Annotated[int, Field(ge=1, le=MOST_BOUNDED)] | None, AfterValidator(_only_bounded)
    ] = _NOT_GIVEN
    overlap: Overlap = Overlap.ALLOW
    enabled: bool = True
    description: str | None = None

    def rhythm(self) -> Rhythm:
        """The instants at which it ticks."""
        if self.every_s is not None:
            return Every(self.every_s)
        local = LocalTime(self.timezone, spring=self.spring, autumn=self.autumn)
        return Once(self.at, local) if self.at is not None else Cron(self.cron or "", local)

    def stored(self) -> dict[str, Any]:
        """As it is kept and shown: without what was not given."""
        return self.model_dump(mode="json", exclude_none=True)
