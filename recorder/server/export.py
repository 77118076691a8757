"""The route that exports a conversation or a run, as the file that `recorder import` reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from recorder.core.escaping import escape
from recorder.core.ids import check_conversation_id
from recorder.errors import ConfigError, NotFound
from recorder.export.exporter import Exported, export
from recorder.server.caller import Caller
from recorder.server.conversations import may_read, run_for
from recorder.server.database import ServedDatabase
from recorder.server.gate import caller_of
from recorder.server.problem import NO_SNIFFING, documented
from recorder.storage.reader import DatabaseReader

#: So many exports are made at once; others wait.
_AT_ONCE = 2
_limiters: RunVar[CapacityLimiter] = RunVar("recorder_exports")
#: Bytes of one piece of the response.
_PIECE = 256 * 1024
_MEDIA_TYPE = "application/x-ndjson"
#: The header with the number of runs that still stream; they are not in the file.
_LEFT_OUT = "x-recorder-left-out"

Conversation = Annotated[str | None, Query(max_length=1_000, description="The id of a conversation.")]
Run = Annotated[str | None, Query(max_length=100, description="The id of a run, in place of a conversation.")]

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON lines, which `recorder import` reads.",
        "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
        "headers": {_LEFT_OUT: {"description": "Runs that still stream.", "schema": {"type": "integer"}}},
    },
    **documented(400, 401, 403, 404, 413, 422, 503),
}


def export_routes(database: ServedDatabase) -> APIRouter:
    """`GET /export`."""
    router = APIRouter(tags=["conversations"])

    @router.get("/export", response_class=Response, responses=_RESPONSES)
    async def export_file(
        request: Request, conversation: Conversation = None, run: Run = None
    ) -> StreamingResponse:
        """A conversation with all of its runs, or a run with its prompt and replies, for another database."""
        id = await _exported_id(database, conversation, run, caller_of(request.scope))
        file = TemporaryFile()  # noqa: SIM115  # the response closes it
        try:
            done = await run_sync(_written, database.url, file, id, limiter=_limiter())
        except BaseException:
            file.close()
            raise
        headers = {
            "content-disposition": 'attachment; filename="recording.jsonl"',
            "content-length": str(file.seek(0, 2)),
            "cache-control": "no-store",
            _LEFT_OUT: str(len(done.left_out)),
            **NO_SNIFFING,
        }
        return StreamingResponse(_pieces(file), 200, headers, _MEDIA_TYPE)

    return router


async def _exported_id(
    database: ServedDatabase, conversation: str | None, run: str | None, caller: Caller
) -> str:
    """The id of what the caller may read. Raises `NotFound`, and `ConfigError` unless one of the two is given."""
    if (conversation is None) == (run is None):
        raise ConfigError("Give conversation=, the id of a conversation, or run=, the id of a run")
    if run is not None:
        return str((await database.ask(run_for, run, caller)).id)
    assert conversation is not None
    if not await database.ask(_is_readable, conversation, caller):
        raise NotFound(f"No conversation {conversation!r:.300} is stored; /conversations lists them")
    return conversation


async def _is_readable(reader: DatabaseReader, conversation: str, caller: Caller) -> bool:
    try:
        return await may_read(reader, escape(check_conversation_id(conversation)), caller)
    except ConfigError:
        return False


def _limiter() -> CapacityLimiter:
    """That of the running event loop."""
    try:
        return _limiters.get()
    except LookupError:
        _limiters.set(found := CapacityLimiter(_AT_ONCE))
        return found


def _written(url: str, file: IO[bytes], id: str) -> Exported:
    return export(url, file, [id])


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece
