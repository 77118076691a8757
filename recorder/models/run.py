"""One run of a model: its callbacks and its translation, without any I/O.

The drivers bring the bytes, synchronously or asynchronously, and wait for what `pending` holds.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import uuid_utils.compat

from recorder.callbacks import Dispatch, Pending
from recorder.core.clock import monotonic_us
from recorder.messages import BaseMessage, LLMResult, RunInfo, after_last_reply
from recorder.redaction.masking import Mask
from recorder.wire.deltas import Delta
from recorder.wire.reply import Translator
from recorder.wire.sse import FrameSplitter

#: A model that talks, and one that goes on writing a text: LangSmith's words.
CHAT, TEXT_MODEL = "chat", "llm"

#: What the application gets of a stream.
ChunkT = TypeVar("ChunkT")


@dataclass(frozen=True, slots=True)
class Request:
    """One call as the caller asked for it, and as it will be sent."""

    #: What the caller passed, for the events.
    input: Any
    #: What handlers get as `serialized`.
    serialized: dict[str, Any]
    #: LangChain's word for the provider.
    provider_name: str
    #: The messages; a prompt is one from the user.
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
    #: chat or llm.
    model_type: str = CHAT
    #: The credentials of the run, for handlers that store things.
    mask: Mask = field(default_factory=Mask)
    #: Why there is nothing to send: what the run fails of once its handlers have been told that it began.
    error: Exception | None = None


#: Given what the provider sent in place of an event, and the HTTP response: the error to raise, the SDK's.
ErrorOf = Callable[[Any, Any], Exception]


class Run(ABC, Generic[ChunkT]):
    """A run as far as it has come: what its handlers are told of it."""

    #: The wire format of its frames; None where there are none.
    wire: str | None = None

    def __init__(self, request: Request) -> None:
        self.request = request
        #: What to wait for before going on; None in the common case.
        self.pending: list[Pending] | None = None
        self._ended = False
        self._started_us = 0
        self._chunk_id = f"run-{request.run_id}"
        self._listen()

    def hear(self, handler: Any) -> None:
        """Tell this handler, too; before the start."""
        self.request.handlers.append(handler)
        self._listen()

    def start(self) -> None:
        """Tell the handlers of the run and of the messages that are new: those after the last reply."""
        request, dispatch = self.request, self._dispatch
        self._started_us = monotonic_us()
        details: dict[str, Any] = {
            "invocation_params": request.invocation_params,
            "input_hash": request.input_hash,
            "wire": self.wire,
            "started_us": self._started_us,
            "name": request.name,
        }
        if request.model_type == CHAT:
            self._wait_for(dispatch.chat_model_start(request.serialized, request.messages, **details))
        else:
            prompts = [message.text for message in request.messages]
            self._wait_for(dispatch.llm_start(request.serialized, prompts, **details))
        for message in after_last_reply(request.messages):
            self._wait_for(dispatch.new_message(message))

    def finish(self) -> None:
        """Tell the handlers the replies and the end."""
        result = self.result()
        for reply in self._replies(result):
            self._wait_for(self._dispatch.new_message(reply))
        self._wait_for(self._dispatch.llm_end(result))
        self._ended = True

    def fail(self, error: BaseException) -> None:
        """Tell the handlers of the failure, with what had come; nothing when they were told an end already."""
        if self._ended:
            return
        self._ended = True
        self._cut_off()
        self._wait_for(self._dispatch.llm_error(error, response=self.result()))

    def result(self) -> LLMResult:
        """What has come, in LangChain's shape: one generation a choice, usage and model in `llm_output`."""
        return LLMResult([self._generations()], self._output(), run=[RunInfo(self.request.run_id)])

    @abstractmethod
    def answer(self) -> Any:
        """What `invoke` gives: the final message, or the text."""

    @abstractmethod
    def gathered(self, chunks: Sequence[ChunkT]) -> Any:
        """All chunks of a stream in one, as the last event has it."""

    # -- inside -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        request = self.request
        self._dispatch = Dispatch(
            request.handlers,
            run_id=request.run_id,
            parent_run_id=request.parent_run_id,
            tags=request.tags,
            metadata=request.metadata,
            mask=request.mask,
        )
        self._wants_tokens = self._dispatch.wants_tokens

    @abstractmethod
    def _generations(self) -> list[Any]:
        """A generation for each choice, as far as it has come."""

    @abstractmethod
    def _output(self) -> dict[str, Any]:
        """The `llm_output` of the result."""

    @abstractmethod
    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        """The messages that answer, one a choice."""

    def _cut_off(self) -> None:
        """The last that can be told before the handlers hear of a failure."""

    def _tell_token(self, token: str, chunk: Any) -> None:
        self._wait_for(self._dispatch.new_token(token, chunk))

    def _wait_for(self, pending: list[Pending] | None) -> None:
        if pending:
            self.pending = [*self.pending, *pending] if self.pending else pending


