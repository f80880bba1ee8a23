"""What the actions with an effect outside Augury say: `notify`, `stream` and `call`.

    actions:
      - notify:
          webhook: {url: "https://hooks.example.com/augury", signing_secret: HOOK_KEY}
      - notify:
          slack: {url_secret: SLACK_HOOK, text: "${data.job} failed: ${data.details}"}
      - stream:
          queue: {url_secret: RABBIT, queue: predictions}
      - call: {function: tell_ops, arguments: {key: "${data.key}"}}

docs/actions.md is the page for users; what is written here is what it says.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from augury.actions.fields import (
    BrokerUrl,
    Headers,
    Json,
    SecretHeaders,
    SecretName,
    Spec,
    Template,
    Templates,
    Text,
    WebUrl,
    exactly_one,
)


class Retry(Spec):
    """How long a transient failure is tried again; a permanent one never is.

    Attributes:
        max_attempts: attempts in all, the first among them.
        max_time_s: seconds after the event was routed in which an attempt may begin.
        first_delay_s: seconds before the second attempt, about; each further one waits twice as
            long as the one before.
        longest_delay_s: seconds between two attempts at most, unless the target asks for more.
    """

    max_attempts: int = Field(default=15, ge=1, le=100)
    max_time_s: float = Field(default=86_400.0, gt=0, le=7 * 86_400.0)
    first_delay_s: float = Field(default=5.0, gt=0, le=3600)
    longest_delay_s: float = Field(default=14_400.0, gt=0, le=86_400.0)


class Webhook(Spec):
    """One POST.

    Attributes:
        url, url_secret: where to; exactly one of them.
        signing_secret: key of the signature; None: not signed.
        headers: more of them.
        secret_headers: those whose value is a secret, such as `authorization`.
        body: JSON with holes; None: the event in structured form.
        timeout_s: seconds for the whole exchange.
    """

    url: WebUrl | None = None
    url_secret: SecretName | None = None
    signing_secret: SecretName | None = None
    headers: Headers = Field(default_factory=dict)
    secret_headers: SecretHeaders = Field(default_factory=dict)
    body: Json = None
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _has_one_url(self) -> Self:
        exactly_one(self, "url", "url_secret")
        return self


class Slack(Spec):
    """A message to an incoming webhook of Slack, or of anything that takes `{"text": ...}`.

    Attributes:
        url_secret: the webhook's URL, which is a secret.
        text: the message.
        timeout_s: seconds for the whole exchange.
    """

    url_secret: SecretName
    text: Text
    timeout_s: float = Field(default=10.0, gt=0, le=60)


class Email(Spec):
    """One mail by SMTP.

    Attributes:
        url_secret: `smtps://user:password@host:465` (TLS), `smtp+starttls://...:587` (STARTTLS,
            required) or `smtp://host:25` (neither, and no login).
        sender: address that it comes from.
        to: addresses.
        subject: one line.
        text: plain text.
        timeout_s: seconds that the server may be silent.
    """

    url_secret: SecretName = "SMTP"  # noqa: S105 - the name of a secret
    sender: Template
    to: Templates
    subject: Template
    text: Text
    timeout_s: float = Field(default=30.0, gt=0, le=120)


class Notify(Spec):
    """Tells somebody: exactly one of webhook, slack, email."""

    webhook: Webhook | None = None
    slack: Slack | None = None
    email: Email | None = None
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _has_one_channel(self) -> Self:
        exactly_one(self, "webhook", "slack", "email")
        return self


class RedisStream(Spec):
    """An entry of a Redis stream, with the fields `id`, `type` and `body`.

    Attributes:
        url, url_secret: `redis://host:6379/0`; exactly one of them.
        stream: key of the stream.
        max_length: entries to keep, about; None: all.
        body: JSON with holes; None: the event in structured form.
        timeout_s: seconds that the server may be silent.
    """

    url: BrokerUrl | None = None
    url_secret: SecretName | None = None
    stream: Template
    max_length: int | None = Field(default=None, ge=1)
    body: Json = None
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _has_one_url(self) -> Self:
        exactly_one(self, "url", "url_secret")
        return self


class Queue(Spec):
    """A message to any broker that kombu speaks: amqp://, redis://, sqs:// and others.

    Attributes:
        url, url_secret: the broker's address; exactly one of them.
        queue: name of a queue, addressed over the default exchange.
        exchange: instead of `queue`: name of an exchange.
        routing_key: for `exchange`; may be empty.
        body: JSON with holes; None: the event in structured form.
        timeout_s: seconds that the broker may be silent.
    """

    url: BrokerUrl | None = None
    url_secret: SecretName | None = None
    queue: Template | None = None
    exchange: Template | None = None
    routing_key: Template | None = None
    body: Json = None
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        exactly_one(self, "url", "url_secret")
        exactly_one(self, "queue", "exchange")
        if self.queue is not None and self.routing_key is not None:
            raise ValueError("`routing_key` belongs to `exchange`; a queue's key is its name")
        return self


class Stream(Spec):
    """Puts a message somewhere: exactly one of redis, queue."""

    redis: RedisStream | None = None
    queue: Queue | None = None
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        exactly_one(self, "redis", "queue")
        return self


class Call(Spec):
    """Calls a registered Python function in a worker; see `augury.function`.

    Attributes:
        function: the name under which it is registered.
        arguments: JSON with holes by name, as `call.arguments`.
        timeout_s: seconds after which the attempt counts as failed.
    """

    function: str = Field(min_length=1, max_length=200)
    arguments: dict[str, Json] = Field(default_factory=dict)
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    retry: Retry = Retry()


type EffectSpec = Notify | Stream | Call
type Channel = Webhook | Slack | Email | RedisStream | Queue | Call


def channel_of(spec: EffectSpec) -> tuple[str, Channel]:
    """The kind of effect, as the table `effects` and the docs name it, and its own fields."""
    if isinstance(spec, Call):
        return "call", spec
    named: dict[str, Any] = (
        {"webhook": spec.webhook, "slack": spec.slack, "email": spec.email}
        if isinstance(spec, Notify)
        else {"redis_stream": spec.redis, "queue": spec.queue}
    )
    return next((kind, found) for kind, found in named.items() if found is not None)
