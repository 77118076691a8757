"""The route of the search: `GET /search`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from recorder.server.conversations import (
    After,
    Metadata,
    ModelFilter,
    StatusFilter,
    TagFilter,
    UserFilter,
    answer,
    described,
    own_user,
)
from recorder.server.database import ServedDatabase
from recorder.server.gate import caller_of
from recorder.storage.search.query import MAX_QUERY
from recorder.storage.search.search import SearchPage, search, searched

_TIME = "A date, a time (UTC unless it says otherwise), or a duration before now: 2h, 3d."
Words = Annotated[
    str,
    Query(
        alias="q",
        max_length=MAX_QUERY,
        description='Words that a message must have, and "phrases in quotes".',
    ),
]
MessageSince = Annotated[str | None, Query(max_length=100, description=f"Messages of then or later. {_TIME}")]
MessageUntil = Annotated[
    str | None, Query(max_length=100, description=f"Messages of then or earlier. {_TIME}")
]
HitLimit = Annotated[int, Query(ge=1, le=200, description="How many messages at most.")]


def search_routes(database: ServedDatabase) -> APIRouter:
    """`GET /search`."""
    router = APIRouter(tags=["search"])

    @router.get("/search", responses=described("A page of messages, the newest first.", _PAGE))
    async def search_messages(
        request: Request, words: Words, status: StatusFilter = None, user: UserFilter = None, model: ModelFilter = None,
        tag: TagFilter = None, since: MessageSince = None, until: MessageUntil = None,
        metadata: Metadata = [], limit: HitLimit = 20, after: After = None,  # noqa: B006
    ) -> Response:  # fmt: skip
        """The messages that have all words of `q`, in conversations that match. `next` is `after` of the next page.

        A page may have fewer hits than `limit` though `next` is given. `complete` is false while messages of an older
        version are not indexed. `start` and `end` count characters (code points) of the message's text.
        """
        own = own_user(user, caller_of(request.scope))
        wanted = searched(own, model, status, tag, since, until, metadata)
        return answer(_body(await database.search(search, words, wanted, limit, after)))

    return router


def _body(found: SearchPage) -> dict[str, Any]:
    return {
        "hits": [hit.as_dict() for hit in found.hits],
        "next": found.next,
        "complete": found.is_complete,
    }


_TEXT = {"type": "string"}
_HIT: dict[str, Any] = {
    "type": "object",
    "required": [
        "conversation_id",
        "message_id",
        "run_id",
        "role",
        "created_at",
        "part",
        "start",
        "end",
        "snippet",
    ],
    "properties": {
        "conversation_id": _TEXT,
        "message_id": _TEXT,
        "run_id": {"type": ["string", "null"]},
        "role": _TEXT,
        "created_at": _TEXT,
        "part": {"enum": ["text", "tool_call"]},
        "start": {"type": ["integer", "null"]},
        "end": {"type": ["integer", "null"]},
        "snippet": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["text", "match"],
                "properties": {"text": _TEXT, "match": {"type": "boolean"}},
            },
        },
    },
}
_PAGE: dict[str, Any] = {
    "type": "object",
    "required": ["hits", "next", "complete"],
    "properties": {
        "hits": {"type": "array", "items": _HIT},
        "next": {"type": ["string", "null"]},
        "complete": {"type": "boolean"},
    },
}
