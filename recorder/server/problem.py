"""Errors of the server, all in one form: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from recorder.core.json import dumps
from recorder.errors import Closed, ConfigError, NotFound, RecorderError, SchemaError

log = logging.getLogger("recorder")

MEDIA_TYPE = "application/problem+json"
#: What every answer says: nothing is to be guessed from its bytes.
NO_SNIFFING = {"x-content-type-options": "nosniff"}


class ProblemError(Exception):
    """A request is answered with this status and explanation."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: Sequence[Any] = ()
) -> Response:
    """The response to a request that cannot be answered."""
    fields: dict[str, Any] = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail,
    }
    if errors:
        fields["errors"] = errors
    return Response(dumps(fields).encode(), status, {**NO_SNIFFING, **(headers or {})}, MEDIA_TYPE)


def title_of(status: int) -> str:
    """The name of a status; of one that has none, that of its class."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return HTTPStatus(status // 100 * 100).phrase


def problem_of(error: Exception) -> Response:
    """The response for an error. What is no fault of the request is logged, and its text stays in the log."""
    if isinstance(error, ProblemError):
        return problem(error.status, error.detail, error.headers)
    if isinstance(error, HTTPException):
        detail = (
            f"{error.detail}; /openapi.json lists what there is"
            if error.status_code in (404, 405)
            else error.detail
        )
        return problem(error.status_code, detail, error.headers)
    if isinstance(error, (RequestValidationError, WebSocketRequestValidationError)):
        errors = [{"place": ".".join(map(str, each["loc"])), "error": each["msg"]} for each in error.errors()]
        return problem(422, "; ".join(f"{each['place']}: {each['error']}" for each in errors), errors=errors)
    if isinstance(error, NotFound):
        return problem(404, str(error))
    if isinstance(error, ConfigError):
        return problem(400, str(error))
    if isinstance(error, RecorderError):
        log.warning("The database could not be used: %s", error)
        return problem(503, _for_strangers(error), {"retry-after": "1"})
    log.error("A request failed", exc_info=error)
    return problem(500, "This is an error of the server; its log says more")


def _for_strangers(error: RecorderError) -> str:
    """What the answer says: without the name of the database and its own words."""
    if isinstance(error, Closed):
        return str(error)
    if isinstance(error, SchemaError):
        return (
            "The database has tables of another revision than this server; the log names the command to run"
        )
    return "The database cannot be used now; the log says why"


async def answer_with_problem(_connection: HTTPConnection, error: Exception) -> Response:
    """The handler of all errors."""
    return problem_of(error)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses for OpenAPI, and that of headers that are too long, which every route may answer with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": title_of(status), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted((*statuses, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value))
    }


#: The schema that `documented` refers to.
SCHEMA = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
