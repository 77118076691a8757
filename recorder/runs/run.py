"""One run of a model: calls the handlers and translates the response. It does no I/O.

`sdk_model` and `simple_model` drive a run: they read the response and wait for the results in `pending`.
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

#: LangSmith's types of a model: a chat model, and a completion model.
CHAT, TEXT_MODEL = "chat", "llm"

#: The type of the items that `stream` yields.
ChunkT = TypeVar("ChunkT")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the caller's input and config, and the body to send."""

    #: The input as the caller passed it; `astream_events` shows it.
    input: Any
    #: The argument `serialized` of the handlers' start methods.
    serialized: dict[str, Any]
    #: LangChain's name of the provider.
    provider_name: str
    #: The messages. A prompt is one user message.
    messages: list[BaseMessage]
    #: The arguments of the SDK's `create`.
    body: dict[str, Any]
    stream: bool
    handlers: list[Any]
    name: str
    tags: list[str]
    metadata: dict[str, Any]
    #: The body without the messages, for handlers and the `runs` table.
    invocation_params: dict[str, Any]
    input_hash: str
    run_id: uuid.UUID = field(default_factory=uuid_utils.compat.uuid7)
    parent_run_id: uuid.UUID | None = None
    #: `CHAT` or `TEXT_MODEL`.
    model_type: str = CHAT
    #: The credentials of the run. Handlers that store data replace them by a mask.
    mask: Mask = field(default_factory=Mask)
    #: The run whose conversation this one belongs to, if no conversation is named. A run may name itself, so that later
    #: ones can follow it. None for a run that nothing follows.
    conversation_of: uuid.UUID | None = None
    #: The number of the attempt, from 1, and the run of the first attempt if it is a further one.
    attempt: int = 1
    first_run_id: uuid.UUID | None = None
    #: The host that the request goes to, or the short name of a provider for its own host; None if unknown.
    host: str | None = None
    #: Why no request could be made, or None. The run starts, and then fails with this error.
    error: Exception | None = None


#: Makes the SDK's error from an error event of the stream and the HTTP response.
ErrorOf = Callable[[Any, Any], Exception]


class Run(ABC, Generic[ChunkT]):
    """One run of a model: reports its start, its tokens and its end to the handlers."""

    #: The wire format of the frames, or None if the run has no frames.
    wire: str | None = None

    def __init__(self, request: Request) -> None:
        self.request = request
        #: Awaitables that handlers returned. The driver waits for them. Usually None.
        self.pending: list[Pending] | None = None
        self._ended = False
        self._started_us = 0
        self._chunk_id = f"run-{request.run_id}"
        self._bind_handlers()

    @property
    def error(self) -> Exception | None:
        """Why no request could be made, or None."""
        return self.request.error

    def add_handler(self, handler: Any) -> None:
        """Add a handler. Only before `start`."""
        self.request.handlers.append(handler)
        self._bind_handlers()

    def start(self) -> None:
        """Report the start, and each new message: those after the last message of the assistant."""
        request, dispatch = self.request, self._dispatch
        self._started_us = monotonic_us()
        details: dict[str, Any] = {
            "invocation_params": request.invocation_params,
            "input_hash": request.input_hash,
            "wire": self.wire,
            "started_us": self._started_us,
            "name": request.name,
        }
        if request.host is not None:
            details["host"] = request.host
        if request.conversation_of is not None:
            details["conversation_of"] = request.conversation_of
        if request.first_run_id is not None:
            details |= {"attempt": request.attempt, "first_run_id": request.first_run_id}
        request.mask.body = request.body
        if request.model_type == CHAT:
            self._add_pending(dispatch.chat_model_start(request.serialized, request.messages, **details))
        else:
            prompts = [message.text for message in request.messages]
            self._add_pending(dispatch.llm_start(request.serialized, prompts, **details))
        request.mask.body = None
        for message in after_last_reply(request.messages):
            self._add_pending(dispatch.new_message(message))

    def finish(self) -> None:
        """Report the reply of each choice, and the end."""
        result = self.result()
        for reply in self._replies(result):
            self._add_pending(self._dispatch.new_message(reply))
        self._add_pending(self._dispatch.llm_end(result))
        self._ended = True

    def fail(self, error: BaseException) -> None:
        """Report the error and the result so far. Does nothing if the end was reported before."""
        if self._ended:
            return
        self._ended = True
        self._report_partial_frame()
        self._add_pending(self._dispatch.llm_error(error, response=self.result()))

    def result(self) -> LLMResult:
        """The result so far: one generation for each choice, usage and model in `llm_output`."""
        return LLMResult([self._generations()], self._output(), run=[RunInfo(self.request.run_id)])

    @abstractmethod
    def answer(self) -> Any:
        """The result of `invoke`: the final message or the text."""

    @abstractmethod
    def merged(self, chunks: Sequence[ChunkT]) -> Any:
        """The merged chunks of a stream, as the end event of `astream_events` shows them."""

    # -- inside -------------------------------------------------------------------------------------------------

    def _bind_handlers(self) -> None:
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
        """A generation for each choice, made of what was received so far."""

    @abstractmethod
    def _output(self) -> dict[str, Any]:
        """The `llm_output` of the result."""

    @abstractmethod
    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        """The reply messages, one for each choice."""

    def _report_partial_frame(self) -> None:
        """Report the bytes after the last complete frame, before a failure is reported."""

    def _report_token(self, token: str, chunk: Any) -> None:
        self._add_pending(self._dispatch.new_token(token, chunk))

    def _add_pending(self, pending: list[Pending] | None) -> None:
        if pending:
            self.pending = [*self.pending, *pending] if self.pending else pending


