"""The events of `astream_events` over a chain: LangChain's dictionaries, version v2, with the ids of all parents.

The log is a handler of the chain and of the models in it. What makes no runs, prompts and parsers, is reported by the
chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import uuid_utils.compat

from recorder.callbacks import BaseCallbackHandler
from recorder.chains.steps import PROMPT, ChainStep, total
from recorder.core.owned_generator import Owned
from recorder.messages import BaseMessage, LLMResult
from recorder.models.stream_events import Filter

#: The key of a config under which a chain finds the log of the call.
EVENTS_KEY = "recorder_events"


@dataclass(slots=True)
class LoggedRun:
    """A run that has begun."""

    #: LangChain's word in the names of events: chain, chat_model, llm, prompt, parser.
    type: str
    name: str
    run_id: UUID
    tags: Sequence[str]
    metadata: dict[str, Any]
    parent_ids: list[str]
    input: Any
    is_wanted: bool
    chunks: list[Any] = field(default_factory=list)


class EventLog(BaseCallbackHandler):
    """Puts events into a queue of the event loop, in their order. None is their end."""

    def __init__(self, wanted: Filter) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._wanted = wanted
        self._runs: dict[UUID, LoggedRun] = {}

    # -- what the chain reports -----------------------------------------------------------------------------------

    def begin(
        self, type: str, name: str, input: Any, *, run_id: UUID | None = None, parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None, shown: Any = None,
    ) -> UUID:  # fmt: skip
        """A run begins. `shown` is the data of the event; by default the input. Returns the id of the run."""
        run_id = run_id or uuid_utils.compat.uuid7()
        parents = self._parents_of(parent_run_id)
        wanted = self._wanted.wants_run(name, type, tags or ())
        run = LoggedRun(type, name, run_id, list(tags or ()), dict(metadata or {}), parents, input, wanted)
        self._runs[run_id] = run
        self._put(run, "start", {"input": input} if shown is None else shown)
        return run_id

    def chunk(self, run_id: UUID, chunk: Any) -> None:
        """A run made a chunk."""
        if (run := self._runs.get(run_id)) is not None:
            self._put(run, "stream", {"chunk": chunk})

    def end(self, run_id: UUID, data: dict[str, Any]) -> None:
        """A run ended."""
        if (run := self._runs.pop(run_id, None)) is not None:
            self._put(run, "end", data)

    # -- what handlers get ----------------------------------------------------------------------------------------

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **fields: Any) -> None:
        """A chain begins."""
        self.begin("chain", name, inputs, **fields)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain returned."""
        self.end(run_id, {"output": outputs})

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **given: Any) -> None:
        """A chat model begins."""
        self._begin_model("chat_model", {"messages": messages}, run_id, given)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **given: Any) -> None:
        """A completion model begins."""
        self._begin_model("llm", {"prompts": prompts}, run_id, given)

    def on_llm_new_token(self, token: str, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """A model made a chunk."""
        found = getattr(chunk, "message", chunk)
        if (run := self._runs.get(run_id)) is not None:
            run.chunks.append(found)
            self._put(run, "stream", {"chunk": found})

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """A model ended."""
        if (run := self._runs.get(run_id)) is not None:
            self.end(run_id, {"output": _output(run, response), "input": run.input})

    # -- inside -------------------------------------------------------------------------------------------------

    def _begin_model(self, type: str, input: Any, run_id: UUID, given: Mapping[str, Any]) -> None:
        fields = {key: given.get(key) for key in ("parent_run_id", "tags", "metadata")}
        self.begin(type, str(given.get("name") or ""), input, run_id=run_id, **fields)

    def _parents_of(self, parent_run_id: UUID | None) -> list[str]:
        if parent_run_id is None:
            return []
        parent = self._runs.get(parent_run_id)
        return [*(parent.parent_ids if parent is not None else ()), str(parent_run_id)]

    def _put(self, run: LoggedRun, stage: str, data: dict[str, Any]) -> None:
        if run.is_wanted:
            event = {"event": f"on_{run.type}_{stage}", "data": data, "name": run.name, "tags": run.tags}
            more = {"run_id": str(run.run_id), "metadata": run.metadata, "parent_ids": run.parent_ids}
            self.queue.put_nowait({**event, **more})


def _output(run: LoggedRun, response: LLMResult) -> Any:
    """The output of a model: the sum of its chunks, or the message of an answer that was not streamed."""
    if run.chunks and isinstance(run.chunks[0], BaseMessage):
        return total(run.chunks)
    choices = response.generations[0] if response.generations else []
    if choices and hasattr(choices[0], "message"):
        return choices[0].message
    return {"generations": response.generations, "llm_output": response.llm_output}


class LoggedStep(ChainStep):
    """A prompt, a parser or a function that reports itself to a log. It is called on an event loop only."""

    def __init__(
        self, step: ChainStep, log: EventLog, *, parent_run_id: UUID, tags: Sequence[str], metadata: Mapping[str, Any]
    ) -> None:  # fmt: skip
        super().__init__(step.name)
        self.maps_chunks = step.maps_chunks
        self._step, self._log = step, log
        self._fields: dict[str, Any] = {"parent_run_id": parent_run_id, "tags": tags, "metadata": metadata}

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        run_id = self._begin(input)
        output = await self._step.avalue(input, config)
        self._log.end(run_id, {"output": output, "input": input})
        return output

    async def achunks(self, input: Any, config: Mapping[str, Any]) -> AsyncIterator[Any]:
        run_id, received = self._begin(input), []
        async with Owned(self._step.achunks(input, config)) as chunks:
            async for chunk in chunks:
                received.append(chunk)
                self._log.chunk(run_id, chunk)
                yield chunk
        self._log.end(run_id, {"output": total(received), "input": input})

    async def atransform(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        given: list[Any] = []
        made: list[Any] = []
        run_id: UUID | None = None
        async with Owned(self._step.atransform(_noted(chunks, given))) as found:
            async for chunk in found:
                run_id = run_id or self._begin(None, shown={})
                made.append(chunk)
                self._log.chunk(run_id, chunk)
                yield chunk
        if run_id is not None:
            self._log.end(run_id, {"output": total(made), "input": total(given)})

    def _begin(self, input: Any, shown: Any = None) -> UUID:
        return self._log.begin(self._step.kind or PROMPT, self.name, input, shown=shown, **self._fields)


async def _noted(chunks: AsyncIterator[Any], received: list[Any]) -> AsyncIterator[Any]:
    async with Owned(chunks) as owned:
        async for chunk in owned:
            received.append(chunk)
            yield chunk
