"""LangChain's event dictionaries, version v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recorder.messages import AIMessageChunk
from recorder.models.call import Request

_TYPE = "chat_model"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs a reader of events wants; None says nothing."""

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None

    def wants(self, request: Request) -> bool:
        """LangChain's rule: any include that fits, and no exclude that does."""
        included = (
            (self.include_names, [request.name]), (self.include_types, [_TYPE]), (self.include_tags, request.tags)
        )  # fmt: skip
        excluded = (
            (self.exclude_names, [request.name]), (self.exclude_types, [_TYPE]), (self.exclude_tags, request.tags)
        )  # fmt: skip
        said = [fits(wanted, has) for wanted, has in included if wanted is not None]
        return (not said or any(said)) and not any(fits(wanted or (), has) for wanted, has in excluded)


def fits(wanted: Sequence[str], has: Sequence[str]) -> bool:
    """Whether one of them is among the wanted."""
    return any(each in wanted for each in has)


def start_event(request: Request) -> dict[str, Any]:
    """`on_chat_model_start`: the input as the caller passed it."""
    return {"event": "on_chat_model_start", "data": {"input": request.input}, **_common(request)}


def stream_event(request: Request, chunk: AIMessageChunk) -> dict[str, Any]:
    """`on_chat_model_stream`: one chunk."""
    return {"event": "on_chat_model_stream", "data": {"chunk": chunk}, **_common(request)}


def end_event(request: Request, whole: AIMessageChunk | None) -> dict[str, Any]:
    """`on_chat_model_end`: all chunks added up."""
    return {"event": "on_chat_model_end", "data": {"output": whole}, **_common(request)}


def _common(request: Request) -> dict[str, Any]:
    parents = [str(request.parent_run_id)] if request.parent_run_id else []
    return {
        "name": request.name,
        "tags": request.tags,
        "run_id": str(request.run_id),
        "metadata": request.metadata,
        "parent_ids": parents,
    }
