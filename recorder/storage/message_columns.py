"""Between messages and the columns `role`, `content` and `parts` of their rows."""

from __future__ import annotations

from typing import Any

from recorder.core.escaping import escape, escape_json, unescape
from recorder.errors import StoreError
from recorder.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    check_stored,
    from_dict,
    to_dict,
)
from recorder.messages.identity import has_calls
from recorder.storage.failures import ROW_ERRORS
from recorder.storage.row_checks import json_of
from recorder.wire.reasoning import ORIGIN

#: Fields of a reply that the run's row holds; an application that sends the reply back sends them along.
_STORED_WITH_THE_RUN = frozenset(("id", "response_metadata", "usage_metadata"))
_PLAIN = frozenset((HumanMessage, SystemMessage, AIMessage))


def columns_of_message(message: BaseMessage) -> tuple[str, str, str | None]:
    """Role, content and parts: all of the message as JSON, or None where role and text say everything."""
    return escape(message.role), escape(message.text), _parts(message)


def message_of(role: str, content: str, parts: str | None) -> BaseMessage:
    """The recorded message, from the columns of its row. Raises `StoreError` for a damaged row."""
    stored = (
        {"role": unescape(role), "content": unescape(content)} if parts is None else json_of(parts, "parts")
    )
    return message_from(stored)


def message_from(stored: Any) -> BaseMessage:
    """The message of a decoded stored form. Raises `StoreError` for any other value."""
    try:
        return from_dict(check_stored(stored))
    except ROW_ERRORS as error:
        raise StoreError(f"A stored message cannot be read ({error!r:.100}); the row is damaged") from error


def _parts(message: BaseMessage) -> str | None:
    origin = message.response_metadata.get(ORIGIN)
    is_text = type(message) in _PLAIN and type(message.content) is str
    if is_text and not (message.additional_kwargs or origin or message.name or has_calls(message)):
        return None
    fields = {key: value for key, value in to_dict(message).items() if key not in _STORED_WITH_THE_RUN}
    if origin:  # without it the reasoning of the reply cannot go back
        fields["response_metadata"] = {ORIGIN: origin}
    is_plain = len(fields) == 2 and isinstance(message.content, str)
    return None if is_plain else escape_json(fields)
