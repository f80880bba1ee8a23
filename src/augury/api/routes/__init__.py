"""One module per noun."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from augury.engine import Engine


def engine_of(request: Request) -> Engine:
    """The application's engine."""
    engine: Engine = request.app.state.engine
    return engine


TheEngine = Annotated[Engine, Depends(engine_of)]


def json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's description of a body that the route reads itself."""
    shown = {name: {"summary": name, "value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": schema, "examples": shown}}
    return {"requestBody": {"required": True, "content": content}}


def schema_of(name: str) -> dict[str, Any]:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}
