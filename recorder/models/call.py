"""One run of a model: its callbacks and its translation, without any I/O.

The drivers bring the bytes, synchronously or asynchronously, and wait for what `pending` holds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import uuid_utils.compat

from recorder.callbacks import Dispatch, Pending
from recorder.clock import monotonic_us
from recorder.jsons import loads
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGeneration,
    ChatGenerationChunk,
    LLMResult,
    RunInfo,
)
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.reply import Reply, merge_other
from recorder.wire.sse import FrameSplitter


class Translator(Protocol):
    """What a wire format's module has."""

    wire: str
    reply: Reply

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame, none after the terminator; never raises."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call as the caller asked for it, and as it will be sent."""

    #: What the caller passed, for the events.
    input: Any
    #: What handlers get as `serialized`.
    serialized: dict[str, Any]
    #: LangChain's word for the provider.
    provider_name: str
    messages: list[BaseMessage]
    #: Arguments of the SDK's `create`.
    body: dict[str, Any]
    stream: bool
    handlers: list[Any]
    name: str
    tags: list[str]
    metadata: dict[str, Any]
    #: Without the messages, for handlers and the `runs` table.
    invocation_params: dict[str, Any]
    input_hash: str
    run_id: uuid.UUID = field(default_factory=uuid_utils.compat.uuid7)
    parent_run_id: uuid.UUID | None = None


#: Given what the provider sent in place of an event, and the HTTP response: the error to raise, the SDK's.
ErrorOf = Callable[[Any, Any], Exception]

#: Puts the deltas of one event into a chunk, in LangChain's shape; whether there was anything of it.
Fill = Callable[[AIMessageChunk, Sequence[Delta]], bool]

_PLAIN = (TEXT, "0")
_OF_THE_RESPONSE = frozenset(("id", "model_provider", "token_usage", "usage", "model"))


