"""`create_app`: recordings over HTTP, as an application of its own or mounted into a user's FastAPI application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.version import VERSION
from recorder.errors import ConfigError, RecorderError
from recorder.server.access import Access
from recorder.server.conversations import conversation_routes
from recorder.server.database import ServedDatabase, served
from recorder.server.gate import Gate, refuse
from recorder.server.health import health_routes
from recorder.server.page_files import page_routes
from recorder.server.problem import SCHEMA, ProblemError, answer_with_problem
from recorder.server.proxy.provider_paths import ProviderPaths
from recorder.server.proxy.run_response import response_routes
from recorder.server.proxy.upstreams import upstreams_from
from recorder.server.search import search_routes
from recorder.server.streams import stream_routes

if TYPE_CHECKING:
    from recorder.server.proxy.recording_proxy import RecordingProxy


def create_app(
    history: ChatHistoryCallback | str | None = None, *, tokens: Mapping[str, str | None] | None = None,
    allowed_hosts: Sequence[str] | None = None, allowed_origins: Sequence[str] = (),
    upstreams: Mapping[str, Any] | None = None,
) -> FastAPI:  # fmt: skip
    """An ASGI application that reads one database: that of a history, or of a URL; `RECORDER_URL` without one.

    It opens the database at the first request, and a history closes it. `tokens` maps each token to the user whose
    conversations it reads, or to None for all; without tokens everybody reads everything, and only requests to a
    loopback address, or to `allowed_hosts`, are answered. Pages of other sites are refused unless they are in
    `allowed_origins`. With `upstreams`, the address of a provider for each name, it is a recording proxy that records
    with the history (docs/proxy.md). Raises `ConfigError`.
    """
    database, access = served(history), Access(tokens, allowed_hosts, allowed_origins)
    app = app_for(database, access, allowed_origins)
    if upstreams is not None:
        add_proxy(app, history, database, access, upstreams)
    return app


def add_proxy(
    app: FastAPI, history: Any, database: ServedDatabase, access: Access, upstreams: Mapping[str, Any]
) -> RecordingProxy:
    """Let an application pass calls on to these upstreams, and record them. Raises `ConfigError`."""
    from recorder.server.proxy.recording_proxy import RecordingProxy

    if not isinstance(history, ChatHistoryCallback):
        raise ConfigError(
            "A recording proxy records with a history; pass a ChatHistoryCallback with upstreams="
        )
    proxy = RecordingProxy(history, database)
    app.add_middleware(ProviderPaths, access=access, upstreams=upstreams_from(upstreams), answers=proxy)
    return proxy


def app_for(database: ServedDatabase, access: Access, allowed_origins: Sequence[str] = ()) -> FastAPI:
    """The application of one database and the rules of its access."""
    app = FastAPI(
        title="recorder", version=VERSION, docs_url=None, redoc_url=None, separate_input_output_schemas=False
    )
    for routes in (conversation_routes, response_routes, search_routes, stream_routes, health_routes):
        app.include_router(routes(database))
    app.include_router(page_routes())
    app.add_middleware(Gate, access=access)
    if allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allowed_origins),
            allow_methods=["GET"],
            allow_headers=["authorization", "last-event-id"],
            expose_headers=["x-recorder-run"],
        )
    for kind in (RecorderError, ProblemError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_with_problem)
    app.add_exception_handler(WebSocketRequestValidationError, _refuse_websocket)
    _add_schema(app)
    return app


async def _refuse_websocket(socket: Any, error: Exception) -> None:
    await refuse(socket.scope, socket.receive, socket.send, error)


def _add_schema(app: FastAPI) -> None:
    """Let `/openapi.json` have the form of errors."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        found = generate()
        found.setdefault("components", {}).setdefault("schemas", {})["Problem"] = SCHEMA
        return found

    app.openapi = openapi  # type: ignore[method-assign]
