"""The routes of conversations and runs: the list with its filters, one transcript, one run."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from recorder.core.clock import parse_iso
from recorder.core.escaping import escape, unescape
from recorder.core.ids import check_conversation_id
from recorder.core.json import dumps
from recorder.errors import ConfigError, NotFound
from recorder.server.caller import Caller
from recorder.server.database import ServedDatabase
from recorder.server.gate import caller_of
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.storage import conversation_details
from recorder.storage.conversation_filter import ConversationFilter, from_options
from recorder.storage.conversation_list import ListPlace, page
from recorder.storage.reader import DatabaseReader


class AnyTextConvertor(Convertor[str]):
    """As Starlette's `path`, but also with line breaks: a conversation's id may have them."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """The text of the address."""
        return value

    def to_string(self, value: str) -> str:
        """The address of the text."""
        return value


register_url_convertor("text", AnyTextConvertor())

Status = Literal["streaming", "complete", "incomplete", "cancelled", "error", "interrupted"]
_TEXT = {"max_length": 1_000}
_TIME = "A date, a time (UTC unless it says otherwise), or a duration before now: 2h, 3d."

StatusFilter = Annotated[Status | None, Query(description="The status of the newest run.")]
UserFilter = Annotated[str | None, Query(**_TEXT, description="The user of the conversation.")]
ModelFilter = Annotated[str | None, Query(**_TEXT, description="The model of any run.")]
TagFilter = Annotated[str | None, Query(**_TEXT, description="A tag of the conversation or of any run.")]
Since = Annotated[str | None, Query(max_length=100, description=f"Last used then or later. {_TIME}")]
Until = Annotated[str | None, Query(max_length=100, description=f"Last used then or earlier. {_TIME}")]
Metadata = Annotated[
    list[str],
    Query(max_length=10, description="key:value, which the metadata of the conversation or of any run has."),
]
Limit = Annotated[int, Query(ge=1, le=200, description="How many conversations.")]
After = Annotated[str | None, Query(max_length=1_000, description="`next` of the page before.")]


def conversation_routes(database: ServedDatabase) -> APIRouter:
    """`GET /conversations`, `/conversations/{id}` and `/runs/{id}`."""
    router = APIRouter(tags=["conversations"])

    @router.get("/conversations", responses=described("A page of conversations, the newest first.", _PAGE))
    async def conversations(
        request: Request, status: StatusFilter = None, user: UserFilter = None, model: ModelFilter = None,
        tag: TagFilter = None, since: Since = None, until: Until = None, metadata: Metadata = [],  # noqa: B006
        limit: Limit = 50, after: After = None,
    ) -> Response:  # fmt: skip
        """The conversations that match all conditions. `next` of the answer is `after` of the next page."""
        user = own_user(user, caller_of(request.scope))
        wanted = from_options(status, user, model, tag, since, until, metadata, prefix="")
        return answer(await database.ask(_page, limit, wanted, _place(after)))

    @router.get(
        "/conversations/{id:text}", responses=described("The transcript, with branches and failed runs.")
    )
    async def conversation(request: Request, id: str) -> Response:
        """One conversation: its messages and the runs without a message, each after its parent, and its runs."""
        return answer(await database.ask(_conversation, escape(_checked(id)), caller_of(request.scope)))

    @router.get(
        "/runs/{id}", responses=described("The run: times, usage, costs, prompt, replies, annotations.")
    )
    async def run(request: Request, id: str) -> Response:
        """One run of a model."""
        return answer(await database.ask(_run, id, caller_of(request.scope)))

    return router


async def run_for(reader: DatabaseReader, id: str, caller: Caller) -> Any:
    """A run that the caller may read. Raises `NotFound`, also for a run of another user."""
    found = await reader.run(id)
    if not await may_read(reader, found.conversation_id, caller):
        raise NotFound(f"No run {id} is stored; `recorder ls` lists the stored conversations.")
    return found


async def check_conversation(reader: DatabaseReader, conversation_id: str, caller: Caller) -> None:
    """Raise `NotFound` if a conversation, whose id is as stored, belongs to somebody else. It need not exist."""
    owners = await reader.owners(conversation_id)
    if owners and not await may_read(reader, conversation_id, caller):
        raise NotFound(f"No conversation {conversation_id!r:.300} is stored; /conversations lists them")


async def may_read(reader: DatabaseReader, conversation_id: str, caller: Caller) -> bool:
    """Whether a conversation is stored and belongs to the caller's user."""
    owners = await reader.owners(conversation_id)
    return any(caller.may_read(None if user is None else unescape(user)) for user in owners)


async def _page(
    reader: DatabaseReader, limit: int, wanted: ConversationFilter, after: ListPlace | None
) -> dict[str, Any]:
    rows = await page(reader.store, limit + 1, wanted, after)
    found = rows[:limit]
    following = _cursor(ListPlace(found[-1]["last_at"] or "", found[-1]["id"])) if len(rows) > limit else None
    return {"conversations": found, "next": following}


async def _conversation(reader: DatabaseReader, id: str, caller: Caller) -> dict[str, Any]:
    if not await may_read(reader, id, caller):
        raise NotFound(f"No conversation {id!r:.300} is stored; /conversations lists them")
    return await conversation_details.conversation(reader.store, id)


async def _run(reader: DatabaseReader, id: str, caller: Caller) -> dict[str, Any]:
    found = await run_for(reader, id, caller)
    about = await conversation_details.run(reader.store, found.id)
    return {**about, "annotations": await conversation_details.evaluations(reader.store, found.id)}


def own_user(user: str | None, caller: Caller) -> str | None:
    """The user whose conversations are listed. Raises `ProblemError` if the caller asks for those of another one."""
    if user is not None and not caller.may_read(user):
        raise ProblemError(403, "This token is for the conversations of another user; leave user= out")
    return caller.user_id if caller.user_id is not None else user


def _checked(id: str) -> str:
    """An id that a conversation may have. Raises `NotFound`."""
    try:
        return check_conversation_id(id)
    except ConfigError as error:
        raise NotFound(str(error)) from error


def _cursor(place: ListPlace) -> str:
    return base64.urlsafe_b64encode(dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str | None) -> ListPlace | None:
    """The place of a cursor. Raises `ConfigError` for one that was not given by `_cursor`."""
    if not cursor:
        return None
    try:
        at, id = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        if not (isinstance(at, str) and isinstance(id, str)):
            raise ValueError("it has no texts")
        if at and parse_iso(at).tzinfo is None:
            raise ValueError("its time has no zone")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise ConfigError(f"after is {cursor!r:.80}; send `next` of the page before") from error
    return ListPlace(at, id)


def answer(value: Any) -> Response:
    """A response that nobody keeps: a conversation may grow at any moment."""
    headers = {"cache-control": "no-store", **NO_SNIFFING}
    return Response(dumps(value).encode(), 200, headers, "application/json")


_OBJECT: dict[str, Any] = {"type": "object"}
_PAGE: dict[str, Any] = {
    "type": "object",
    "required": ["conversations", "next"],
    "properties": {
        "conversations": {"type": "array", "items": _OBJECT},
        "next": {"type": ["string", "null"]},
    },
}


def described(description: str, schema: dict[str, Any] = _OBJECT) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": description, "content": {"application/json": {"schema": schema}}},
        **documented(400, 401, 403, 404, 413, 422, 503),
    }
