"""The events of `astream_events`: LangChain's dictionaries, version v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recorder.errors import ConfigError
from recorder.runs.run import CHAT, TEXT_MODEL, Request

#: LangSmith's type of a model -> its type in LangChain's events.
_TYPES = {CHAT: "chat_model", TEXT_MODEL: "llm"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs make events: LangChain's arguments. None means no condition."""

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None

    def wants(self, request: Request) -> bool:
        """Whether the run of a model makes events."""
        return self.wants_run(request.name, _TYPES[request.model_type], request.tags)

    def wants_run(self, name: str, type: str, tags: Sequence[str]) -> bool:
        """LangChain's rule: at least one include matches, if there are any, and no exclude matches."""
        values = [name], [type], tags
        includes = zip((self.include_names, self.include_types, self.include_tags), values, strict=True)
        excludes = zip((self.exclude_names, self.exclude_types, self.exclude_tags), values, strict=True)
        included = [matches(wanted, has) for wanted, has in includes if wanted is not None]
        return (not included or any(included)) and not any(matches(out or (), has) for out, has in excludes)


def check_version(version: str) -> None:
    """Raise `ConfigError` for another version of the events than v2."""
    if version != "v2":
        raise ConfigError(f"astream_events does not support version {version!r}; pass version='v2'")


def matches(wanted: Sequence[str], values: Sequence[str]) -> bool:
    """Whether at least one of the values is wanted."""
    return any(each in wanted for each in values)


def start_event(request: Request) -> dict[str, Any]:
    """`on_chat_model_start` or `on_llm_start`: the input as the caller passed it."""
    return _event(request, "start", {"input": request.input})


def stream_event(request: Request, chunk: Any) -> dict[str, Any]:
    """`on_chat_model_stream` or `on_llm_stream`: one chunk of the stream."""
    return _event(request, "stream", {"chunk": chunk})


def end_event(request: Request, output: Any) -> dict[str, Any]:
    """`on_chat_model_end` or `on_llm_end`: the sum of the chunks."""
    return _event(request, "end", {"output": output})


def _event(request: Request, stage: str, data: dict[str, Any]) -> dict[str, Any]:
    parents = [str(request.parent_run_id)] if request.parent_run_id else []
    return {
        "event": f"on_{_TYPES[request.model_type]}_{stage}",
        "data": data,
        "name": request.name,
        "tags": request.tags,
        "run_id": str(request.run_id),
        "metadata": request.metadata,
        "parent_ids": parents,
    }
