from __future__ import annotations

from typing import Any

import pytest

from augury.actions.effect import EffectRequest
from augury.actions.resolve import resolve
from augury.actions.spec import parse_actions
from augury.errors import InvalidError

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "source": "augury",
    "id": "run_1:FAILED",
    "type": "augury.run.failed",
    "data": {
        "job": "score",
        "rows_in": 12,
        "to": ["a@example.com", "b@example.com"],
        "bad": "x\ny",
    },
}


def asked(**action: Any) -> EffectRequest:
    (spec,) = parse_actions([action])
    request = resolve(spec, EVENT)
    assert isinstance(request, EffectRequest)
    return request


def faults(**action: Any) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        asked(**action)
    return [str(fault) for fault in caught.value.faults]


def test_a_webhook_carries_the_event_unless_told_otherwise() -> None:
    request = asked(notify={"webhook": {"url": "https://hooks.example.com:8443/${data.job}"}})
    assert (request.kind, request.target) == ("webhook", "https://hooks.example.com:8443")
    assert request.fields["url"] == "https://hooks.example.com:8443/score"
    assert request.fields["body"] == EVENT
    assert request.fields["content_type"] == "application/cloudevents+json"
    assert (request.retry.max_attempts, request.retry.max_time_s) == (15, 86_400.0)


def test_a_body_is_filled_at_any_depth_and_keeps_types() -> None:
    body = {"text": "${data.job}: ${data.rows_in} rows", "rows": ["${data.rows_in}", 7, None]}
    request = asked(
        notify={
            "webhook": {
                "url_secret": "HOOK",
                "body": body,
                "headers": {"x-job": "${data.job}"},
                "secret_headers": {"authorization": "API_TOKEN"},
            },
            "retry": {"max_attempts": 3, "max_time_s": 60},
        }
    )
    assert request.target == "webhook $HOOK"
    assert request.fields["body"] == {"text": "score: 12 rows", "rows": [12, 7, None]}
    assert request.fields["content_type"] == "application/json"
    assert request.fields["headers"] == {"x-job": "score"}
    assert request.fields["secret_headers"] == {"authorization": "API_TOKEN"}
    assert (request.retry.max_attempts, request.retry.max_time_s) == (3, 60)


def test_a_slack_message_and_a_mail_are_filled() -> None:
    slack = asked(notify={"slack": {"url_secret": "SLACK_HOOK", "text": "${data.job} failed"}})
    assert (slack.kind, slack.target) == ("slack", "slack $SLACK_HOOK")
    assert slack.fields["text"] == "score failed"
    mail = {
        "sender": "augury@example.com",
        "to": "${data.to}",
        "subject": "${data.job}",
        "text": "t",
    }
    request = asked(notify={"email": mail})
    assert (request.kind, request.target) == ("email", "email $SMTP")
    assert request.fields["to"] == ["a@example.com", "b@example.com"]


def test_streams_name_their_target_without_its_password() -> None:
    redis = asked(stream={"redis": {"url": "redis://r:6379/1", "stream": "s-${data.job}"}})
    assert (redis.kind, redis.target) == ("redis_stream", "redis://r:6379")
    assert redis.fields["stream"] == "s-score"
    queue = asked(stream={"queue": {"url_secret": "RABBIT", "exchange": "x", "routing_key": "a.b"}})
    assert (queue.kind, queue.target) == ("queue", "queue $RABBIT")


def test_a_call_has_the_event_and_its_arguments() -> None:
    request = asked(call={"function": "tell", "arguments": {"rows": "${data.rows_in}"}})
    assert (request.kind, request.target) == ("call", "call tell")
    assert request.fields["arguments"] == {"rows": 12}
    assert request.fields["event"] == EVENT


def test_the_name_of_an_action_is_its_kind_by_default() -> None:
    actions = parse_actions([{"call": {"function": "f"}}, {"name": "n", "call": {"function": "f"}}])
    assert [action.name for action in actions] == ["call", "n"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"notify": {"webhook": {}}}, "exactly one of url, url_secret, found none"),
        (
            {"notify": {"webhook": {"url": "https://a/", "url_secret": "A"}}},
            "found url and url_secret",
        ),
        ({"notify": {"webhook": {"url": "ftp://a/"}}}, "begins with https://"),
        ({"notify": {"webhook": {"url": "https:///x"}}}, "expected a URL such as"),
        ({"notify": {"webhook": {"url": "https://u:p@a/"}}}, "AUGURY_SECRET_YOUR_NAME"),
        ({"notify": {"webhook": {"url": "https://a/${data.}"}}}, "expected a path such as"),
        ({"notify": {"webhook": {"url": "https://a/", "body": {"a": ["${"]}}}}, "expected '}'"),
        (
            {"notify": {"webhook": {"url": "https://a/", "headers": {"Authorization": "x"}}}},
            "name one in `secret_headers`",
        ),
        (
            {"notify": {"webhook": {"url": "https://a/", "headers": {"webhook-id": "x"}}}},
            "set by Augury",
        ),
        (
            {"notify": {"slack": {"url_secret": "https://hooks.slack", "text": "x"}}},
            "never the secret",
        ),
        ({"stream": {"queue": {"url": "amqp://u:p@a//", "queue": "q"}}}, "AUGURY_SECRET_YOUR_NAME"),
        ({"stream": {"queue": {"url": "amqp://a//"}}}, "exactly one of queue, exchange"),
        (
            {"notify": {"webhook": {"url": "https://a/"}, "retry": {"max_attempts": 0}}},
            "max_attempts",
        ),
    ],
)
def test_what_can_never_work_is_refused_at_once(action: dict[str, Any], message: str) -> None:
    assert any(message in fault for fault in faults(**action))


def test_a_refusal_does_not_repeat_a_secret() -> None:
    url = {"url": "https://u:s3cret@a/", "headers": {"Cookie": "s3cret"}}
    told = faults(notify={"webhook": url})
    told += faults(notify={"slack": {"url_secret": "https://h/s3cret", "text": "t"}})
    assert len(told) == 3
    assert "s3cret" not in str(told)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"notify": {"webhook": {"url": "https://${data.nobody}/"}}}, "nothing at data.nobody"),
        ({"notify": {"webhook": {"url": "https://a:${data.job}/"}}}, "ort could not be cast"),
        (
            {"notify": {"webhook": {"url": "https://a/", "headers": {"x": "${data.bad}"}}}},
            "one line of printable text",
        ),
        (
            {
                "notify": {
                    "email": {"sender": "a@b", "to": "${data.job}", "subject": "s", "text": "t"}
                }
            },
            "expected a mail address, found 'score'",
        ),
        (
            {
                "notify": {
                    "email": {"sender": "a@b", "to": "c@d", "subject": "${data.bad}", "text": "t"}
                }
            },
            "subject: expected one line",
        ),
    ],
)
def test_what_an_event_does_not_fill_is_named(action: dict[str, Any], message: str) -> None:
    assert any(message in fault for fault in faults(**action))
