"""One run of a model of one's own: its pieces as chunks, as deltas and as a message, without any wire format."""

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
from recorder.messages.chunks import chunk_from, is_whole
from recorder.models.chat_run import generation_chunk, generation_info, since
from recorder.models.run import Request, Run
from recorder.wire.from_chunks import calls_of, deltas_of
from recorder.wire.repeats import says_all_again
from recorder.wire.usage import found_in, is_counted, read


class OwnRun(Run[AIMessageChunk]):
    """A run whose answer comes in pieces of Python; there are no frames."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._said: list[AIMessageChunk] = []
        #: Where the pieces of calls and blocks belong.
        self.places: Any = None
        #: Whether a piece was a message.
        self._in_messages = False
        self._told_output: dict[str, Any] = {}
        #: The last usage that was told beside a message.
        self._counted: Any = {}

    def say(self, piece: Any) -> AIMessageChunk:
        """The chunk of a piece, told to the handlers. Raises `ConfigError` for what is no piece of an answer."""
        chunk = chunk_from(piece)
        chunk.id = chunk.id or self._chunk_id
        if is_whole(piece):
            if self._said:
                self._without_repeats(chunk)
            self._in_messages = True
        output = getattr(piece, "llm_output", None)
        if isinstance(output, Mapping):
            self._told_output |= output
        if chunk.usage_metadata is None:
            self._count(chunk, output if isinstance(output, Mapping) else {})
        self._tell(chunk)
        return chunk

    def rest(self) -> Iterator[AIMessageChunk]:
        """LangChain's empty last chunk, unless the last piece was that."""
        if not self._said or self._said[-1].chunk_position != "last":
            last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
            self._tell(last)
            yield last

    def answer(self) -> AIMessage:
        """The final message."""
        return self.gathered(self._said).to_message() if self._said else AIMessage("", id=self._chunk_id)

    def gathered(self, chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
        """The chunks added up."""
        return chunks[0] + chunks[1:]

    # -- inside -------------------------------------------------------------------------------------------------

    def _without_repeats(self, chunk: AIMessageChunk) -> None:
        """A message at the end that is all of the pieces before it adds only what it says of the answer."""
        known = self.gathered(self._said)
        text, calls = chunk.text.strip(), _calls(chunk)
        if not (text or calls) or text != known.text.strip() or calls != _calls(known):
            return
        if self._in_messages and not says_all_again(chunk.text, [piece.text for piece in self._said]):
            return  # a model may give all of its pieces as messages, and two of them may be alike
        chunk.content, chunk.tool_call_chunks = "", []
        chunk.additional_kwargs = {
            key: value for key, value in chunk.additional_kwargs.items() if key not in known.additional_kwargs
        }
        if known.usage_metadata and chunk.usage_metadata:
            chunk.usage_metadata = since(known.usage_metadata, chunk.usage_metadata)

    def _count(self, chunk: AIMessageChunk, output: Mapping[str, Any]) -> None:
        """Usage that is told beside the message, or under another name; it may be the sum so far."""
        raw = found_in(chunk.response_metadata) or found_in(output)
        if raw is not None and is_counted(raw):
            usage = read(raw)
            chunk.usage_metadata, self._counted = since(self._counted, usage), usage

    def _tell(self, chunk: AIMessageChunk) -> None:
        self._said.append(chunk)
        told = generation_chunk(chunk)
        if self._dispatch.wants_deltas or chunk.tool_call_chunks:
            deltas = deltas_of(chunk.content, told, self)
            if chunk.tool_call_chunks:
                chunk.tool_call_chunks = calls_of(deltas)
            if deltas and self._dispatch.wants_deltas:
                self._wait_for(self._dispatch.deltas(monotonic_us() - self._started_us, deltas))
        if self.request.stream:
            self._tell_token(chunk.text, told)

    def _generations(self) -> list[ChatGeneration]:
        message = self.answer()
        return [ChatGeneration(message, generation_info(message.response_metadata))]

    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        return [generation.message for generation in result.generations[0]]  # type: ignore[attr-defined]

    def _output(self) -> dict[str, Any]:
        counts = [chunk.usage_metadata for chunk in self._said if chunk.usage_metadata]
        return {
            "token_usage": reduce(add_usage, counts) if counts else {},
            "model_name": self.request.body["model"],
            **self._told_output,
        }


def _calls(message: AIMessage) -> list[Any]:
    return [(call["name"], call["args"]) for call in (*message.tool_calls, *message.invalid_tool_calls)]
