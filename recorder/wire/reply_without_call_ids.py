"""A reply for formats whose tool calls have no lasting id."""

from __future__ import annotations

from typing import Any

from recorder.messages import AIMessage
from recorder.wire.reply import Reply


class ReplyWithoutCallIds(Reply):
    """One response, as far as it was received. The calls of its message have their id in `extras`.

    Clients of Gemini and Ollama send a call back without its id, or with one of their own. The id of a call is a part
    of the identity of a message. So with it the reply that comes back would be another message than the recorded one.
    """

    __slots__ = ()

    def message(self, choice: int = 0) -> AIMessage:
        """The message in LangChain's shape, complete or as far as it was received."""
        message = super().message(choice)
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            if (call_id := call["id"]) is not None:
                call["id"] = None
                extras: dict[str, Any] = {"id": call_id, **call.get("extras", {})}
                call["extras"] = extras
        return message
