"""What a span says about a run: the same values from a run that has just been recorded and from a stored one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from recorder.core.escaping import ESCAPE, unescape, unescape_json
from recorder.core.ids import CONVERSATION_KEYS
from recorder.core.json import loads
from recorder.messages import BaseMessage
from recorder.storage.batch import RunSeal
from recorder.storage.operations import STEPS
from recorder.storage.rows import STREAMING, RunColumns, RunStart

#: The columns of texts, and of JSON objects.
_TEXTS = ("provider_name", "request_model", "response_model", "response_id", "finish_reason", "error_type",
          "error_message")  # fmt: skip
_OBJECTS = ("request", "metadata", "usage", "output")
#: Those that are known when a run begins.
_AT_START = (
    "attempt",
    "parent_run_id",
    "operation",
    "wire",
    "provider_name",
    "request_model",
    "request",
    "metadata",
)
#: Those that the end of a run has, beside its times and its status.
_AT_END = ("response_model", "response_id", "finish_reason", "error_type", "error_message", "input_tokens",
           "output_tokens", "usage", "usage_source", "output")  # fmt: skip


@dataclass(slots=True)
class TracedRun:
    """One run. Texts are as they were recorded, JSON is decoded."""

    id: str
    conversation_id: str
    started_at: datetime
    operation: str = "chat"
    attempt: int = 1
    parent_run_id: str | None = None
    provider_name: str | None = None
    request_model: str | None = None
    wire: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: str = STREAMING
    first_token_at: datetime | None = None
    ended_at: datetime | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    token_count: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    usage_source: str = "none"
    output: Mapping[str, Any] = field(default_factory=dict)
    #: What was sent and what came back, if the content is exported.
    messages: Sequence[BaseMessage] = ()
    replies: Sequence[BaseMessage] = ()

    @property
    def is_step(self) -> bool:
        """Whether the run calls no model itself: a chain, a tool or a retriever."""
        return self.operation in STEPS

    @property
    def named_conversation(self) -> str | None:
        """The conversation, if the application has named it. A UUIDv7 is taken for one that recorder has made up."""
        if any(self.metadata.get(key) for key in CONVERSATION_KEYS):
            return self.conversation_id
        return None if _is_made_up(self.conversation_id) else self.conversation_id

    @property
    def is_streamed(self) -> bool:
        """Whether the answer came in pieces. The request does not say so: SDKs and frameworks add that themselves."""
        return self.token_count > 1

    def end(self, seal: RunSeal) -> None:
        """The run has ended."""
        end, self.token_count = seal.end, seal.token_count
        self.status, self.ended_at, self.first_token_at = end.status, end.ended_at, end.first_token_at
        self._set(end, _AT_END)
        self.replies = end.replies

    def _set(self, source: Any, names: Sequence[str]) -> None:
        for name in names:
            value = getattr(source, name)
            if name in _OBJECTS:
                value = json_object(value)
            elif name in _TEXTS and value is not None:
                value = unescape(value)
            setattr(self, name, value)


def from_start(start: RunStart) -> TracedRun:
    """A run that has begun."""
    found = TracedRun(start.run_id, unescape(start.conversation_id), start.started_at)
    found._set(start, _AT_START)
    found.messages = start.messages
    return found


def from_row(row: RunColumns[Any, Any]) -> TracedRun:
    """A stored run."""
    found = TracedRun(row.id, unescape(row.conversation_id), row.started_at, status=row.status)
    found._set(row, (*_AT_START, *_AT_END, "first_token_at", "ended_at", "token_count"))
    return found


def json_object(text: str | None) -> Mapping[str, Any]:
    """A JSON object; an empty one for None, and for what is no object."""
    if not text:
        return {}
    try:
        found = loads(text)
    except ValueError:  # a damaged row
        return {}
    if ESCAPE in text or "\\ufdd0" in text.lower():
        found = unescape_json(found)
    return found if isinstance(found, dict) else {}


def _is_made_up(conversation_id: str) -> bool:
    try:
        return UUID(conversation_id).version == 7
    except ValueError:
        return False
