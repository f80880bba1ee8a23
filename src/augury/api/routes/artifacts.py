"""Artifacts of script jobs: uploaded first, then named by a job."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from augury.api.answers import answer
from augury.engine import Engine

PATH = "/v1/job-artifacts"
router = APIRouter(tags=["jobs"])
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/job-artifacts", status_code=201, openapi_extra=_BODY)
async def upload(
    request: Request,
    file_name: Annotated[
        str,
        Query(
            min_length=1, max_length=255, pattern=r"^[^/\\x00]+$", description="Its ending counts."
        ),
    ],
) -> Response:
    """Takes a .py or .sh file, an archive or any file that begins with `#!`, up to 4 GiB.

    The body is the file. The answer is what a job of kind `script` gives as its `artifact`. The
    same content again is the same artifact.
    """
    engine: Engine = request.app.state.engine
    with tempfile.TemporaryDirectory(prefix="augury-") as folder:
        path = Path(folder) / "artifact"
        with path.open("wb") as file:
            await _receive(request, file)
        artifact = await run_in_threadpool(engine.keep_artifact, path, file_name)
    return answer(artifact.model_dump(), 201)


async def _receive(request: Request, file: BinaryIO) -> None:
    async for chunk in request.stream():
        await run_in_threadpool(file.write, chunk)
