"""Redaction of messages."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

from recorder.redaction.redaction import MatchCounts, Redaction

#: A message of `recorder.messages`.
Message = TypeVar("Message")

#: What a message has beside its content. Its role and its ids stay: they are no text.
_FIELDS = ("content", "name", "additional_kwargs", "response_metadata")


def redacted_message(message: Message, redaction: Redaction, counts: MatchCounts) -> Message:
    """The message with its matches replaced, in its content, calls and further fields; itself if there are none."""
    changes: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(message, name)
        if value and (new := redaction.value(value, counts)) is not value and new != value:
            changes[name] = new
    for name in ("tool_calls", "invalid_tool_calls"):
        calls = getattr(message, name, None)
        if calls and (new := redacted_calls(calls, redaction, counts)) != calls:
            changes[name] = new
    if not changes:
        return message
    found = copy(message)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def redacted_calls(calls: list[Any], redaction: Redaction, counts: MatchCounts) -> list[Any]:
    """The calls with other arguments and errors; their ids and the names of the tools stay."""
    return [
        {
            key: value if key in ("id", "name", "type") else redaction.value(value, counts)
            for key, value in call.items()
        }
        for call in calls
    ]
