"""The routes of streams, and `stream_response` for routes of an application."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError, NotFound, RecorderError
from recorder.replay.pace import FASTEST, SLOWEST, Options
from recorder.server.caller import Caller
from recorder.server.commits import after_commits
from recorder.server.conversations import run_for
from recorder.server.cursor import START, StreamCursor, read_cursor, run_of_cursor
from recorder.server.database import ServedDatabase, served
from recorder.server.event_stream import RUN_HEADER, EventStream, send_messages
from recorder.server.follower import Follower
from recorder.server.gate import caller_of, refuse
from recorder.server.problem import ProblemError, documented, problem_of
from recorder.storage.reader import DatabaseReader, RecordedRun

#: How long `stream_response` waits for a run that has not begun yet (seconds).
BEGINS_WITHIN = 30.0

LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="The id of the last event.")]
After = Annotated[
    str | None,
    Query(description="The id of the last event that was received, or the number of the next token."),
]
Speed = Annotated[
    float | None,
    Query(ge=SLOWEST, le=FASTEST, description="Replays with the recorded pauses: 2 is twice as fast."),
]
MaxGap = Annotated[
    float | None, Query(ge=0, allow_inf_nan=False, description="The longest pause, in seconds.")
]

#: The name of the operation in OpenAPI, and the form of the events.
STREAM = "stream_run"
EVENTS: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "required": ["id", "data"],
            "properties": {
                "event": {"enum": ["message", "gap", "end"]},
                "id": {"type": "string", "description": "The cursor behind the event."},
                "data": {"type": "string", "contentMediaType": "application/json"},
            },
        }
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: one for each token, `gap` for missing tokens, and `end`.",
        "content": EVENTS,
    },
    204: {"description": "This client has received the end of the run."},
    **documented(400, 401, 403, 404, 410, 413, 422, 503),
}


def stream_routes(database: ServedDatabase) -> APIRouter:
    """`GET /streams/{run}` and the WebSocket of the same name."""
    router = APIRouter(tags=["streams"])

    @router.get(
        "/streams/{run}",
        operation_id=STREAM,
        status_code=200,
        response_class=EventStream,
        responses=_RESPONSES,
    )
    async def stream(
        run: str, request: Request, last_event_id: LastEventId = None, starting_after: After = None,
        speed: Speed = None, max_gap: MaxGap = None,
    ) -> Response:  # fmt: skip
        """The tokens of a run from a cursor on: those that are stored at once, and new ones as they are stored."""
        found = await database.ask(run_for, run, caller_of(request.scope))
        cursor = read_cursor(last_event_id or starting_after, found.id)
        return await stream_from(database, found, cursor, _pace(speed, max_gap))

    @router.websocket("/streams/{run}")
    async def messages(
        socket: WebSocket,
        run: str,
        starting_after: str | None = None,
        speed: Speed = None,
        max_gap: MaxGap = None,
    ) -> None:
        try:
            found = await database.ask(run_for, run, caller_of(socket.scope))
            cursor = read_cursor(starting_after, found.id)
            _require_tokens(found)
            await _check_place(database, found, cursor)
            follower = Follower(database.hub(), found, cursor, _pace(speed, max_gap))
        except (RecorderError, ProblemError) as error:
            await refuse(socket.scope, socket.receive, socket.send, error)
            return
        await send_messages(socket, follower)

    return router


async def stream_response(
    run: UUID | str,
    history: ChatHistoryCallback | str,
    request: HTTPConnection | None = None,
    *,
    user: str | None = None,
) -> Response:
    """The response of a route that streams a run of the application's own model, also one that begins in a moment.

    The run is not stopped when its reader leaves. The reader comes back to `/streams/{run}` with the last id it has
    seen; or to the same route, if that passes its `request` and asks `resumed_run` before it calls a model. With `user`
    only a run of this user is read. A run that does not begin within 30 seconds, another user's run and a wrong cursor
    are answered with a problem.
    """
    database = served(history)
    given = request.headers.get("last-event-id") if request is not None else None
    try:
        found = await begun_run(database, str(run), Caller(user))
        return await stream_from(database, found, read_cursor(given or None, found.id), None)
    except (RecorderError, ProblemError) as error:
        return problem_of(error)


def resumed_run(request: HTTPConnection) -> str | None:
    """The run that a client was reading when its connection was cut; None for a new request."""
    return run_of_cursor(request.headers.get("last-event-id"))


async def stream_from(
    database: ServedDatabase, run: RecordedRun, cursor: StreamCursor, pace: Options | None
) -> Response:
    """The response with a run from a cursor on.

    Raises `ConfigError` for a place behind the end, and `ProblemError` for a run whose tokens were deleted.
    """
    _require_tokens(run)
    if await _check_place(database, run, cursor):
        return Response(status_code=204, headers={RUN_HEADER: run.id})  # an EventSource does not come back
    return EventStream(Follower(database.hub(), run, cursor, pace))


async def _check_place(database: ServedDatabase, run: RecordedRun, cursor: StreamCursor) -> bool:
    """Whether a client has received everything, with the end. Raises `ConfigError` for a place behind the end."""
    if run.is_open or cursor == START:
        return False
    gaps = await database.ask(DatabaseReader.gaps, run.id)
    end = max([await database.ask(DatabaseReader.tokens_end, run.id), *(gap.seq + gap.count for gap in gaps)])
    if cursor.next > end:
        raise ConfigError(f"The cursor is at token {cursor.next}, and run {run.id} has {end} tokens")
    return cursor == (end, run.status)


def _require_tokens(run: RecordedRun) -> None:
    """Raise `ProblemError` if the tokens of a run were deleted."""
    if run.pruned_at is not None:
        raise ProblemError(
            410, f"The tokens of run {run.id} were deleted; GET /runs/{run.id} has its messages"
        )


def _pace(speed: float | None, max_gap: float | None) -> Options | None:
    return None if speed is None and max_gap is None else Options(speed or 1.0, max_gap)


async def begun_run(
    database: ServedDatabase, run_id: str, caller: Caller, within: float = BEGINS_WITHIN
) -> RecordedRun:
    """A run, once its row is stored. Raises `NotFound` if it is not within this time (seconds)."""

    async def look() -> RecordedRun | None:
        try:
            found: RecordedRun = await database.ask(run_for, run_id, caller)
        except NotFound:
            return None
        return found

    if (found := await after_commits(database, look, within)) is None:
        raise NotFound(f"Run {run_id} has not begun within {within:g} seconds; pass run_id to the model")
    return found
