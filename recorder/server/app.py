"""`create_app`: recordings over HTTP, as an application of its own or mounted into a user's FastAPI application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.version import VERSION
from recorder.errors import ConfigError, RecorderError
from recorder.server.access import Access
from recorder.server.authorization import Authorization, Authorize
from recorder.server.chat import CONVERSATION_HEADER, chat_routes
from recorder.server.chat_models import given_models
from recorder.server.chat_runs import ChatRuns
from recorder.server.configuration import nearest
from recorder.server.conversations import conversation_routes
from recorder.server.database import ServedDatabase, served
from recorder.server.event_stream import RUN_HEADER
from recorder.server.export import export_routes
from recorder.server.gate import Gate, refuse
from recorder.server.health import health_routes
from recorder.server.metrics import ServerMetrics, metrics_routes
from recorder.server.page_files import page_routes
from recorder.server.problem import SCHEMA, ProblemError, answer_with_problem
from recorder.server.proxy.provider_paths import ProviderPaths
from recorder.server.proxy.run_response import response_routes
from recorder.server.proxy.upstreams import upstreams_from
from recorder.server.request_counts import RequestCounts
from recorder.server.request_log import RequestLog
from recorder.server.search import search_routes
from recorder.server.stopping import stop_routes
from recorder.server.streams import stream_routes

if TYPE_CHECKING:
    from recorder.server.proxy.recording_proxy import RecordingProxy


def create_app(
    history: ChatHistoryCallback | str | None = None, *, tokens: Mapping[str, str | None] | None = None,
    authorize: Authorize | None = None, models: Mapping[str, Any] | None = None,
    upstreams: Mapping[str, Any] | None = None, allowed_hosts: Sequence[str] | None = None,
    allowed_origins: Sequence[str] = (), **others: Any,
) -> FastAPI:  # fmt: skip
    """An ASGI application that serves one database: that of a history, or of a URL; `RECORDER_URL` without one.

    It opens the database at the first request, and a history closes it. `tokens` maps each token to the user whose
    conversations it reads, or to None for all. `authorize` is a plain or asynchronous function in place of tokens: it
    gets Starlette's `HTTPConnection` of each request and each WebSocket, and returns the id of the user, None for all,
    or False to refuse; it may raise FastAPI's `HTTPException`. Without both everybody reads everything, and only
    requests to a loopback address, or to `allowed_hosts`, are answered. Pages of other sites are refused unless they
    are in `allowed_origins`. `models` are those that `POST /chat` calls, by name. With `upstreams`, the address of a
    provider for each name, it is a recording proxy that records with the history (docs/proxy.md). Raises `ConfigError`.
    """
    check_names("create_app", others, create_app)
    database = served(history)
    authorization = Authorization(authorize) if authorize is not None else None
    access = Access(tokens, allowed_hosts, allowed_origins, authorization)
    app = app_for(database, access, allowed_origins, ChatRuns(database, given_models(models or {})))
    app.state.history = history  # it lives as long as the application
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


def check_names(name: str, others: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Raise `ConfigError` for an argument that a function does not have."""
    known = [each for each in signature(function).parameters if each != "others"]
    for other in others:
        raise ConfigError(f"{name} has no argument {other!r}; {nearest(other, known)}")


def app_for(
    database: ServedDatabase,
    access: Access,
    allowed_origins: Sequence[str] = (),
    chats: ChatRuns | None = None,
) -> FastAPI:
    """The application of one database, the rules of its access, and the models that clients may call."""
    chats = chats or ChatRuns(database)
    app = FastAPI(
        title="recorder", version=VERSION, docs_url=None, redoc_url=None, separate_input_output_schemas=False
    )
    for routes in (
        conversation_routes, response_routes, search_routes, export_routes, stream_routes, health_routes,
    ):  # fmt: skip
        app.include_router(routes(database))
    counts = RequestCounts()
    app.include_router(chat_routes(chats))
    app.include_router(stop_routes(chats))
    app.include_router(metrics_routes(ServerMetrics(chats, counts)))
    app.include_router(page_routes())
    app.add_middleware(Gate, access=access)
    if allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "idempotency-key", "last-event-id", "prefer"],
            expose_headers=[RUN_HEADER, CONVERSATION_HEADER, "location"],
        )
    app.add_middleware(RequestLog, counts=counts)
    for kind in (RecorderError, ProblemError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_with_problem)
    app.add_exception_handler(WebSocketRequestValidationError, _refuse_websocket)
    _add_schema(app, sorted(chats.models), access)
    return app


async def _refuse_websocket(socket: Any, error: Exception) -> None:
    await refuse(socket.scope, socket.receive, socket.send, error)


def _add_schema(app: FastAPI, models: list[str], access: Access) -> None:
    """Let `/openapi.json` have the form of errors, the names of the models, and the token if one is needed."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        found = generate()
        components = found.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = SCHEMA
        if models:
            components["schemas"]["ChatBody"]["properties"]["model"]["enum"] = models
        if access.needs_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
        return found

    app.openapi = openapi  # type: ignore[method-assign]
