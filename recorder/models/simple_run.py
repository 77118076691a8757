"""One run of a `SimpleChatModel`: makes chunks, deltas and the final message from the pieces of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from recorder.core.clock import monotonic_us
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGeneration,
    LLMResult,
    add_usage,
)
from recorder.messages.chunks import chunk_from, is_complete_message
from recorder.runs.chat_run import generation_chunk, generation_info, since
from recorder.runs.run import Request, Run
from recorder.wire.from_chunks import calls_of, deltas_of
from recorder.wire.repeated_answer import repeats_all
from recorder.wire.usage import found_in, is_counted, read


class SimpleRun(Run[AIMessageChunk]):
    """A run whose answer is made of Python objects. It has no frames and no wire format."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._chunks: list[AIMessageChunk] = []
        #: The numbers of the tool calls and the content blocks so far, for `deltas_of`.
        self.places: Any = None
        #: Whether a piece was a whole message.
        self._in_messages = False
        self._llm_output: dict[str, Any] = {}
        #: The last usage that came outside of `usage_metadata`.
        self._reported_usage: Any = {}

    def add_piece(self, piece: Any) -> AIMessageChunk:
        """Make the chunk of a piece and report it. Raises `ConfigError` if the piece has no supported type."""
        chunk = chunk_from(piece)
        chunk.id = chunk.id or self._chunk_id
        if is_complete_message(piece):
            if self._chunks:
                self._drop_repeats(chunk)
            self._in_messages = True
        output = getattr(piece, "llm_output", None)
        if isinstance(output, Mapping):
            self._llm_output |= output
        if chunk.usage_metadata is None:
            self._add_usage(chunk, output if isinstance(output, Mapping) else {})
        self._report_chunk(chunk)
        return chunk

    def rest(self) -> Iterator[AIMessageChunk]:
        """Yield LangChain's empty last chunk, unless the model yielded one."""
        if not self._chunks or self._chunks[-1].chunk_position != "last":
            last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
            self._report_chunk(last)
            yield last

    def answer(self) -> AIMessage:
        """The final message."""
        return self.merged(self._chunks).to_message() if self._chunks else AIMessage("", id=self._chunk_id)

    def merged(self, chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
        """The sum of the chunks."""
        return chunks[0] + chunks[1:]

    # -- inside -------------------------------------------------------------------------------------------------

    def _drop_repeats(self, chunk: AIMessageChunk) -> None:
        """Remove the content of a final message that repeats all pieces before it. Its metadata stays."""
        known = self.merged(self._chunks)
        text, calls = chunk.text.strip(), _calls(chunk)
        if not (text or calls) or text != known.text.strip() or calls != _calls(known):
            return
        if self._in_messages and not repeats_all(chunk.text, [piece.text for piece in self._chunks]):
            return  # a model may yield every piece as a message, and two of them may be equal
        chunk.content, chunk.tool_call_chunks = "", []
        chunk.additional_kwargs = {
            key: value for key, value in chunk.additional_kwargs.items() if key not in known.additional_kwargs
        }
        if known.usage_metadata and chunk.usage_metadata:
            chunk.usage_metadata = since(known.usage_metadata, chunk.usage_metadata)

    def _add_usage(self, chunk: AIMessageChunk, output: Mapping[str, Any]) -> None:
        """Add a usage from `response_metadata` or `llm_output`. It may be the total so far."""
        raw = found_in(chunk.response_metadata) or found_in(output)
        if raw is not None and is_counted(raw):
            usage = read(raw)
            chunk.usage_metadata, self._reported_usage = since(self._reported_usage, usage), usage

    def _report_chunk(self, chunk: AIMessageChunk) -> None:
        self._chunks.append(chunk)
        generation = generation_chunk(chunk)
        if self._dispatch.wants_deltas or chunk.tool_call_chunks:
            deltas = deltas_of(chunk.content, generation, self)
            if chunk.tool_call_chunks:
                chunk.tool_call_chunks = calls_of(deltas)
            if deltas and self._dispatch.wants_deltas:
                self._add_pending(self._dispatch.deltas(monotonic_us() - self._started_us, deltas))
        if self.request.stream:
            self._report_token(chunk.text, generation)

    def _generations(self) -> list[ChatGeneration]:
        message = self.answer()
        return [ChatGeneration(message, generation_info(message.response_metadata))]

    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        return [generation.message for generation in result.generations[0]]  # type: ignore[attr-defined]

    def _output(self) -> dict[str, Any]:
        counts = [chunk.usage_metadata for chunk in self._chunks if chunk.usage_metadata]
        return {
            "token_usage": reduce(add_usage, counts) if counts else {},
            "model_name": self.request.body["model"],
            **self._llm_output,
        }


def _calls(message: AIMessage) -> list[Any]:
    return [(call["name"], call["args"]) for call in (*message.tool_calls, *message.invalid_tool_calls)]
