"""Rules, jobs, schedules and sources: the same routes for each; and documents of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine, json_body, schema_of
from augury.engine import Engine
from augury.engine.checks import spec_type
from augury.engine.views import view
from augury.jobs.script_spec import ScriptSpec
from augury.resources.documents import parse_document, parse_entry
from augury.resources.store import Change, Kind, get, listed

router = APIRouter(tags=["apply"])

_EXAMPLES: dict[Kind, dict[str, Any]] = {
    Kind.RULE: {
        "pattern": {
            "type": ["augury.object.created"],
            "data": {"source": ["landing"], "key": [{"suffix": ".parquet"}]},
        },
        "actions": [{"start_run": {"job": "score_day"}}],
    },
    Kind.JOB: {
        "model": "flight_delay@champion",
        "output": "s3://predictions/days/",
        "columns": ["flight_id"],
    },
    Kind.SCHEDULE: {"cron": "0 6 * * *", "timezone": "Europe/Berlin"},
    Kind.SOURCE: {"uri": "s3://landing/flights/"},
}
_SCRIPT = {
    "kind": "script",
    "artifact": {
        "digest": "0f2c5ad8fa7a3ae1b8a1f0f2b7a1cf0d1b7d2e3b3f4c5d6e7f8091a2b3c4d5e6",
        "file_name": "hello.py",
        "size_bytes": 123,
    },
    "arguments": ["--name", "you"],
    "maximum_runtime_s": 600,
}
_SWITCHED = (Kind.RULE, Kind.SCHEDULE, Kind.SOURCE)


def spec_schemas() -> dict[str, Any]:
    """The JSON schemas of all specs and of what they consist of, by name."""
    schemas: dict[str, Any] = {}
    for kind in Kind:
        schemas |= _schemas(spec_type(kind))
    return schemas | _schemas(ScriptSpec)


def _schemas(spec: type[BaseModel]) -> dict[str, Any]:
    schema = spec.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), spec.__name__: schema}


def resource_router(kind: Kind) -> APIRouter:
    """List, show, put and delete of one kind of resource, under its plural."""
    noun = APIRouter(prefix=f"/{kind}s", tags=[f"{kind}s"])

    @noun.get("", summary=f"List {kind}s")
    def resources(engine: TheEngine, limit: Limit = 100, after: str = "") -> Response:
        """In order of name, behind `after` (exclusive)."""
        with engine.database.read() as connection:
            found = listed(connection, kind, limit=limit + 1, after=after)
        return page(found, limit, view, lambda resource: resource.name)

    @noun.get("/{name}", summary=f"Show a {kind}")
    def resource(engine: TheEngine, name: str) -> Response:
        """The present version."""
        with engine.database.read() as connection:
            return answer(view(get(connection, kind, name)))

    @noun.put(
        "/{name}",
        summary=f"Create or update a {kind}",
        openapi_extra=_spec_body(kind),
    )
    async def put(request: Request, name: str) -> Response:
        """Idempotent: the same spec again changes nothing. 201 if it is new."""
        body = await request.body()
        return await run_in_threadpool(_put, request.app.state.engine, kind, name, body)

    @noun.delete("/{name}", summary=f"Delete a {kind}")
    def delete(engine: TheEngine, name: str) -> Response:
        """Its history stays; its name is free."""
        return answer(view(engine.delete(kind, name)))

    if kind in _SWITCHED:
        _add_switches(noun, kind)
    return noun


def _spec_body(kind: Kind) -> dict[str, Any]:
    schema = schema_of(spec_type(kind).__name__)
    examples = {f"a {kind}": _EXAMPLES[kind]}
    if kind is Kind.JOB:
        schema = {"oneOf": [schema, schema_of(ScriptSpec.__name__)]}
        examples["a script"] = _SCRIPT
    return json_body(schema, examples)


def _add_switches(noun: APIRouter, kind: Kind) -> None:
    @noun.post("/{name}/enable", summary=f"Enable a {kind}")
    def enable(engine: TheEngine, name: str) -> Response:
        """Leaves the rest of its spec as it is."""
        resource, _ = engine.enable(kind, name, enabled=True)
        return answer(view(resource))

    @noun.post("/{name}/disable", summary=f"Disable a {kind}")
    def disable(engine: TheEngine, name: str) -> Response:
        """Leaves the rest of its spec as it is."""
        resource, _ = engine.enable(kind, name, enabled=False)
        return answer(view(resource))


def _put(engine: Engine, kind: Kind, name: str, body: bytes) -> Response:
    result = engine.apply([parse_entry(body, section=f"{kind}s", name=name)])
    with engine.database.read() as connection:
        shown = view(get(connection, kind, name))
    (applied,) = result.items
    shown |= {"change": applied.change.value, "warnings": list(result.warnings)}
    return answer(shown, 201 if applied.change is Change.CREATED else 200)


_DOCUMENT = {
    "jobs": [{"name": "score_day", **_EXAMPLES[Kind.JOB]}],
    "rules": [{"name": "score_arrivals", **_EXAMPLES[Kind.RULE]}],
}


@router.post(
    "/apply", openapi_extra=json_body({"type": "object"}, {"a job and its rule": _DOCUMENT})
)
async def apply(request: Request, dry_run: bool = False) -> Response:
    """Creates or updates everything a document says (YAML or JSON), all or nothing.

    Paths must be absolute. Models may be named by path only on an embedded engine, which reads the
    same files as its clients do.
    """
    body = await request.body()
    return await run_in_threadpool(_apply, request.app.state.engine, body, dry_run)


def _apply(engine: Engine, body: bytes, dry_run: bool) -> Response:
    return answer(view(engine.apply(parse_document(body), dry_run=dry_run)))