class WireRun(Run[ChunkT]):
    """A run whose response is bytes: splits them into frames, translates the frames and reports them."""

    def __init__(self, request: Request, translator: Translator, error_of: ErrorOf) -> None:
        super().__init__(request)
        self.wire = translator.wire
        self.reply = translator.reply
        self._http_response: Any = None
        self._decode = translator.decode
        self._error_of = error_of
        self.framing = translator.framing
        self._splitter = translator.framing.splitter()
        #: Whether every complete frame that was received was translated.
        self._caught_up = True
        #: Whether a chunk was made.
        self._has_emitted = False
        #: The finish reasons of the first choice in the last chunk that had any (see `_reasons`).
        self._reported_reasons: tuple[str | None, ...] = (None,)
        self._reported_usage: Any = None

    @property
    def http_response(self) -> Any:
        """The HTTP response that the SDK received, or None before it. Errors refer to it."""
        return self._http_response

    @http_response.setter
    def http_response(self, response: Any) -> None:
        self._http_response = response
        # Only the sent request shows all credentials: keys may come from callables, files and the environment.
        if self._dispatch.wants_mask and (request := getattr(response, "request", None)) is not None:
            self.request.mask.learn_request(request)

    def feed(self, data: bytes) -> Iterator[ChunkT]:
        """Yield the chunks of these bytes. After each one, wait for `pending`. Raises the provider's error."""
        at_us = monotonic_us() - self._started_us
        self._caught_up = False
        for frame in self._splitter.feed(data):
            if (chunk := self._read_frame(frame, at_us)) is not None:
                yield chunk
            if self.reply.error is not None:
                raise self._error_of(self.reply.error, self.http_response)
        self._caught_up = True

    def report(self, data: bytes, moment_us: int | None = None) -> None:
        """Report these bytes, and make chunks only if a handler wants tokens. Raises the provider's error.

        `moment_us` is when they came, by default now (monotonic microseconds).
        """
        at_us = (monotonic_us() if moment_us is None else moment_us) - self._started_us
        self._caught_up = False
        for frame in self._splitter.feed(data):
            deltas = self._decode(frame)
            if self._wants_frames and (pending := self._stream_frame(frame, at_us, deltas)):
                self._add_pending(pending)
            if self._wants_tokens:
                self._emit(deltas)
            if self.reply.error is not None:
                raise self._error_of(self.reply.error, self.http_response)
        self._caught_up = True

    def rest(self) -> Iterator[ChunkT]:
        """Yield the chunk of the bytes after the last blank line, if they make one.

        Raises the provider's error, also if only a finish reason reports it.
        """
        if frame := self._splitter.end():
            chunk = self._read_frame(frame, monotonic_us() - self._started_us)
            if chunk is not None:
                yield chunk
        self._raise_failure()
        self.reply.settle()

    def feed_complete(self, body: bytes, http_response: Any) -> None:
        """Read a response that was not streamed. It is one frame and makes no chunks. Raises the provider's error."""
        self.http_response = http_response
        deltas = self._decode(body)
        self._report_frame(body, deltas)
        self._raise_failure()

    def fail(self, error: BaseException) -> None:
        """Report the error and the result so far. The body of a response with an error status is a frame, too."""
        response: Any = getattr(error, "response", None)
        has_error_status = response is not None and self.http_response is None and not self._ended
        if has_error_status and getattr(response, "is_stream_consumed", False) and response.content:
            self.http_response = response
            self._report_frame(response.content, ())
        super().fail(error)

    # -- inside -------------------------------------------------------------------------------------------------

    def _bind_handlers(self) -> None:
        super()._bind_handlers()
        # Looked up once, because each frame needs them.
        self._wants_frames, self._stream_frame = self._dispatch.wants_frames, self._dispatch.stream_frame

    @abstractmethod
    def _emit(self, deltas: Sequence[Delta]) -> ChunkT | None:
        """Make the chunk of one event and report it. None if the event makes no chunk."""

    def _read_frame(self, frame: bytes, at_us: int) -> ChunkT | None:
        deltas = self._decode(frame)
        if self._wants_frames and (pending := self._stream_frame(frame, at_us, deltas)):
            self._add_pending(pending)
        return self._emit(deltas)

    def _raise_failure(self) -> None:
        if (error := self.reply.failure()) is not None:
            raise self._error_of(error, self.http_response)

    def _report_frame(self, frame: bytes, deltas: Sequence[Delta]) -> None:
        if self._wants_frames:
            self._add_pending(self._stream_frame(frame, monotonic_us() - self._started_us, deltas))

    def _report_partial_frame(self) -> None:
        # An incomplete frame is recorded as part of the body, and makes no deltas.
        if self._caught_up and (frame := self._splitter.end()):
            self._report_frame(frame, ())

    def _has_new_metadata(self) -> bool:
        """Whether there is new metadata: the response's id, a finish reason or a usage."""
        reply = self.reply
        opened = not self._has_emitted and reply.response_id is not None
        finished = self._reasons() != self._reported_reasons
        return opened or finished or reply.usage != self._reported_usage

    def _reasons(self) -> tuple[str | None, ...]:
        """The first choice's finish reason, followed by the others that the provider sent for it."""
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
