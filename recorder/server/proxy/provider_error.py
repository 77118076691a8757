"""Errors in the form of the provider whose path was called, so that its SDK shows their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from recorder.core.json import dumps
from recorder.server.problem import NO_SNIFFING

#: HTTP status -> what the providers call it: OpenAI, Anthropic, Google.
_NAMES = {
    400: ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
    404: ("not_recorded", "not_found_error", "NOT_FOUND"),
    502: ("server_error", "api_error", "UNAVAILABLE"),
}


def provider_error(path: str, status: int, text: str, headers: Mapping[str, str]) -> Response:
    """The response with status 400, 404 or 502 to a request to this path."""
    fields = _form_of(path)(status, text)
    return Response(dumps(fields).encode(), status, {**headers, **NO_SNIFFING}, "application/json")


def _form_of(path: str) -> Callable[[int, str], dict[str, Any]]:
    if "/messages" in path:
        return _anthropic
    if ":generateContent" in path or ":streamGenerateContent" in path:
        return _google
    return _ollama if path.endswith(("/api/chat", "/api/generate")) else _openai


def _openai(status: int, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": _NAMES[status][0], "param": None, "code": _NAMES[status][0]}}


def _anthropic(status: int, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _NAMES[status][1], "message": text}}


def _google(status: int, text: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": text, "status": _NAMES[status][2]}}


def _ollama(_status: int, text: str) -> dict[str, Any]:
    return {"error": text}
