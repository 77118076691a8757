"""LangChain's event dictionaries, version v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recorder.models.run import CHAT, TEXT_MODEL, Request

#: The kind of a model, and what LangChain calls it here.
_TYPES = {CHAT: "chat_model", TEXT_MODEL: "llm"}


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
        has = [request.name], [_TYPES[request.model_type]], request.tags
        included = zip((self.include_names, self.include_types, self.include_tags), has, strict=True)
        excluded = zip((self.exclude_names, self.exclude_types, self.exclude_tags), has, strict=True)
        said = [fits(wanted, has) for wanted, has in included if wanted is not None]
        return (not said or any(said)) and not any(fits(wanted or (), has) for wanted, has in excluded)


def fits(wanted: Sequence[str], has: Sequence[str]) -> bool:
    """Whether one of them is among the wanted."""
    return any(each in wanted for each in has)


def start_event(request: Request) -> dict[str, Any]:
    """`on_chat_model_start` or `on_llm_start`: the input as the caller passed it."""
    return _event(request, "start", {"input": request.input})


def stream_event(request: Request, chunk: Any) -> dict[str, Any]:
    """`on_chat_model_stream` or `on_llm_stream`: one chunk, as the stream gives it."""
    return _event(request, "stream", {"chunk": chunk})


def end_event(request: Request, whole: Any) -> dict[str, Any]:
    """`on_chat_model_end` or `on_llm_end`: all chunks in one."""
    return _event(request, "end", {"output": whole})


def _event(request: Request, what: str, data: dict[str, Any]) -> dict[str, Any]:
    parents = [str(request.parent_run_id)] if request.parent_run_id else []
    return {
        "event": f"on_{_TYPES[request.model_type]}_{what}",
        "data": data,
        "name": request.name,
        "tags": request.tags,
        "run_id": str(request.run_id),
        "metadata": request.metadata,
        "parent_ids": parents,
    }
