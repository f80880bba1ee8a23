"""docs/actions.md says what actions do; here its examples prove it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from augury import clock
from augury.actions import circuit, effect_specs, inputs
from augury.actions.effect import EffectRequest
from augury.actions.effect_specs import Call, Email, Queue, RedisStream, Retry, Slack, Webhook
from augury.actions.fields import Spec
from augury.actions.functions import FunctionCall, find
from augury.actions.inputs import InputSpec
from augury.actions.resolve import resolve
from augury.actions.spec import KINDS, parse_actions
from augury.actions.start_run import RunRequest
from augury.actions.webhook import sign
from augury.engine.checks import prepare
from augury.resources.documents import parse_document
from augury.rules.spec import RuleSpec
from augury.settings import Settings

_ROOT = Path(__file__).parents[3]
PAGE = (_ROOT / "docs" / "actions.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_example_is_valid_and_shows_every_kind() -> None:
    rules = yaml.safe_load(_block("yaml example"))["rules"]
    seen = set()
    for rule in rules:
        spec = RuleSpec.model_validate({k: v for k, v in rule.items() if k != "name"})
        for action in parse_actions(spec.actions):
            seen |= {kind for kind in KINDS if getattr(action, kind) is not None}
    assert seen == set(KINDS)


def test_the_example_can_be_applied(settings: Settings) -> None:
    path = _ROOT / "examples" / "actions" / "augury.yaml"
    assert len(prepare(settings, parse_document(path.read_text())).resources) == 2


EVENT = {
    "type": "t",
    "source": "s",
    "id": "1",
    "data": {"files": [{"uri": "s3://b/1", "size": 3}, {"uri": "s3://b/2", "size": 0}], "day": "d"},
}


def test_the_inputs_are_as_described() -> None:
    start, tell = parse_actions(yaml.safe_load(_block("yaml inputs"))["actions"])
    values, faults = inputs.evaluate(start.inputs, EVENT)
    assert faults == []
    expected = {"files": ["s3://b/1"], "total": 3, "who": "nobody", "day": "d"}
    assert values["inputs"] == expected
    run = resolve(start, EVENT)
    assert isinstance(run, RunRequest)
    assert [one.uri for one in run.overrides.input or ()] == ["s3://b/1"]
    told = resolve(tell, EVENT)
    assert isinstance(told, EffectRequest)
    assert told.fields["body"]["files"][1] == {"name": "s3://b/2", "bytes": 0}


def test_the_limits_are_the_real_ones() -> None:
    for limit in (inputs.MAX_CHARS, inputs.MAX_NODES, inputs.MAX_BYTES):
        assert f"{limit:,} " in PAGE


def _verify() -> Any:
    names: dict[str, Any] = {}
    exec(_block("python verify"), names)
    return names["verify"]


def _headers(body: bytes, timestamp: int) -> dict[str, str]:
    return {
        "webhook-id": "out_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(SECRET, "out_1", timestamp, body),
    }


def test_the_snippet_verifies_what_we_sign() -> None:
    now = int(clock.utc_now().timestamp())
    _verify()(SECRET, _headers(b"{}", now), b"{}")


@pytest.mark.parametrize(
    ("body", "changes", "message"),
    [
        (b"{ }", {}, "not signed"),
        (b"{}", {"webhook-id": "out_2"}, "not signed"),
        (b"{}", {"webhook-signature": "v1,AAAA"}, "not signed"),
    ],
)
def test_the_snippet_refuses_what_was_changed(
    body: bytes, changes: dict[str, str], message: str
) -> None:
    headers = _headers(b"{}", int(clock.utc_now().timestamp())) | changes
    with pytest.raises(ValueError, match=message):
        _verify()(SECRET, headers, body)


def test_the_snippet_refuses_a_recording() -> None:
    with pytest.raises(ValueError, match="too old"):
        _verify()(SECRET, _headers(b"{}", 1), b"{}")


def test_the_function_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    exec(_block("python function"), {"__name__": "docs_actions"})
    made = FunctionCall(
        id="out_1",
        event={"type": "t"},
        arguments={"manifest": "m"},
        attempt=1,
        rule_id="r",
        action="a",
    )
    find("refresh_dashboard", "")(made)
    assert capsys.readouterr().out == "m t out_1 1\n"


@pytest.mark.parametrize(
    "spec", [Webhook, Slack, Email, RedisStream, Queue, Call, Retry, InputSpec]
)
def test_every_field_is_described(spec: type[Spec]) -> None:
    for name in spec.model_fields:
        assert f"`{name}`" in PAGE, f"{spec.__name__}.{name}"


def test_defaults_are_the_real_ones() -> None:
    for name, value in effect_specs.Retry().model_dump().items():
        assert re.search(rf"`{name}` \| {value:,.0f} \|", PAGE), name
    for name in ("dispatch_concurrency", "dispatch_threads"):
        assert f"`AUGURY_{name.upper()}` ({getattr(Settings(), name)})" in PAGE
    assert (circuit._FAILURES_TO_OPEN, circuit._FIRST_PAUSE_S, circuit._LONGEST_PAUSE_S) == (
        5, 5.0, 300.0,
    )  # fmt: skip
