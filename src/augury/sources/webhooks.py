"""What is posted to a source of kind webhook: verified, understood, durable, then answered.

Notifications of the source's provider become events about objects (`intake.py`). Everything else
passes through untouched: a CloudEvent as itself, other JSON as the data of
`augury.webhook.received`. Ids follow from what the sender calls its request, or from the body, so a
request that is sent again because our answer was lost changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augury import clock
from augury.bus.port import Bus
from augury.errors import NotFoundError, UnavailableError
from augury.events.catalog import EventType
from augury.events.envelope import Event, parse_event
from augury.events.http import BATCHED, STRUCTURED, parse_request
from augury.events.normalise import ObjectNotice, normalise
from augury.ids import derived_id, digest
from augury.resources import store
from augury.resources.store import Kind, Resource
from augury.settings import Settings, secret
from augury.sources.handshake import answer_handshake, decoded
from augury.sources.intake import take
from augury.sources.signature import Call, verify
from augury.sources.spec import Signature, SourceKind, SourceSpec
from augury.storage.database import Database

DEFAULT_TOLERANCE_S = 300.0
# what senders call one request, the same when they send it again
_ID_HEADERS = ("webhook-id", "x-github-delivery", "x-amz-sns-message-id", "idempotency-key")
_KIND_HEADERS = ("x-github-event", "x-event-key")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What to answer.

    Attributes:
        body: the answer.
        accepted: False if it answers a handshake.
    """

    body: Mapping[str, Any]
    accepted: bool


def receive(database: Database, bus: Bus, settings: Settings, name: str, call: Call) -> Receipt:
    """Takes one request to the webhook of a source; durable when this returns. Idempotent.

    Raises:
        NotFoundError: no such source, or it is no webhook.
        UnauthorizedError: the sender does not know the secret.
        InvalidError: not JSON, or a CloudEvent that is none; nothing of it was taken.
        UnavailableError: the source is disabled or has no secret here, or database or bus did
            not answer; the same request may be sent again.
    """
    source, spec = webhook(database, name)
    authenticate(name, spec, call)
    document = decoded(call.body)
    handshake = answer_handshake(call, document, topic=spec.topic)
    if handshake is not None:
        return Receipt(body=handshake, accepted=False)
    if not source.enabled:
        raise UnavailableError(f"source {name} is disabled; `augury sources enable {name}`")
    notices, others = _understood(settings, name, spec, call, document)
    taken = take(database, source, spec, notices)
    if others:
        bus.publish([event.to_json() for event in others])
    counts = {meaning.value: count for meaning, count in sorted(taken.meanings.items())}
    ids = [*taken.event_ids, *(event.id for event in others)]
    return Receipt(body={"ids": ids, "notices": counts, "passed": len(others)}, accepted=True)


def webhook(database: Database, name: str) -> tuple[Resource, SourceSpec]:
    """The source of that name, if it is a webhook.

    Raises:
        NotFoundError: it is none.
    """
    with database.read() as connection:
        source = store.find(connection, Kind.SOURCE, name)
    spec = SourceSpec.model_validate(source.spec) if source else None
    if source is None or spec is None or spec.kind is not SourceKind.WEBHOOK:
        raise NotFoundError(f"no source of kind webhook is named {name!r}", name=name)
    return source, spec


def authenticate(name: str, spec: SourceSpec, call: Call) -> None:
    """Returns if the sender knows the source's secret.

    Raises:
        UnauthorizedError: it does not.
        UnavailableError: this process does not know it either.
    """
    known = secret(spec.secret or "")
    if not known:
        raise UnavailableError(
            f"source {name} needs AUGURY_SECRET_{spec.secret} in the environment of `augury api`"
        )
    verify(
        call,
        signature=spec.signature or Signature.STANDARD,
        secret=known,
        now=clock.utc_now(),
        tolerance_s=spec.tolerance_s or DEFAULT_TOLERANCE_S,
    )


def _understood(
    settings: Settings, name: str, spec: SourceSpec, call: Call, document: Any
) -> tuple[list[ObjectNotice], list[Event]]:
    """Notifications of the source's provider, and events for everything else."""
    found = normalise(document, spec.provider) if spec.provider else []
    notices = [item for item in found if isinstance(item, ObjectNotice)]
    if not notices:
        return [], _whole(settings, name, call, document)
    rest = [item.document for item in found if not isinstance(item, ObjectNotice)]
    return notices, _wrapped(settings, name, call, rest)


def _whole(settings: Settings, name: str, call: Call, document: Any) -> list[Event]:
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in {STRUCTURED, BATCHED} or "ce-specversion" in call.headers:
        return parse_request(call.headers, call.body, max_bytes=settings.max_event_bytes)
    return _wrapped(settings, name, call, [document])


def _wrapped(settings: Settings, name: str, call: Call, documents: Sequence[Any]) -> list[Event]:
    request = next((call.headers[h] for h in _ID_HEADERS if call.headers.get(h)), None)
    request = request or digest(call.body)
    subject = next((call.headers[h] for h in _KIND_HEADERS if call.headers.get(h)), None)
    return [
        parse_event(
            Event(  # without a time: the same request again is the same event
                type=EventType.WEBHOOK_RECEIVED,
                data=document,
                source=f"augury/sources/{name}",
                subject=subject,
                id=derived_id("hook", name, request, str(index)),
            ).to_json(),
            max_bytes=settings.max_event_bytes,
        )
        for index, document in enumerate(documents)
    ]
