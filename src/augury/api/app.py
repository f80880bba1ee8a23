"""The application: routes, errors, limits and the description of them all.

Made for one engine by `create_app`. The core is synchronous: routes that call it are plain
functions, which FastAPI runs in its thread pool; those that need the raw body read it first and
then go there themselves.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import augury
from augury.api import errors
from augury.api.answers import JsonResponse
from augury.api.limits import LimitedBodies
from augury.api.routes import (
    artifacts,
    audit,
    deadletters,
    events,
    groups,
    models,
    replays,
    resources,
    runs,
    status,
    webhooks,
)
from augury.engine import Engine
from augury.resources.store import Kind
from augury.scripts.artifacts import MOST_ARTIFACT_BYTES

_DESCRIPTION = """Event-driven distributed batch inference.

Lists come in pages: `{"items": [...], "next": cursor}`; give `next` as `after` (or `before`, where
the newest come first) to go on. Every error has the body `{"code", "message", "faults",
"attributes"}`; `code` is stable."""


def create_app(engine: Engine) -> FastAPI:
    """The API on one engine; whoever made the engine closes it."""
    app = FastAPI(
        title="Augury",
        version=augury.__version__,
        description=_DESCRIPTION,
        default_response_class=JsonResponse,
        redoc_url=None,
    )
    app.state.engine = engine
    errors.install(app)
    app.add_middleware(LimitedBodies, larger={artifacts.PATH: MOST_ARTIFACT_BYTES})
    for router in (
        events.router,
        webhooks.router,
        groups.router,
        runs.router,
        *(resources.resource_router(kind) for kind in Kind),
        artifacts.router,
        resources.router,
        models.router,
        deadletters.router,
        replays.router,
        audit.router,
        status.router,
    ):
        app.include_router(router, prefix="/v1")
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Adds the specs to the OpenAPI document: routes read their bodies themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(resources.spec_schemas() | runs.schemas())
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