class WireRun(Run[ChunkT]):
    """A run whose answer comes as bytes: frames are cut, translated and told."""

    def __init__(self, request: Request, translator: Translator, error_of: ErrorOf) -> None:
        super().__init__(request)
        self.wire = translator.wire
        self.reply = translator.reply
        self._http_response: Any = None
        self._decode = translator.decode
        self._error_of = error_of
        self._splitter = FrameSplitter()
        #: Whether every frame that the splitter gave was taken.
        self._caught_up = True
        self._told = False
        #: The first choice's finish reason, and the others that were given for it, as they were told last.
        self._told_reasons: tuple[str | None, ...] = (None,)
        self._seen_usage: Any = None

    @property
    def http_response(self) -> Any:
        """What the SDK got, for the errors; None before there is an answer."""
        return self._http_response

    @http_response.setter
    def http_response(self, response: Any) -> None:
        self._http_response = response
        # Now it is known what was sent: keys may come from callables, files and the environment.
        if self._dispatch.wants_mask and (request := getattr(response, "request", None)) is not None:
            self.request.mask.learn_request(request)

    def feed(self, data: bytes) -> Iterator[ChunkT]:
        """The chunks in these bytes; look at `pending` after each. Raises the provider's error."""
        at_us = monotonic_us() - self._started_us
        self._caught_up = False
        for frame in self._splitter.feed(data):
            if (chunk := self._frame(frame, at_us)) is not None:
                yield chunk
            if self.reply.error is not None:
                raise self._error_of(self.reply.error, self.http_response)
        self._caught_up = True

    def rest(self) -> Iterator[ChunkT]:
        """The chunk in what came after the last blank line, if there is one.

        Raises the provider's error, also where nothing but a finish reason says that there was one.
        """
        if frame := self._splitter.end():
            chunk = self._frame(frame, monotonic_us() - self._started_us)
            if chunk is not None:
                yield chunk
        self._require_good_end()
        self.reply.settle()

    def whole(self, body: bytes, http_response: Any) -> None:
        """An answer that was not streamed: one frame, no chunks. Raises the provider's error."""
        self.http_response = http_response
        deltas = self._decode(body)
        self._tell_frame(body, deltas)
        self._require_good_end()

    def fail(self, error: BaseException) -> None:
        """Tell the handlers of the failure, with what had come: also the body of a response that was a refusal."""
        response: Any = getattr(error, "response", None)
        refused = response is not None and self.http_response is None and not self._ended
        if refused and getattr(response, "is_stream_consumed", False) and response.content:
            self.http_response = response
            self._tell_frame(response.content, ())
        super().fail(error)

    # -- inside -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        super()._listen()
        # Looked up once: they are asked for every frame.
        self._wants_frames, self._stream_frame = self._dispatch.wants_frames, self._dispatch.stream_frame

    @abstractmethod
    def _say(self, deltas: Sequence[Delta]) -> ChunkT | None:
        """The chunk of one event, told to the handlers; None for an event that says nothing."""

    def _frame(self, frame: bytes, at_us: int) -> ChunkT | None:
        deltas = self._decode(frame)
        if self._wants_frames and (pending := self._stream_frame(frame, at_us, deltas)):
            self._wait_for(pending)
        return self._say(deltas)

    def _require_good_end(self) -> None:
        if (error := self.reply.failure()) is not None:
            raise self._error_of(error, self.http_response)

    def _tell_frame(self, frame: bytes, deltas: Sequence[Delta]) -> None:
        if self._wants_frames:
            self._wait_for(self._stream_frame(frame, monotonic_us() - self._started_us, deltas))

    def _cut_off(self) -> None:
        # The frame that the break went through is part of the body, and says nothing by itself.
        if self._caught_up and (frame := self._splitter.end()):
            self._tell_frame(frame, ())

    def _news(self) -> bool:
        """Whether the event said something that is no delta."""
        reply = self.reply
        opened = not self._told and reply.response_id is not None
        finished = self._reasons() != self._told_reasons
        return opened or finished or reply.usage != self._seen_usage

    def _reasons(self) -> tuple[str | None, ...]:
        """The first choice's finish reason, and the others that were given for it."""
        reply = self.reply
        return (reply.finish_reasons.get(0), *reply.earlier_reasons.get(0, ()))

    def _output(self) -> dict[str, Any]:
        reply = self.reply
        model_name = reply.model or self.request.body.get("model")
        output: dict[str, Any] = {"token_usage": reply.raw_usage or {}, "model_name": model_name}
        if reply.response_id:
            output["id"] = reply.response_id
        if not reply.has_ended:
            output["interrupted"] = True
        return output
