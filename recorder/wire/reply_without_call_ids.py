"""A reply for formats whose tool calls have no lasting id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recorder.messages import AIMessage
from recorder.wire.deltas import Delta
from recorder.wire.reply import Reply


class ReplyWithoutCallIds(Reply):
    """One response, as far as it was received. The calls of its message have their id in `extras`.

    Clients of Gemini and Ollama send a call back without its id, or with one of their own. The id of a call is a part
    of the identity of a message. So with it the reply that comes back would be another message than the recorded one.
    """

    __slots__ = ()

    @classmethod
    def message_of(cls, deltas: Iterable[Delta]) -> AIMessage:
        """The message that these deltas add up to, so that a reply which comes back is made as the recorded one was."""
        reply = cls()
        for delta in deltas:
            reply.add(delta)
        return reply.message()

    def message(self, choice: int = 0) -> AIMessage:
        """The message in LangChain's shape, complete or as far as it was received."""
        message = super().message(choice)
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            if (call_id := call["id"]) is not None:
                call["id"] = None
                extras: dict[str, Any] = {"id": call_id, **call.get("extras", {})}
                call["extras"] = extras
        return message
