"""Models: what is registered, and which version an alias names."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from augury.api.answers import Limit, answer, page
from augury.api.routes import TheEngine
from augury.engine.views import model_view

router = APIRouter(tags=["models"])


@router.get("/models")
def models(engine: TheEngine, limit: Limit = 100, after: str = "") -> Response:
    """The newest version of each model, in order of name, behind `after` (exclusive)."""
    from augury.models.registry import list_models

    with engine.database.read() as connection:
        found = list_models(connection, limit=limit + 1, after=after)
    return page(found, limit, model_view, lambda model: model.name)


@router.get("/models/{name}")
def model(engine: TheEngine, name: str) -> Response:
    """All versions and aliases of a model; of one version if `name` is a reference (`m@3`)."""
    from augury.models.registry import aliases, list_versions, resolve

    with engine.database.read() as connection:
        if "@" in name:
            return answer(model_view(resolve(connection, name)))
        versions = list_versions(connection, name)
        named = aliases(connection, name)
    shown = {"name": name, "aliases": named, "versions": [model_view(found) for found in versions]}
    return answer(shown)


@router.delete("/models/{name}")
def delete(engine: TheEngine, name: str) -> Response:
    """Deletes a model with all versions and aliases; runs that are planned go on."""
    engine.delete_model(name)
    return answer({"name": name, "change": "deleted"})


@router.put("/models/{name}/aliases/{alias}")
def alias(
    engine: TheEngine, name: str, alias: str, version: Annotated[int, Body(embed=True, ge=1)]
) -> Response:
    """Moves an alias to a version, at once for every run that is planned from now on."""
    change = engine.set_alias(name, alias, version)
    shown = {"name": name, "alias": alias, "version": version, "change": change.value}
    return answer(shown)
