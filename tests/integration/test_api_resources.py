"""Resources, documents, runs and models over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from api_world import Answer, Api, serve

from augury.settings import Settings
from augury.storage import tables

_JOB = {"model": "m@champion", "output": "s3://out/days/"}
_RULE = {
    "pattern": {"type": ["a.b"]},
    "actions": [{"start_run": {"job": "score"}}],
}


@pytest.fixture
def api(live_settings: Settings) -> Iterator[Api]:
    with serve(live_settings) as found:
        yield found


def _faults(answer: Answer) -> dict[str, str]:
    assert answer.status == 400, answer
    return {fault["path"]: fault["message"] for fault in answer.body["faults"]}


def test_a_resource_from_its_creation_to_its_end(api: Api) -> None:
    made = api.request("PUT", "/v1/jobs/score", _JOB)
    assert (made.status, made.body["change"], made.body["version"]) == (201, "created", 1)
    assert "model" in made.body["warnings"][0]
    same = api.request("PUT", "/v1/jobs/score", {**_JOB, "name": "score"})
    assert (same.status, same.body["change"], same.body["version"]) == (200, "unchanged", 1)
    changed = api.request("PUT", "/v1/jobs/score", {**_JOB, "mode": "batch"})
    assert (changed.status, changed.body["change"], changed.body["version"]) == (200, "updated", 2)
    shown = api.get("/v1/jobs/score").body
    assert shown["spec"]["mode"] == "batch"
    assert shown["id"] == made.body["id"]
    assert api.request("DELETE", "/v1/jobs/score").status == 200
    for method in ("GET", "DELETE"):
        assert api.request(method, "/v1/jobs/score").status == 404
    with api.engine.database.read() as connection:
        types = connection.scalars(sa.select(tables.outbox.c.body)).all()
    told = [json.loads(body)["type"] for body in types]
    assert told == ["augury.job.created", "augury.job.updated", "augury.job.deleted"]


_SPECS: dict[str, dict[str, Any]] = {
    "jobs": _JOB,
    "rules": _RULE,
    "schedules": {"cron": "0 6 * * *", "timezone": "Europe/Berlin"},
    "sources": {"uri": "s3://landing/flights/"},
}


def test_every_kind(api: Api) -> None:
    for kind, spec in _SPECS.items():
        assert api.request("PUT", f"/v1/{kind}/one", spec).status == 201
        assert api.request("PUT", f"/v1/{kind}/two", spec).status == 201
        page = api.get(f"/v1/{kind}?limit=1").body
        assert [item["name"] for item in page["items"]] == ["one"]
        page = api.get(f"/v1/{kind}?limit=1&after={page['next']}").body
        assert [item["name"] for item in page["items"]] == ["two"]
        assert page["next"] is None
        unknown = _faults(api.request("PUT", f"/v1/{kind}/one", {**spec, "descriptoin": "x"}))
        assert "unknown field" in unknown[f"{kind}.one.descriptoin"]
        assert api.request("DELETE", f"/v1/{kind}/one").status == 200


def test_rules_are_switched(api: Api) -> None:
    api.request("PUT", "/v1/rules/r", _RULE)
    off = api.request("POST", "/v1/rules/r/disable").body
    assert (off["enabled"], off["version"], off["spec"]["enabled"]) == (False, 2, False)
    assert api.request("POST", "/v1/rules/r/disable").body["version"] == 2
    assert api.request("POST", "/v1/rules/r/enable").body["enabled"] is True
    assert api.request("POST", "/v1/rules/nobody/enable").status == 404


def test_wrong_rules_name_every_place(api: Api) -> None:
    rule = {
        "pattern": {"type": [{"prefx": "a"}], "data": {"key": "x"}},
        "actions": [{"start_run": {"jb": "score"}}, {"start_run": {"job": "${data."}}],
    }
    faults = _faults(api.request("PUT", "/v1/rules/r", rule))
    assert {path.split(".")[2] for path in faults} == {"pattern", "actions"}
    assert any("type" in path for path in faults)
    assert any("data" in path for path in faults)
    assert api.get("/v1/rules").body["items"] == []


_NO_BODIES = (b"", b"[]", b"{", b'{"model": NaN}', b'{"model": "a\\u0000b"}', b"\xff", b"null")


def test_bodies_that_are_none(api: Api) -> None:
    for raw in _NO_BODIES:
        for method, path in (("PUT", "/v1/jobs/a"), ("POST", "/v1/runs"), ("POST", "/v1/plan")):
            answer = api.request(method, path, raw=raw)
            assert answer.status == 400, (path, raw, answer)
            assert answer.body["message"]


def test_relative_paths_mean_nothing_here(api: Api) -> None:
    faults = _faults(api.request("PUT", "/v1/jobs/a", {"model": "m", "output": "./out/"}))
    assert "relative" in faults["jobs.a.output"]


def test_bad_names(api: Api) -> None:
    for name in ("a%20b", "-a", "x" * 201):
        assert api.request("PUT", f"/v1/jobs/{name}", _JOB).status == 400


def test_apply_is_all_or_nothing(api: Api) -> None:
    document = {
        "jobs": [{"name": "score", **_JOB}, {"name": "bad", "modell": "m", "output": "s3://o/"}],
        "rules": [{"name": "r", **_RULE}],
    }
    faults = _faults(api.request("POST", "/v1/apply", document))
    assert "did you mean 'model'" in faults["jobs.bad.modell"]
    assert api.get("/v1/jobs").body["items"] == []
    document["jobs"].pop()
    dry = api.request("POST", "/v1/apply?dry_run=true", document)
    assert [item["change"] for item in dry.body["items"]] == ["created", "created"]
    assert dry.body["dry_run"] is True
    assert api.get("/v1/jobs").body["items"] == []
    done = api.request("POST", "/v1/apply", document)
    assert [(item["kind"], item["name"]) for item in done.body["items"]] == [
        ("job", "score"),
        ("rule", "r"),
    ]
    again = api.request("POST", "/v1/apply", document)
    assert {item["change"] for item in again.body["items"]} == {"unchanged"}


def test_apply_reads_yaml(api: Api) -> None:
    text = b"rules:\n- name: r\n  pattern: {type: [a.b]}\n  actions: [{start_run: {job: absent}}]\n"
    done = api.request("POST", "/v1/apply", raw=text, Content_Type="application/yaml")
    assert done.status == 200
    assert "'absent', which does not exist" in done.body["warnings"][0]


def test_two_applies_at_once_are_each_whole(api: Api) -> None:
    def document(who: str) -> dict[str, Any]:
        return {
            "jobs": [
                {"name": f"j{number}", "model": who, "output": f"s3://{who}/"}
                for number in range(10)
            ]
        }

    answers: list[int] = []

    def apply(who: str) -> None:
        answers.extend(api.request("POST", "/v1/apply", document(who)).status for _ in range(5))

    threads = [threading.Thread(target=apply, args=(who,)) for who in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 10
    specs = [item["spec"] for item in api.get("/v1/jobs").body["items"]]
    assert len({(spec["model"], spec["output"]) for spec in specs}) == 1
    assert f"s3://{specs[0]['model']}/" == specs[0]["output"]


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_is_started_once_per_key(api: Api) -> None:
    api.request("PUT", "/v1/jobs/score", _JOB)
    body = {"job": "score", "input": "s3://in/a.parquet", "mode": "batch"}
    first = api.request("POST", "/v1/runs", body, Idempotency_Key="k1")
    assert first.status == 201
    assert first.headers["location"] == f"/v1/runs/{first.body['id']}"
    assert first.body["spec"]["input"] == [{"uri": "s3://in/a.parquet", "tag": None}]
    again = api.request("POST", "/v1/runs", body, Idempotency_Key="k1")
    assert (again.status, again.body["id"]) == (200, first.body["id"])
    other = api.request("POST", "/v1/runs", {**body, "mode": "auto"}, Idempotency_Key="k1")
    assert other.status == 409
    without = api.request("POST", "/v1/runs", body)
    assert without.status == 201
    assert without.body["id"] != first.body["id"]


def test_runs_are_listed_in_pages(api: Api) -> None:
    api.request("PUT", "/v1/jobs/score", _JOB)
    made = [api.request("POST", "/v1/runs", {"job": "score"}).body["id"] for _ in range(3)]
    page = api.get("/v1/runs?limit=2&job=score&state=ACCEPTED").body
    assert [item["id"] for item in page["items"]] == made[:0:-1]
    page = api.get(f"/v1/runs?limit=2&before={page['next']}").body
    assert ([item["id"] for item in page["items"]], page["next"]) == (made[:1], None)
    assert api.get("/v1/runs?job=other").body["items"] == []
    assert api.get("/v1/runs?state=LOST").status == 400
    assert api.get("/v1/runs?limit=0").status == 400


def test_a_run_is_canceled_and_deleted(api: Api) -> None:
    api.request("PUT", "/v1/jobs/score", _JOB)
    run = api.request("POST", "/v1/runs", {"job": "score"}).body["id"]
    assert api.request("DELETE", f"/v1/runs/{run}").status == 409
    canceled = api.request("POST", f"/v1/runs/{run}/cancel")
    assert (canceled.status, canceled.body["state"]) == (200, "CANCELED")
    logs = api.get(f"/v1/runs/{run}/logs").body["items"]
    assert "accepted" in logs[0]["message"].lower()
    after = api.get(f"/v1/runs/{run}/logs?after={logs[0]['cursor']}").body["items"]
    assert after == logs[1:]
    assert api.get(f"/v1/runs/{run}/manifest").status == 404
    assert api.request("DELETE", f"/v1/runs/{run}").status == 200
    assert api.get("/v1/runs").body["items"] == []


def test_runs_that_cannot_start(api: Api) -> None:
    api.request("PUT", "/v1/jobs/score", _JOB)
    assert api.request("POST", "/v1/runs", {"job": "scor"}).status == 404
    faults = _faults(
        api.request("POST", "/v1/runs", {"job": "score", "mode": "bath", "input": ["x"], "a": 1})
    )
    assert set(faults) == {"mode", "input.0.uri", "a"}
    assert api.get("/v1/runs/run_x").status == 404
    assert api.request("POST", "/v1/runs/run_x/cancel").status == 404
    assert api.request("POST", "/v1/plan", {"job": "score"}).status == 404  # its model


# --- the rest -------------------------------------------------------------------------------------


def test_models_that_are_not_there(api: Api) -> None:
    assert api.get("/v1/models").body == {"items": [], "next": None}
    assert api.get("/v1/models/m").status == 404
    assert api.get("/v1/models/m@champion").status == 404
    assert api.request("PUT", "/v1/models/m/aliases/champion", {"version": 1}).status == 404
    assert api.request("PUT", "/v1/models/m/aliases/champion", {"version": 0}).status == 400
    document = {"models": [{"name": "m", "path": "/etc/hostname"}]}
    assert (
        "augury models register"
        in _faults(api.request("POST", "/v1/apply", document))["models.m.path"]
    )


def test_unknown_places_and_methods(api: Api) -> None:
    for answer in (api.get("/v1/nowhere"), api.get("/")):
        assert (answer.status, answer.body["code"]) == (404, "not_found")
    assert api.request("PATCH", "/v1/jobs").body["code"] == "method_not_allowed"


def test_status_counts(api: Api) -> None:
    api.request("PUT", "/v1/jobs/score", _JOB)
    api.request("POST", "/v1/runs", {"job": "score", "mode": "batch"})
    status = api.get("/v1/status").body
    assert status["runs"] == {"ACCEPTED": 1}
    assert status["queues"] == {"batch": {"ready": 1}}
    assert status["bus"]["available"] is True
    assert status["workers"] == []


def test_audit_of_an_empty_ledger_holds(api: Api) -> None:
    report = api.get("/v1/audit?deep=false").body
    assert report["ok"] is True
    assert api.request("POST", "/v1/audit/incidents/incident_x/acknowledge").status == 404


def test_openapi_is_whole_and_has_examples(api: Api) -> None:
    document = api.get("/openapi.json").body
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"], reference
    for path in ("/v1/jobs/{name}", "/v1/rules/{name}"):
        body = document["paths"][path]["put"]["requestBody"]["content"]["application/json"]
        assert body["examples"]
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    assert all(op.get("description") for op in operations), operations
