"""Answers LangChain's requests from a recording, or lets a model of LangChain answer and records that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from recorder.core.own_thread import on_own_thread
from recorder.core.owned_generator import Owned
from recorder.integrations.langchain.handler import ChatHistoryCallback
from recorder.integrations.langchain.wire_copy import wire_copy
from recorder.messages import AIMessageChunk as RecordedChunk
from recorder.messages import from_any, to_dict
from recorder.models.langchain_messages import chunk_to_langchain
from recorder.models.replayed_model import ReplaySession, relaxed
from recorder.replay import Replay
from recorder.replay.http.match import Rules
from recorder.replay.http.response import RUN_HEADER
from recorder.replay.pace import Options
from recorder.storage.reader import RecordedRun


class RecordedAnswers:
    """The answers of one recording, each used as often as it was recorded."""

    def __init__(self, replay: Replay, like: Any, mode: str, rules: Rules, options: Options) -> None:
        #: LangChain's model that answers what is to be recorded; None in mode "none".
        self.like = like
        self._replay = replay
        self._options = options
        # The body that a model sends is known only of models that have this method.
        makes_body = hasattr(like, "_get_request_payload")
        self._has_body = makes_body and rules.is_exact
        rules = rules if makes_body else relaxed(rules)
        self._wire = wire_copy(like, replay, options) if makes_body else None
        self._session = ReplaySession(replay, mode, rules, options, ChatHistoryCallback)

    # -- streams --------------------------------------------------------------------------------------------------

    def stream(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        """The chunks of the answer. Raises `NotRecorded`, and the error of a recorded run."""
        run = self._session.recorded_run_for(self._request(messages, stop, kwargs))
        if run is None:
            for chunk in self.like.stream(messages, self._recording(), stop=stop, **kwargs):
                yield _generation(chunk)
        elif (wire := self._wire_of(run)) is not None:
            yield from wire._stream(messages, stop=stop, **_naming(run, kwargs))
        else:
            for recorded in self._replay.stream(run.id, **self._pace):
                yield _generation(_chunk(recorded))

    async def astream(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        """`stream` on an event loop."""
        run = await self._session.arecorded_run_for(self._request(messages, stop, kwargs))
        if run is None:
            await self._open_recording()
            async for chunk in self.like.astream(messages, self._recording(), stop=stop, **kwargs):
                yield _generation(chunk)
            return
        async with Owned(self._areplayed(run, messages, stop, kwargs)) as chunks:
            async for generation in chunks:
                yield generation

    # -- complete answers -----------------------------------------------------------------------------------------

    def generate(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatResult:
        """The complete answer. Raises as `stream` does."""
        run = self._session.recorded_run_for(self._request(messages, stop, kwargs))
        if run is None:
            return _result(self.like.invoke(messages, self._recording(), stop=stop, **kwargs))
        if (wire := self._wire_of(run)) is not None:
            found: ChatResult = wire._generate(messages, stop=stop, **_naming(run, kwargs))
            return found
        return _sum([_chunk(recorded) for recorded in self._replay.stream(run.id, **self._pace)])

    async def agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatResult:
        """`generate` on an event loop."""
        run = await self._session.arecorded_run_for(self._request(messages, stop, kwargs))
        if run is None:
            await self._open_recording()
            return _result(await self.like.ainvoke(messages, self._recording(), stop=stop, **kwargs))
        if (wire := self._wire_of(run)) is not None:
            found: ChatResult = await wire._agenerate(messages, stop=stop, **_naming(run, kwargs))
            return found
        async with Owned(self._replay.astream(run.id, **self._pace)) as chunks:
            return _sum([_chunk(recorded) async for recorded in chunks])

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _areplayed(
        self, run: RecordedRun, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        if (wire := self._wire_of(run)) is not None:
            async with Owned(wire._astream(messages, stop=stop, **_naming(run, kwargs))) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        async with Owned(self._replay.astream(run.id, **self._pace)) as recorded_chunks:
            async for recorded in recorded_chunks:
                yield _generation(_chunk(recorded))

    def _wire_of(self, run: RecordedRun) -> Any:
        """The model whose own code reads the recorded response; None if the recording has none."""
        return self._wire if run.wire is not None else None

    @property
    def _pace(self) -> dict[str, Any]:
        return {"speed": self._options.speed, "max_gap": self._options.max_gap}

    def _recording(self) -> Any:
        """The config of a call that is recorded."""
        return {"callbacks": [self._session.history()]}

    async def _open_recording(self) -> None:
        def make() -> None:
            self._session.history()

        await on_own_thread(make)

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Any:
        """The request, as far as a recorded one is compared with it: the body, or what the handler was told."""
        if self._has_body:
            body = _as_sent(self.like._get_request_payload(messages, stop=stop, **kwargs))
        else:
            like: Any = self.like
            options = kwargs if like is None else like._get_invocation_params(stop=stop, **kwargs)
            body = {**options, "messages": [to_dict(from_any(message)) for message in messages]}
        return SimpleNamespace(request=SimpleNamespace(body=body), error=None, wire="")


def _as_sent(body: dict[str, Any]) -> dict[str, Any]:
    """The body with schemas instead of pydantic classes, as OpenAI's SDK sends them."""
    found = dict(body)
    if isinstance(kind := found.get("response_format"), type):
        from openai.lib._parsing._completions import type_to_response_format_param

        found["response_format"] = type_to_response_format_param(kind)
    if isinstance(kind := found.pop("text_format", None), type):
        from openai.lib._parsing._responses import type_to_text_format_param

        found["text"] = {**(found.get("text") or {}), "format": type_to_text_format_param(kind)}
    return found


def newest_run(replay: Replay) -> RecordedRun | None:
    """The run that started last; None if nothing is recorded."""
    return None if replay.is_new_file else next(iter(replay.runs()), None)


def _naming(run: RecordedRun, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, with the id of the run that answers it."""
    return {**kwargs, "extra_headers": {**(kwargs.get("extra_headers") or {}), RUN_HEADER: run.id}}


def _chunk(recorded: RecordedChunk) -> AIMessageChunk:
    chunk = chunk_to_langchain(recorded)
    # LangChain gives each answer an id. LangGraph would replace a message by another one with the same id.
    chunk.id = None
    return chunk


def _generation(chunk: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=chunk)


def _sum(chunks: Sequence[AIMessageChunk]) -> ChatResult:
    first, *others = chunks or [AIMessageChunk(content="")]
    message: Any = first + others if others else first
    return _result(message_chunk_to_message(message))


def _result(message: Any) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
