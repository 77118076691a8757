"""The listener behind `Replay.into`: calls callback handlers as the model of a run did. Awaitables of handlers are
returned, not awaited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from recorder.callbacks import Dispatch, Pending, handlers_from
from recorder.messages import (
    AIMessage,
    BaseMessage,
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
    LLMResult,
    RunInfo,
    after_last_reply,
)
from recorder.replay.chunks import ChunkListener, response_metadata, usage_metadata
from recorder.replay.errors import error_of
from recorder.replay.pace import Options
from recorder.replay.playback import (
    BeginStep,
    EndStep,
    FramesStep,
    GapStep,
    Playback,
    TokensStep,
    frames,
    tokens,
)
from recorder.storage.reader import RecordedRun
from recorder.wire.deltas import TEXT, Delta
from recorder.wire.formats import translator_of

#: Calls the handlers; returns their awaitables, to be settled, or None.
HandlerCall = Callable[[], list[Pending] | None]

_COMPLETIONS = "text_completion"


class HandlerListener:
    """Turns each step into functions that call the handlers. The caller calls each function when it is due."""

    def __init__(self, callbacks: Any) -> None:
        self._handlers = handlers_from(callbacks)
        self._dispatch = Dispatch([], run_id=UUID(int=0))
        self._chunks = ChunkListener()
        self._translator = translator_of(None)
        self._is_chat = True

    def play_run(self, run: RecordedRun, options: Options) -> Playback:
        """Play frames if a handler has `on_stream_frame` and all frames are stored, since frames hold every field; else
        tokens."""
        wants = any(callable(getattr(handler, "on_stream_frame", None)) for handler in self._handlers)
        if wants and run.frames_sha256 and translator_of(run.wire) is not None:
            return frames(run, options)
        return tokens(run, options)

    def begin(self, begin: BeginStep) -> Sequence[HandlerCall]:
        run = begin.run
        self._dispatch = dispatch = Dispatch(
            self._handlers,
            run_id=run.id,
            parent_run_id=run.parent_run_id,
            tags=run.tags or (),
            metadata={"conversation_id": run.conversation_id, **(run.metadata or {})},
        )
        self._chunks.begin(begin)
        self._translator = translator_of(run.wire, run.request)
        self._is_chat = run.operation != _COMPLETIONS
        about = {"invocation_params": run.request or {}, "input_hash": run.input_hash, "wire": run.wire}
        if self._is_chat:
            start = partial(dispatch.chat_model_start, {}, list(begin.messages), **about)
        else:
            start = partial(dispatch.llm_start, {}, [message.text for message in begin.messages], **about)
        return [
            start,
            *(partial(dispatch.new_message, metadata) for metadata in after_last_reply(begin.messages)),
        ]

    def take(self, piece: TokensStep | FramesStep) -> Sequence[HandlerCall]:
        call = self._token if isinstance(piece, TokensStep) else self._frame
        return [partial(call, *item) for item in piece.items]

    def gap(self, gap: GapStep) -> Sequence[HandlerCall]:
        return [partial(self._dispatch_token, chunk) for chunk in self._chunks.gap(gap)]

    def end(self, end: EndStep) -> Sequence[HandlerCall]:
        dispatch, result = self._dispatch, self._result(end)
        if (error := error_of(end.run)) is not None:
            return [partial(dispatch.llm_error, error, result)]
        replies = [partial(dispatch.new_message, reply) for reply in end.replies]
        return [*replies, partial(dispatch.llm_end, result)]

    def _token(self, at_us: int, text: str, kind: str = TEXT, idx: str = "0") -> list[Pending] | None:
        delta = Delta(text, kind, idx)
        pending = self._dispatch.deltas(at_us, (delta,)) if self._dispatch.wants_deltas else None
        return _both(pending, self._new_token((delta,)))

    def _frame(self, at_us: int, frame: bytes) -> list[Pending] | None:
        assert self._translator is not None  # `play_run` chose frames
        deltas = self._translator.decode(frame)
        return _both(self._dispatch.stream_frame(frame, at_us, deltas), self._new_token(deltas))

    def _new_token(self, deltas: Sequence[Delta]) -> list[Pending] | None:
        if not self._dispatch.wants_tokens or (chunk := self._chunks.chunk(deltas)) is None:
            return None
        return self._dispatch_token(chunk)

    def _dispatch_token(self, chunk: Any) -> list[Pending] | None:
        metadata = ChatGenerationChunk(chunk) if self._is_chat else GenerationChunk(chunk.text)
        return self._dispatch.new_token(chunk.text, metadata)

    def _result(self, end: EndStep) -> LLMResult:
        run = end.run
        output = {"token_usage": run.usage or {}, "model_name": run.model}
        if run.response_id:
            output["id"] = run.response_id
        generations = [self._generation(reply, run) for reply in end.replies]
        return LLMResult([generations], output, run=[RunInfo(UUID(run.id))])

    def _generation(self, reply: BaseMessage, run: RecordedRun) -> Generation:
        metadata = response_metadata(run)
        reply.response_metadata = {**metadata, **reply.response_metadata}
        if isinstance(reply, AIMessage):
            reply.usage_metadata = reply.usage_metadata or usage_metadata(run)
        info = {name: value for name, value in metadata.items() if name not in ("id", "model_provider")}
        return ChatGeneration(reply, info) if self._is_chat else Generation(reply.text, info)


def _both(first: list[Pending] | None, second: list[Pending] | None) -> list[Pending] | None:
    return [*first, *second] if first and second else first or second
