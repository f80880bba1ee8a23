"""The one place where errors become HTTP.

Every error of every route has the same body:

    {"code": "invalid", "message": "...", "faults": [{"path", "message", "line"}], "attributes": {}}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from augury import errors
from augury.api.answers import answer
from augury.engine.views import plain, view
from augury.errors import AuguryError, Fault, InvalidError

_log = logging.getLogger(__name__)
TOO_LARGE = 413
_RETRY_AFTER_S = 1

_STATUS: dict[type[AuguryError], int] = {
    errors.InvalidError: 400,
    errors.UnauthorizedError: 401,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.UnavailableError: 503,
    errors.ContractError: 422,
    errors.IdentityError: 409,
    errors.CorruptError: 422,
    errors.LimitError: TOO_LARGE,
    errors.LostLeaseError: 409,
    errors.ConservationError: 500,
}
_CODES = {404: "not_found", 405: "method_not_allowed", TOO_LARGE: "limit"}


def install(app: FastAPI) -> None:
    """Makes the application answer every error in the one form."""
    app.add_exception_handler(AuguryError, _augury_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault_of_ours)


def status_of(error: AuguryError) -> int:
    """HTTP status of an error of ours; of the nearest class that has one."""
    if isinstance(error, InvalidError) and "size_bytes" in error.attributes:
        return TOO_LARGE
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def error_body(
    code: str,
    message: str,
    faults: tuple[Fault, ...] = (),
    attributes: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The one form."""
    return {
        "code": code,
        "message": message,
        "faults": [view(fault) for fault in faults],
        "attributes": _attributes(attributes or {}),
    }


def _attributes(attributes: Mapping[str, object]) -> dict[str, Any]:
    shown = {}
    for name, value in attributes.items():
        try:
            shown[name] = plain(value)
        except TypeError:
            shown[name] = str(value)
    return shown


async def _augury_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AuguryError)
    status = status_of(error)
    faults = error.faults if isinstance(error, InvalidError) else ()
    if status >= 500:
        _log.warning("request failed: %s", error, extra={"action": "request_failed"})
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status == 503 else None
    body = error_body(error.code, error.message, faults, error.attributes)
    return answer(body, status, headers)


async def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(
        Fault(
            path=".".join(str(part) for part in found["loc"]),
            message=f"{found['msg']}, found {found.get('input')!r:.80}",
        )
        for found in error.errors()
    )
    message = "; ".join(str(fault) for fault in faults)
    return answer(error_body(InvalidError.code, f"invalid request: {message}", faults), 400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, InvalidError.code)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"nothing at {request.url.path}; /docs lists what there is"
    return answer(error_body(code, message), error.status_code, error.headers)


async def _fault_of_ours(request: Request, error: Exception) -> Response:
    """Logged with its traceback by whoever called us; the client learns nothing of our inside."""
    _log.error(
        "%s %s failed unexpectedly: %r",
        request.method,
        request.url.path,
        error,
        extra={"action": "request_crashed"},
        exc_info=error,
    )
    return answer(error_body("error", "unexpected error; the API's log has it"), 500)
