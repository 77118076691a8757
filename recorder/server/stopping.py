"""`POST /streams/{run}/stop` leaves the provider of a run, and keeps what has come."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from recorder.core.clock import now
from recorder.core.escaping import escape
from recorder.core.json import dumps
from recorder.server.caller import Caller
from recorder.server.chat_runs import ChatRuns
from recorder.server.commits import after_commits
from recorder.server.conversations import run_for
from recorder.server.event_stream import RUN_HEADER
from recorder.server.gate import caller_of
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.server.served_run import SERVED
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.rows import StopRequest
from recorder.storage.stop_requests import add_stop_request

#: How long a request waits for the end of the run (seconds). The process that calls the model may be dead.
ENDS_WITHIN = 5.0

#: The name of the operation in OpenAPI.
STOP = "stop_run"

_STOPPED: dict[str, Any] = {
    "type": "object",
    "required": ["run_id", "status"],
    "properties": {"run_id": {"type": "string", "format": "uuid"}, "status": {"type": "string"}},
}
_CONTENT = {"application/json": {"schema": _STOPPED}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The run has ended, now or before; its status says how.", "content": _CONTENT},
    202: {"description": "The process that calls the model has not answered yet.", "content": _CONTENT},
    **documented(400, 401, 403, 404, 408, 409, 413, 422, 503),
}


def stop_routes(chats: ChatRuns) -> APIRouter:
    """The route that stops runs."""
    router = APIRouter(tags=["streams"])

    @router.post(
        "/streams/{run}/stop",
        operation_id=STOP,
        status_code=200,
        response_class=Response,
        responses=_RESPONSES,
    )
    async def stop(run: str, request: Request) -> Response:
        """Leave the provider of a run that `POST /chat` has started, on any process; what has come stays stored."""
        caller = caller_of(request.scope)
        found = await chats.database.ask(run_for, run, caller)
        if found.is_open:
            found = await _stopped(chats, found, caller)
        return _answer(found)

    return router


async def _stopped(chats: ChatRuns, run: RecordedRun, caller: Caller) -> RecordedRun:
    """The run after its end, or as it is after some seconds. Raises `ProblemError` for a run of an application."""
    if (local := chats.find(UUID(run.id))) is not None:
        await local.cancelled(ENDS_WITHIN)
    elif SERVED in (run.metadata or {}):
        by = None if caller.user_id is None else escape(caller.user_id)
        await chats.database.write(partial(add_stop_request, request=StopRequest(run.id, now(), by)))
    else:
        raise ProblemError(
            409,
            f"Run {run.id} is called by an application and not by POST /chat; stop it there: cancel its call",
        )
    return await after_commits(chats.database, partial(_ended, chats, run.id), ENDS_WITHIN) or run


async def _ended(chats: ChatRuns, run_id: str) -> RecordedRun | None:
    found = await chats.database.ask(DatabaseReader.run, run_id)
    return None if found.is_open else found


def _answer(run: RecordedRun) -> Response:
    headers = {"cache-control": "no-store", RUN_HEADER: run.id, **NO_SNIFFING}
    body = dumps({"run_id": run.id, "status": run.status}).encode()
    return Response(body, 202 if run.is_open else 200, headers, "application/json")
