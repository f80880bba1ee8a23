"""Documents: every fault with its line, nothing read by half, nothing that eats the memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from augury.errors import Fault, InvalidError
from augury.jobs.spec import JobSpec
from augury.resources.documents import (
    Entry,
    did_you_mean,
    name_fault,
    parse_document,
    parse_entry,
    validated,
)

_DOCUMENT = """\
# what is watched
sources:
  - name: landing
    uri: ./landing/
jobs:
  - name: score
    model: m@champion
    output: ./out/
    input:
      - uri: ./in/
        tag: t
  - {name: other, model: m, output: ./other/}
rules:
"""


def _faults(text: str | bytes) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        parse_document(text)
    return [str(fault) for fault in caught.value.faults]


def test_reads_entries_with_lines() -> None:
    source, job, other = parse_document(_DOCUMENT, origin="a.yaml", base=Path("/b"))
    assert (source.section, source.name, source.fields) == (
        "sources",
        "landing",
        {"uri": "./landing/"},
    )
    assert (job.origin, job.base) == ("a.yaml", Path("/b"))
    assert job.lines[()] == 6
    assert job.lines["output",] == 8
    assert job.lines["input", 0, "tag"] == 11
    assert other.lines["model",] == 12
    assert "name" not in job.fields


def test_json_is_read_too() -> None:
    text = json.dumps({"jobs": [{"name": "a", "model": "m", "output": "s3://b/"}]}, indent="\t")
    (entry,) = parse_document(text)
    assert entry.fields == {"model": "m", "output": "s3://b/"}
    assert parse_document("\ufeff{}".encode()) == []


def test_several_documents_in_one_stream_are_one() -> None:
    entries = parse_document("jobs: [{name: a}]\n---\nrules: [{name: b}]\n")
    assert [entry.name for entry in entries] == ["a", "b"]


def test_empty_documents_say_nothing() -> None:
    for text in ("", "# only a comment\n", "jobs:\nrules: []\n", "---\n---\n"):
        assert parse_document(text) == []


def test_dates_stay_text() -> None:
    (entry,) = parse_document("jobs: [{name: a, description: 2013-07-01}]")
    assert entry.fields["description"] == "2013-07-01"


def test_merge_keys_and_anchors_work() -> None:
    (_, second) = parse_document(
        "jobs:\n- &base {name: a, model: m}\n- {<<: *base, name: b, output: o}\n"
    )
    assert second.fields == {"model": "m", "output": "o"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jobs: [\n  - what", ["line 2: not YAML"]),
        ("- a\n- b", ["line 1: expected sections"]),
        ("just text", ["line 1: expected sections"]),
        ("rulez: []\njobz: []", ["line 1: rulez: unknown section; did you mean 'rules'", "line 2"]),
        ("jobs: {name: a}", ["line 1: jobs: expected a list of entries, found a mapping"]),
        ("jobs:\n- text", ["line 2: jobs.0: expected an entry with a name, found 'text'"]),
        ("jobs:\n- model: m", ["line 2: jobs.0.name: expected a name"]),
        ("jobs:\n- name: a/b", ["line 2: jobs.0.name: expected a name"]),
        ("jobs:\n- name: 7", ["line 2: jobs.0.name: expected a name"]),
        ("jobs:\n- name: a\n  model: x\n  model: y", ["line 4: jobs.0.model: stands here"]),
        ("jobs:\n- {name: a, <<: 3}", ["line 2: jobs.0: cannot be merged: expected a mapping"]),
        ("jobs: []\njobs: []", ["line 2: jobs: stands here a second time"]),
        ("jobs:\n- {name: a, x: .nan}", ["line 2: jobs.0: expected what JSON can hold"]),
        ('jobs:\n- {name: a, x: "\\0"}', ["line 2: jobs.0: expected what JSON can hold"]),
        ('jobs:\n- {name: a, x: "\\ud800"}', ["line 2: jobs.0: expected what JSON can hold"]),
        ("jobs:\n- {name: a, x: !!binary aGk=}", ["line 2: jobs.0: expected what JSON can hold"]),
        ("jobs:\n- {name: a, x: !!python/object:os.system {}}", []),
        (b"jobs: \xff", ["expected UTF-8"]),
    ],
)  # fmt: skip
def test_faults_name_line_and_field(text: str | bytes, expected: list[str]) -> None:
    if not expected:  # an unknown tag on a mapping is ignored: nothing is constructed
        assert parse_document(text)[0].fields == {"x": {}}
        return
    found = _faults(text)
    for part, fault in zip(expected, found, strict=True):
        assert fault.startswith(part), found


def test_every_fault_is_named() -> None:
    found = _faults("jobs:\n- {nam: a}\n- name: b\nrulez: 1\n- ")
    assert found  # a syntax error ends reading
    found = _faults("jobs:\n- {nam: a}\n- 3\nrulez: 1\n")
    assert len(found) == 3


def test_deep_and_exploding_documents_are_refused() -> None:
    levels = "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    bomb = f"jobs:\n- name: a\n  l0: &l0 [x]\n{levels}"
    assert "expected at most" in _faults(bomb)[0]
    assert "expected at most" in _faults("jobs:\n- &a {name: x, y: *a}\n")[0]
    assert _faults("[" * 5000)


def test_nearest_line_is_found() -> None:
    (_, job, _) = parse_document(_DOCUMENT)
    assert job.fault("wrong", "input", 0, "uri").line == 10
    assert job.fault("wrong", "input", 0, "nothing").line == 10
    assert job.fault("wrong", "shape", "cpus").line == 6
    assert str(job.fault("wrong", "output")) == "line 8: jobs.score.output: wrong"
    assert Entry(section="jobs", name="a", fields={}).fault("wrong").line is None


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cpus: int = 1


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")
    output: str
    shape: _Inner = _Inner()
    inners: tuple[_Inner, ...] | None = None


def _validate(text: str, spec: type[BaseModel] = _Spec) -> tuple[BaseModel | None, list[Fault]]:
    (entry,) = parse_document(text)
    faults: list[Fault] = []
    return validated(entry, spec, faults), faults


def test_valid_fields_become_a_spec() -> None:
    spec, faults = _validate("jobs: [{name: a, output: x, shape: {cpus: 2}}]")
    assert spec == _Spec(output="x", shape=_Inner(cpus=2))
    assert faults == []


def test_unknown_fields_get_a_hint_at_every_level() -> None:
    text = "jobs:\n- name: a\n  outptu: x\n  shape:\n    cpu: 2\n  inners:\n  - {zzz: 1}\n"
    spec, faults = _validate(text)
    assert spec is None
    assert sorted(str(fault) for fault in faults) == [
        "line 2: jobs.a.output: expected, found nothing",
        "line 3: jobs.a.outptu: unknown field; did you mean 'output'?",
        "line 5: jobs.a.shape.cpu: unknown field; did you mean 'cpus'?",
        "line 7: jobs.a.inners.0.zzz: unknown field; expected one of cpus",
    ]


def test_wrong_values_say_what_was_found() -> None:
    text = (
        "jobs:\n- {name: a, model: m, output: o, shape: {memory: lots},\n   max_concurrency: 0}\n"
    )
    _, faults = _validate(text, JobSpec)
    assert [(fault.path, fault.line) for fault in faults] == [
        ("jobs.a.shape.memory", 2),
        ("jobs.a.max_concurrency", 3),
    ]
    assert faults[0].message == "expected a size such as '2 GiB' or '500 MB', found 'lots'"
    assert faults[1].message.endswith("found 0")


def test_one_entry_alone() -> None:
    entry = parse_entry('{"name": "a", "model": "m"}', section="jobs", name="a")
    assert (entry.name, entry.fields) == ("a", {"model": "m"})
    assert parse_entry("name: x\njob: y").fields == {"name": "x", "job": "y"}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("{name: b}", "a", "expected 'a', found 'b'"),
        ("[]", "a", "expected a mapping of fields, found a list"),
        ("", "a", "expected a mapping of fields, found 0 documents"),
        ("{}", "a b", "expected a name"),
        ("{x: 1, x: 2}", "a", "second time"),
    ],
)
def test_one_entry_that_is_none(text: str, name: str, expected: str) -> None:
    with pytest.raises(InvalidError, match=expected):
        parse_entry(text, section="jobs", name=name)


def test_names() -> None:
    assert name_fault("score_day.v2-x") is None
    assert name_fault("a" * 200) is None
    for wrong in ("", "a" * 201, "a b", "-a", "ä", "a\n", 7, None):
        assert name_fault(wrong) is not None, wrong


def test_hints() -> None:
    assert did_you_mean("outptu", ["output", "input"]) == "; did you mean 'output'?"
    assert did_you_mean("zzz", ["output"]) == ""


_WORDS = [
    *("jobs", "rules", "models", "name", "a", "model", "{", "}", "[", "]", ",", "'", '"', "#"),
    *("---", "...", "?", "~", "|", ">", "\\", "0x", ".inf", "1e999", "-{SP}", ":{SP}", "&x{SP}"),
    *(
        "*x{SP}",
        "<<:{SP}",
        "!!int{SP}",
        "!!bool{SP}",
        "!!binary{SP}",
        "!!set{SP}",
        "%YAML{SP}9.9",
        "\x00",
    ),
    *("{NL}", "{TAB}", "{SP}"),
]
_SPACES = {"{NL}": "\n", "{TAB}": "\t", "{SP}": " "}


def _joined(words: list[str]) -> str:
    text = "".join(words)
    for name, space in _SPACES.items():
        text = text.replace(name, space)
    return text


_TEXTS = st.lists(st.sampled_from(_WORDS), max_size=25).map(_joined)


@given(_TEXTS | st.binary(max_size=40) | st.text(max_size=40))
def test_nothing_but_the_declared_error_comes_out(text: str | bytes) -> None:
    for parse in (parse_document, lambda given: parse_entry(given, section="jobs", name="a")):
        try:
            parse(text)
        except InvalidError as error:
            assert error.faults
