from __future__ import annotations

from typing import Any

import pytest

from augury.actions.effect import EffectRequest
from augury.actions.inputs import MAX_NODES
from augury.actions.resolve import resolve
from augury.actions.spec import parse_actions
from augury.engine.checks import prepare
from augury.errors import InvalidError
from augury.resources.documents import parse_document
from augury.settings import Settings

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "source": "/s",
    "id": "1",
    "type": "acme.thing",
    "data": {"n": 3, "names": ["b", "a"], "nothing": None, "deep": {"x": 1}},
}


def filled(inputs: dict[str, Any], body: Any) -> Any:
    action = {"inputs": inputs, "notify": {"webhook": {"url": "https://a/", "body": body}}}
    (spec,) = parse_actions([action])
    request = resolve(spec, EVENT)
    assert isinstance(request, EffectRequest)
    return request.fields["body"]


def refused(inputs: dict[str, Any], **action: Any) -> list[str]:
    wanted = action or {"start_run": {"job": "j"}}
    with pytest.raises(InvalidError) as caught:
        parse_actions([{"inputs": inputs, **wanted}])
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"jmespath": "data.n"}, 3),
        ({"jmespath": "sort(data.names) | join('-', @)", "type": "string"}, "a-b"),
        ({"jmespath": "length(data.names)", "type": "integer"}, 2),
        ({"jmespath": "data.names[?@ == 'a']", "type": "list"}, ["a"]),
        ({"jmespath": "data.{m: n}", "type": "object"}, {"m": 3}),
        ({"jmespath": "data.n > `2`", "type": "boolean"}, True),
        ({"jmespath": "data.gone", "type": "integer", "default": 7}, 7),
        ({"jmespath": "data.nothing"}, None),
        ({"template": "${data.gone}", "default": "x"}, "x"),
        ("${data.n}", 3),
        ("n is ${data.n}", "n is 3"),
    ],
)
def test_an_input_is_computed_with_its_type(spec: Any, value: Any) -> None:
    assert filled({"v": spec}, {"v": "${inputs.v}"}) == {"v": value}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"jmespath": "data.gone", "type": "string"}, "expected string, found nothing"),
        ({"jmespath": "data.n", "type": "string"}, "expected string, found 3"),
        ({"jmespath": "data.n > `2`", "type": "integer"}, "expected integer, found True"),
        ({"jmespath": "length(data.n)"}, "length"),
        ({"template": "${data.gone}"}, "nothing at data.gone"),
        ({"jmespath": f"['{'x' * 200}']" + " | [@, @][]" * 13}, "at most 1048576 bytes"),
    ],
)
def test_what_an_event_does_not_give_is_named(spec: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=r"inputs") as caught:
        filled({"v": spec}, {"v": "${inputs.v}"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"jmespath": "data["}, "expected a JMESPath expression"),
        ({"jmespath": "split(data)"}, "no function 'split'; there are: abs"),
        ({"jmespath": "join(data.names)"}, "join() takes 2 arguments, found 1"),
        ({"jmespath": "length(a, b)"}, "length() takes 1 arguments, found 2"),
        ({"jmespath": "a" + "[0]" * MAX_NODES}, f"at most {MAX_NODES} parts"),
        ({"jmespath": "(" * 1000}, "expected a JMESPath expression"),
        ({"jmespath": "a", "template": "b"}, "exactly one of jmespath, template"),
        ({"jmespath": "a", "type": "integer", "default": "x"}, "default: expected integer"),
        ({"jmespath": "a", "type": "float"}, "type"),
        ("${inputs.other}", "computed from the event alone"),
    ],
)
def test_what_can_never_work_is_refused_when_applied(spec: Any, message: str) -> None:
    assert any(message in fault for fault in refused({"v": spec})), refused({"v": spec})


def test_where_a_type_cannot_stand_it_is_refused_when_applied() -> None:
    inputs = {
        "files": {"jmespath": "data.files", "type": "list"},
        "meta": {"jmespath": "data.meta", "type": "object"},
        "n": {"jmespath": "data.n", "type": "integer"},
    }
    start = {"job": "${inputs.files}", "input": "${inputs.files}", "columns": ["${inputs.meta}"]}
    assert refused(inputs, start_run=start) == [
        "actions.0.start_run.job: expected text here, and input 'files' is declared as list",
        "actions.0.start_run.columns.0: expected text here, and input 'meta' is declared as object",
    ]
    hook = {"url": "https://a/${inputs.meta}", "body": ["${inputs.meta}", "x ${inputs.meta}"]}
    assert [fault.partition(":")[0] for fault in refused(inputs, notify={"webhook": hook})] == [
        "actions.0.notify.webhook.url",
        "actions.0.notify.webhook.body.1",
    ]
    deep = {"job": "${inputs.n.x}", "output": "${inputs.meta.x}", "model": "${inputs.nobody}"}
    found = refused(inputs, start_run=deep)
    assert "input 'n' is a integer and has no 'x'" in found[0]
    assert "no input 'nobody' is declared in the action's `inputs`; there are: files" in found[1]
    assert len(found) == 2


def test_the_event_that_is_sent_is_the_event() -> None:
    (spec,) = parse_actions(
        [{"inputs": {"v": "x"}, "notify": {"webhook": {"url": "https://a/${inputs.v}"}}}]
    )
    request = resolve(spec, EVENT)
    assert isinstance(request, EffectRequest)
    assert (request.fields["url"], request.fields["body"]) == ("https://a/x", EVENT)


def test_faults_have_the_line_in_which_they_stand(settings: Settings) -> None:
    text = """\
rules:
  - name: r
    pattern: {type: [acme.thing]}
    actions:
      - inputs:
          files:
            jmespath: "nosuch(data)"
        start_run: {job: j}
      - name: second
        start_run:
          job: j
          output: "s3://b/${inputs.gone}/"
"""
    with pytest.raises(InvalidError) as caught:
        prepare(settings, parse_document(text))
    lines = {fault.line for fault in caught.value.faults}
    assert lines == {7, 12}
