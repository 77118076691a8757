"""`POST /chat` calls a model of the server and streams the run, which goes on when its reader leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid5

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from recorder.core.escaping import escape, unescape
from recorder.core.ids import new_id
from recorder.core.json import dumps
from recorder.errors import NotFound
from recorder.server.caller import Caller
from recorder.server.chat_request import ChatBody, RunIdentity, identity_of
from recorder.server.chat_runs import ChatRuns
from recorder.server.conversations import check_conversation, may_read
from recorder.server.cursor import read_cursor
from recorder.server.event_stream import RUN_HEADER
from recorder.server.gate import caller_of
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.server.served_run import SERVED, ServedRun
from recorder.server.stopping import STOP
from recorder.server.streams import EVENTS, STREAM, LastEventId, begun_run, stream_from
from recorder.storage.reader import DatabaseReader, RecordedRun

#: The header with the id of the conversation, percent-encoded.
CONVERSATION_HEADER = "x-recorder-conversation"
#: The preference of a client that does not want to wait for the answer (RFC 7240).
_ASYNC = "respond-async"

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A name of the request: a repetition with it is the same run.",
    ),
]
Prefer = Annotated[
    str | None, Header(description="`respond-async` answers with the address of the stream at once.")
]

_ABOUT_RUN = {
    RUN_HEADER: {"description": "The id of the run.", "schema": {"type": "string", "format": "uuid"}},
    CONVERSATION_HEADER: {
        "description": "The id of the conversation, percent-encoded.",
        "schema": {"type": "string"},
    },
}
_LOCATION = {
    "location": {
        "description": "The path of the stream.",
        "schema": {"type": "string", "format": "uri-reference"},
    }
}
_ACCEPTED: dict[str, Any] = {
    "type": "object",
    "required": ["run_id", "conversation_id", "stream"],
    "properties": {
        "run_id": {"type": "string", "format": "uuid"},
        "conversation_id": {"type": "string"},
        "stream": {"type": "string"},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run, as `GET /streams/{run}` streams it.",
        "headers": _ABOUT_RUN,
        "content": EVENTS,
    },
    202: {
        "description": "The run has begun.",
        "headers": {**_ABOUT_RUN, **_LOCATION},
        "content": {"application/json": {"schema": _ACCEPTED}},
        "links": {
            name: {"operationId": operation, "parameters": {"run": "$response.body#/run_id"}}
            for name, operation in (("stream", STREAM), ("stop", STOP))
        },
    },
    204: {"description": "This client has received the end of the run.", "headers": _ABOUT_RUN},
    **documented(400, 401, 403, 404, 408, 409, 413, 422, 429, 503),
}
_MODELS: dict[str, Any] = {
    "type": "object",
    "required": ["models"],
    "properties": {"models": {"type": "array", "items": {"type": "string"}}},
}


def chat_routes(chats: ChatRuns) -> APIRouter:
    """`POST /chat` and `GET /models`."""
    router = APIRouter(tags=["chat"])

    @router.get(
        "/models",
        responses={
            200: {
                "description": "The names of the models.",
                "content": {"application/json": {"schema": _MODELS}},
            },
            **documented(400, 401, 403, 503),
        },
    )
    async def models() -> Response:
        """The models that `POST /chat` calls."""
        return _json(200, {"models": sorted(chats.models)}, {})

    @router.post("/chat", status_code=200, response_class=Response, responses=_RESPONSES)
    async def chat(
        body: ChatBody,
        request: Request,
        key: Key = None,
        prefer: Prefer = None,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Call a model, and stream its run. The run goes on, and is recorded, when the client leaves."""
        caller = caller_for(body.user_id, caller_of(request.scope))
        identity = identity_of(body, key, caller.user_id)
        cursor = read_cursor(last_event_id or None, str(identity.run_id))
        run = await _begin(chats, body, identity, caller)
        if _wants_async(prefer):
            return _accepted(run, request)
        response = await stream_from(chats.database, run, cursor, None)
        response.headers[CONVERSATION_HEADER] = _encoded(run)
        return response

    return router


def caller_for(user_id: str | None, caller: Caller) -> Caller:
    """The caller, limited to a user that it names. Raises `ProblemError` for another user than its own."""
    if user_id is None:
        return caller
    if not caller.may_read(user_id):
        raise ProblemError(403, "This token is for another user; leave user_id out")
    return Caller(user_id)


async def _begin(chats: ChatRuns, body: ChatBody, identity: RunIdentity, caller: Caller) -> RecordedRun:
    """The run of a request, as it is stored: a new one, or that of an earlier request with the same id."""
    model, new = chats.model(body.model), body.new_messages()
    run_id, is_named = identity
    # Of a named run without one it follows from the run's id, so that all processes give it the same.
    conversation_id = body.conversation_id or (str(uuid5(run_id, "conversation")) if is_named else new_id())
    run = ServedRun(run_id, model, conversation_id, caller.user_id, new, body.fingerprint(), is_named)
    async with chats.lock(run_id):
        if not (is_named and await _is_repeated(chats, run, caller)):
            await _start(chats, run, caller, is_new=body.conversation_id is None)
    return await begun_run(chats.database, str(run_id), caller)


async def _is_repeated(chats: ChatRuns, run: ServedRun, caller: Caller) -> bool:
    """Whether the run has begun before. Raises `ProblemError` if that was another request."""
    found: str | None
    if (known := chats.find(run.run_id)) is not None:
        found, is_readable = known.fingerprint, known.user_id == caller.user_id
    else:
        try:
            stored = await chats.database.ask(DatabaseReader.run, str(run.run_id))
        except NotFound:
            return False
        found = (stored.metadata or {}).get(SERVED)
        is_readable = await chats.database.ask(may_read, stored.conversation_id, caller)
    if found != run.fingerprint or not is_readable:
        raise ProblemError(409, f"Run {run.run_id} is another request; send this one with a new id or key")
    return True


async def _start(chats: ChatRuns, run: ServedRun, caller: Caller, *, is_new: bool) -> None:
    # Also for a new conversation: nothing is started while the database is away.
    await chats.database.ask(check_conversation, escape(run.conversation_id), caller)
    earlier = [] if is_new else await chats.earlier(run)
    run.messages = run.model.prompt(earlier, [*run.messages])
    await chats.start(run)


def _wants_async(prefer: str | None) -> bool:
    return _ASYNC in {each.strip().lower() for each in (prefer or "").split(",")}


def _accepted(run: RecordedRun, request: Request) -> Response:
    stream = f"{request.scope.get('root_path', '')}/streams/{run.id}"
    fields = {"run_id": run.id, "conversation_id": unescape(run.conversation_id), "stream": stream}
    headers = {RUN_HEADER: run.id, CONVERSATION_HEADER: _encoded(run), "location": stream}
    return _json(202, fields, {**headers, "preference-applied": _ASYNC})


def _encoded(run: RecordedRun) -> str:
    return quote(unescape(run.conversation_id), safe="", errors="replace")


def _json(status: int, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    about = {"cache-control": "no-store", **NO_SNIFFING, **headers}
    return Response(dumps(fields).encode(), status, about, "application/json")