class Call:
    """A run as far as it has come."""

    def __init__(
        self,
        request: Request,
        translator: Translator,
        error_of: ErrorOf,
        fill: Fill | None = None,
        *,
        plain: bool = True,
    ) -> None:
        """`fill` is the provider's own; without `plain` it is also asked where there is nothing but text."""
        self.request = request
        self.reply = translator.reply
        #: What the SDK got, for the errors; None before there is an answer.
        self.http_response: Any = None
        #: What to wait for before going on; None in the common case.
        self.pending: list[Pending] | None = None
        self._decode = translator.decode
        self._wire = translator.wire
        self._error_of = error_of
        self._fill = fill or _add_deltas
        self._plain = plain
        self._splitter = FrameSplitter()
        #: Whether every frame that the splitter gave was taken.
        self._caught_up = True
        self._ended = False
        self._started_us = 0
        self._chunk_id = f"run-{request.run_id}"
        self._told = False
        self._told_finish = False
        self._seen_usage: Any = None
        self._dispatch = Dispatch(
            request.handlers,
            run_id=request.run_id,
            parent_run_id=request.parent_run_id,
            tags=request.tags,
            metadata=request.metadata,
        )
        # Looked up once: they are asked for every frame.
        self._wants_frames, self._stream_frame = self._dispatch.wants_frames, self._dispatch.stream_frame
        self._wants_tokens = self._dispatch.wants_tokens

    def start(self) -> None:
        """Tell the handlers of the run and of the messages that are new: those after the last reply."""
        request, dispatch = self.request, self._dispatch
        self._started_us = monotonic_us()
        self._wait_for(
            dispatch.chat_model_start(
                request.serialized,
                request.messages,
                invocation_params=request.invocation_params,
                input_hash=request.input_hash,
                wire=self._wire,
                started_us=self._started_us,
                name=request.name,
            )
        )
        for message in _after_last_reply(request.messages):
            self._wait_for(dispatch.new_message(message))

    def feed(self, data: bytes) -> Iterator[AIMessageChunk]:
        """The chunks in these bytes; look at `pending` after each. Raises the provider's error."""
        at_us = monotonic_us() - self._started_us
        self._caught_up = False
        for frame in self._splitter.feed(data):
            if (chunk := self._frame(frame, at_us)) is not None:
                yield chunk
        self._caught_up = True

    def rest(self) -> Iterator[AIMessageChunk]:
        """The chunk in what came after the last blank line, if there is one, and LangChain's empty last one.

        That one tells a sum of chunks that no more arguments follow: a call which was cut off is an invalid one.
        """
        if frame := self._splitter.end():
            chunk = self._frame(frame, monotonic_us() - self._started_us)
            if chunk is not None:
                yield chunk
        last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
        self._tell_token(last)
        yield last

    def whole(self, body: bytes, http_response: Any) -> None:
        """An answer that was not streamed: one frame, no chunks. Raises the provider's error."""
        self.http_response = http_response
        deltas = self._decode(body)
        self._tell_frame(body, deltas)
        if self.reply.error is not None:
            raise self._error_of(self.reply.error, http_response)

    def finish(self) -> None:
        """Tell the handlers the replies and the end."""
        result = self.result()
        for generation in result.generations[0]:
            self._wait_for(self._dispatch.new_message(generation.message))  # type: ignore[attr-defined]
        self._wait_for(self._dispatch.llm_end(result))
        self._ended = True

    def fail(self, error: BaseException) -> None:
        """Tell the handlers of the failure, with what had come; nothing when they were told an end already."""
        if self._ended:
            return
        self._ended = True
        # The frame that the break went through is part of the body, and says nothing by itself.
        if self._caught_up and (frame := self._splitter.end()):
            self._tell_frame(frame, ())
        self._wait_for(self._dispatch.llm_error(error, response=self.result()))

    def result(self) -> LLMResult:
        """What has come, in LangChain's shape: one generation a choice, usage and model in `llm_output`."""
        reply = self.reply
        output: dict[str, Any] = {"token_usage": reply.raw_usage or {}, "model_name": self._model_name()}
        if reply.response_id:
            output["id"] = reply.response_id
        if not reply.terminated and not reply.finish_reasons:
            output["interrupted"] = True
        choices = [self._generation(choice) for choice in reply.choices]
        return LLMResult(generations=[choices], llm_output=output, run=[RunInfo(self.request.run_id)])

    def message(self, choice: int = 0) -> AIMessage:
        """The final message of a choice."""
        message = self.reply.message(choice)
        message.response_metadata = self._metadata(choice)
        if not self.request.stream:
            message.response_metadata |= self.reply.whole_metadata()
        message.id = f"{self._chunk_id}-{choice}" if choice else self._chunk_id
        return message

    # -- inside -------------------------------------------------------------------------------------------------

    def _frame(self, frame: bytes, at_us: int) -> AIMessageChunk | None:
        reply = self.reply
        deltas = self._decode(frame)
        if self._wants_frames and (pending := self._stream_frame(frame, at_us, deltas)):
            self._wait_for(pending)
        if reply.error is not None:
            raise self._error_of(reply.error, self.http_response)
        chunk = self._chunk(deltas)
        if chunk is not None and self._wants_tokens:
            self._tell_token(chunk)
        return chunk

    def _tell_frame(self, frame: bytes, deltas: Sequence[Delta]) -> None:
        if self._wants_frames:
            self._wait_for(self._stream_frame(frame, monotonic_us() - self._started_us, deltas))

    def _tell_token(self, chunk: AIMessageChunk) -> None:
        info = _generation_info(said) if (said := chunk.response_metadata) else None
        self._wait_for(self._dispatch.new_token(chunk.text, ChatGenerationChunk(chunk, info)))

    def _wait_for(self, pending: list[Pending] | None) -> None:
        if pending:
            self.pending = [*self.pending, *pending] if self.pending else pending

    def _chunk(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        """The chunk of one event: of the first choice; also when it only opens, ends or counts."""
        reply = self.reply
        if self._plain and len(deltas) == 1 and deltas[0][1:] == _PLAIN:
            chunk = AIMessageChunk(deltas[0][0], id=self._chunk_id)
            self._told = True
            if not reply.finish_reasons and reply.usage is self._seen_usage:
                return chunk
        else:
            chunk = AIMessageChunk("", id=self._chunk_id)
            if not self._fill(chunk, deltas) and not self._news():
                return None
        self._tell(chunk)
        return chunk

    def _news(self) -> bool:
        """Whether the event said something that is no delta."""
        reply = self.reply
        opened = not self._told and reply.response_id is not None
        finished = not self._told_finish and 0 in reply.finish_reasons
        return opened or finished or reply.usage != self._seen_usage

    def _tell(self, chunk: AIMessageChunk) -> None:
        reply = self.reply
        self._told = True
        if not self._told_finish and 0 in reply.finish_reasons:
            self._told_finish = True
            chunk.response_metadata = self._metadata(0)
        if reply.usage != self._seen_usage:
            chunk.usage_metadata = _since(self._seen_usage or {}, reply.usage)
            self._seen_usage = reply.usage

    def _generation(self, choice: int) -> ChatGeneration:
        message = self.message(choice)
        return ChatGeneration(message, _generation_info(message.response_metadata))

    def _metadata(self, choice: int) -> dict[str, Any]:
        """LangChain's `response_metadata` of a reply."""
        said = {**self.reply.response_metadata(choice), "model_provider": self.request.provider_name}
        if self.reply.response_id:
            said["id"] = self.reply.response_id
        return said

    def _model_name(self) -> str | None:
        return self.reply.model or self.request.body.get("model")


def _generation_info(said: Mapping[str, Any]) -> dict[str, Any]:
    """What LangChain says of a generation: of the metadata, what is not of the whole response."""
    return {key: value for key, value in said.items() if key not in _OF_THE_RESPONSE}


def _since(before: Mapping[str, Any], now: Any) -> Any:
    """What came to the counts, where a provider counts in every event: chunks add up, so each has its own share."""
    return {
        key: _since(before.get(key, {}), count) if isinstance(count, dict) else count - before.get(key, 0)
        for key, count in now.items()
    }


def _after_last_reply(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """A handler that stores what it gets stores each message once: the others came with earlier calls."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "assistant":
            return messages[place + 1 :]
    return messages


def _add_deltas(chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
    """Put the first choice's deltas into a chunk; whether there were any."""
    calls: dict[int, dict[str, Any]] = {}
    found = False
    for text, kind, idx in deltas:
        choice, _, part = idx.partition(".")
        if choice != "0":
            continue
        found = True
        if kind == TEXT:
            chunk.content += text  # type: ignore[operator]
        elif kind in (TOOL_CALL, TOOL_ARGS):
            _add_call(calls, int(part) if part.isdigit() else 0, kind, text)
        else:
            _add_more(chunk.additional_kwargs, kind, text)
    chunk.tool_call_chunks = list(calls.values())  # type: ignore[arg-type]
    return found


def _add_call(calls: dict[int, dict[str, Any]], index: int, kind: str, text: str) -> None:
    call = calls.get(index)
    if call is None:
        call = calls[index] = {
            "name": None,
            "args": "",
            "id": None,
            "index": index,
            "type": "tool_call_chunk",
        }
    if kind == TOOL_ARGS:
        call["args"] += text
    else:
        call |= {key: value for key, value in loads(text).items() if key in ("id", "name")}


def _add_more(additional: dict[str, Any], kind: str, text: str) -> None:
    if kind == REASONING:
        additional["reasoning_content"] = additional.get("reasoning_content", "") + text
    elif kind == REFUSAL:
        additional["refusal"] = additional.get("refusal", "") + text
    elif kind == CITATION:
        additional.setdefault("annotations", []).append(loads(text))
    elif kind == OTHER:
        merge_other(additional, text)
