"""The body of `POST /chat`, and the id of the run that it starts."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID, uuid5

import uuid_utils.compat
from pydantic import BaseModel, ConfigDict, Field

from recorder.core.ids import MAX_CONVERSATION_ID
from recorder.core.json import dumps
from recorder.messages import BaseMessage, messages_from
from recorder.server.problem import ProblemError

#: The namespace of the ids that are made from an `Idempotency-Key`.
_KEYS = UUID("7c3f7a52-3c36-5d7e-9d0e-2f1d3e6b8a41")


class Strict(BaseModel):
    """A JSON object that has no other fields."""

    model_config = ConfigDict(extra="forbid")


class TextPart(Strict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


class ImageAddress(Strict):
    """Where an image is: an address on the web, or `data:image/...;base64,`."""

    url: Annotated[str, Field(pattern=r"^(https?://|data:image/)")]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """A part of a message: an image."""

    type: Literal["image_url"]
    image_url: ImageAddress


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class MessageBody(Strict):
    """One message, in the form of OpenAI's chat completions."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Field(min_length=1)] | Annotated[list[Part], Field(min_length=1, max_length=100)]


class ChatBody(Strict):
    """What is asked of which model."""

    model: Annotated[str, Field(max_length=200, description="A name of GET /models.")]
    messages: Annotated[
        Annotated[str, Field(min_length=1)]
        | Annotated[list[MessageBody], Field(min_length=1, max_length=100)],
        Field(
            description="The new messages, without the earlier ones of the conversation; the last is a user's."
        ),
    ]
    conversation_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_CONVERSATION_ID,
            description="The conversation; a new one without it.",
        ),
    ] = None
    run_id: Annotated[UUID | None, Field(description="The id of the run; a repetition is the same run.")] = (
        None
    )
    user_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=255,
            description="For whom it is recorded; only with a token for all users.",
        ),
    ] = None

    def new_messages(self) -> list[BaseMessage]:
        """The new messages. Raises `ProblemError` if the last one is not a user's."""
        if isinstance(self.messages, str):
            return messages_from(self.messages)
        if self.messages[-1].role != "user":
            raise ProblemError(
                400, "body.messages: The last message is what a user asks; give it the role user"
            )
        return messages_from([each.model_dump(exclude_none=True) for each in self.messages])

    def fingerprint(self) -> str:
        """A hash of what is asked: the same for a repetition of the request."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude={"run_id"})
        return hashlib.sha256(dumps(fields).encode()).hexdigest()


class RunIdentity(NamedTuple):
    """The id of a run, and whether the client can name it again."""

    run_id: UUID
    is_named: bool


def identity_of(body: ChatBody, key: str | None, user_id: str | None) -> RunIdentity:
    """The run of a request: that of its body, that of its `Idempotency-Key` and the user, or a new one.

    Raises `ProblemError` for a request with both.
    """
    if key is None:
        return RunIdentity(body.run_id or uuid_utils.compat.uuid7(), body.run_id is not None)
    if body.run_id is not None:
        raise ProblemError(400, "The request has an Idempotency-Key and a run_id; send one of them")
    return RunIdentity(uuid5(_KEYS, dumps([user_id, key])), True)
