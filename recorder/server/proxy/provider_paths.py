"""Sends requests to providers' paths to the proxy or to the replay, and all others on. It is ASGI middleware.

Such requests carry the provider's key as their Authorization. So the token of this server comes in a header of its own,
or in the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from recorder.core.json import dumps, loads
from recorder.server.access import Access
from recorder.server.caller import Caller
from recorder.server.problem import problem_of
from recorder.server.proxy.request_body import ClientLeftError
from recorder.server.proxy.target import Target, target_of
from recorder.server.proxy.upstreams import Upstream

#: The header with the token of this server.
TOKEN_HEADER = "x-recorder-token"


class ProviderAnswers(Protocol):
    """What answers requests to providers' paths."""

    #: Whether a token may come as the provider's key, because that goes nowhere.
    takes_keys_as_tokens: bool

    async def answer(
        self, target: Target, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request. It raises only before the response has begun; the error is sent as a problem."""

    def drain(self, within: float) -> None:
        """End what is under way within so many seconds."""

    async def aclose(self) -> None:
        """Close what it has opened."""


class ProviderPaths:
    """Answers requests to `/<upstream>/...`."""

    def __init__(
        self, app: ASGIApp, access: Access, upstreams: Mapping[str, Upstream], answers: ProviderAnswers
    ) -> None:
        self._app = app
        self._access = access
        self._upstreams = upstreams
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            target = target_of(scope, self._upstreams)
            if target is not None:
                await self._answers.answer(target, await self._caller(target, scope), scope, receive, send)
        except ClientLeftError:
            return
        except Exception as error:
            await _for_sdks(problem_of(error))(scope, receive, send)
            return
        if target is None:
            await self._app(scope, receive, send)

    async def _caller(self, target: Target, scope: Scope) -> Caller:
        headers = scope["headers"]
        named = [value.decode("latin-1") for name, value in headers if name == TOKEN_HEADER.encode()]
        tokens = [*named, *([target.token] if target.token is not None else [])]
        if not tokens and self._answers.takes_keys_as_tokens:
            tokens = _keys_in(scope)
        return await self._access.provider_caller(HTTPConnection(scope), tokens)


def _for_sdks(problem: Response) -> Response:
    """The problem with the field in which the SDKs of OpenAI and Anthropic look for the text of an error."""
    fields = loads(bytes(problem.body))
    fields["error"] = {"message": fields["detail"], "type": "recorder_error"}
    headers = {name: value for name, value in problem.headers.items() if name != "content-length"}
    return Response(dumps(fields).encode(), problem.status_code, headers)


def _keys_in(scope: Scope) -> list[str]:
    found = []
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"authorization" and text[:7].lower() == "bearer ":
            found.append(text[7:].strip())
        elif name in (b"x-api-key", b"api-key", b"x-goog-api-key"):
            found.append(text)
    return found
