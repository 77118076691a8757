"""One run of a chat model over a wire format: makes chunks and the final message from the events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGeneration,
    ChatGenerationChunk,
    LLMResult,
    text_chunk,
)
from recorder.runs.run import ErrorOf, Request, WireRun
from recorder.wire.deltas import TEXT, Delta
from recorder.wire.reasoning import ORIGIN, origin_of
from recorder.wire.reply import EARLIER, Translator
from recorder.wire.to_chunks import fill

__all__ = ["ChatRun", "Request", "generation_chunk", "generation_info"]

#: Kind and index of a delta of the first choice's text.
_PLAIN = (TEXT, "0")
#: The names of a finish reason in `response_metadata`: OpenAI's and Anthropic's.
_REASONS = ("finish_reason", "stop_reason")
#: Keys of `response_metadata` that describe the whole response, not one choice.
_OF_THE_RESPONSE = frozenset(
    ("id", "model_provider", "token_usage", "prompt_filter_results", "usage", "model", ORIGIN)
)


class ChatRun(WireRun[AIMessageChunk]):
    """A run whose chunks and final message have LangChain's shapes."""

    #: Whether a chunk of one text delta needs no call of `_fill`.
    _plain = True

    def __init__(
        self, request: Request, translator: Translator, error_of: ErrorOf, *, host: str | None = None
    ) -> None:
        super().__init__(request, translator, error_of)
        #: The host that the request is sent to. The message stores it, because its reasoning is sent back to that
        #: host only. None if nothing has to be sent back.
        self._host = host

    def rest(self) -> Iterator[AIMessageChunk]:
        """Yield the chunk of the bytes after the last blank line, if there is one, and LangChain's empty last chunk.

        The last chunk marks the end of tool call arguments: incomplete ones then become an invalid tool call.
        """
        yield from super().rest()
        last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
        self._add_usage(last)
        self._report_token("", ChatGenerationChunk(last))
        yield last

    def answer(self) -> AIMessage:
        """The final message of the first choice."""
        return self.message()

    def merged(self, chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
        """The sum of the chunks."""
        return chunks[0] + chunks[1:]

    def message(self, choice: int = 0) -> AIMessage:
        """The final message of a choice."""
        message = self.reply.message(choice)
        message.response_metadata = self._metadata(choice)
        if not self.request.stream:
            message.response_metadata |= self.reply.unstreamed_metadata()
        message.id = f"{self._chunk_id}-{choice}" if choice else self._chunk_id
        return message

    # -- inside -------------------------------------------------------------------------------------------------

    def _fill(self, chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
        """Put the deltas of one event into a chunk, in LangChain's shape for the provider. False if there are none."""
        return fill(chunk, deltas)

    def _emit(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        chunk = self._chunk(deltas)
        if chunk is not None and self._wants_tokens:
            self._report_token(chunk.text, generation_chunk(chunk))
        return chunk

    def _chunk(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        """The chunk of one event for the first choice: new content or new metadata. None if there is neither."""
        reply = self.reply
        if self._plain and len(deltas) == 1 and deltas[0][1:] == _PLAIN:
            chunk = text_chunk(deltas[0][0], self._chunk_id)
            self._has_emitted = True
            if not reply.finish_reasons and reply.usage is self._reported_usage:
                return chunk
        else:
            chunk = AIMessageChunk("", id=self._chunk_id)
            if not self._fill(chunk, deltas) and not self._has_new_metadata():
                return None
        self._add_metadata(chunk)
        return chunk

    def _add_metadata(self, chunk: AIMessageChunk) -> None:
        self._has_emitted = True
        if (reasons := self._reasons()) != self._reported_reasons:
            chunk.response_metadata = self._finish_metadata(reasons, self._reported_reasons)
            self._reported_reasons = reasons
        self._add_usage(chunk)

    def _finish_metadata(
        self, reasons: tuple[str | None, ...], reported: tuple[str | None, ...]
    ) -> dict[str, Any]:
        """All metadata with the first finish reason; later only the changes, because chunks are added up."""
        metadata = self._metadata(0)
        if reported == (None,):
            return metadata
        changed: dict[str, Any] = {name: reasons[0] for name in _REASONS if name in metadata}
        return changed | ({EARLIER: list(added)} if (added := reasons[len(reported) :]) else {})

    def _add_usage(self, chunk: AIMessageChunk) -> None:
        """Put the usage since the last chunk with a usage into a chunk."""
        usage = self.reply.usage
        if usage != self._reported_usage:
            chunk.usage_metadata = since(self._reported_usage or {}, usage)
            self._reported_usage = usage

    def _generations(self) -> list[ChatGeneration]:
        return [self._generation(choice) for choice in self.reply.choices]

    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        return [generation.message for generation in result.generations[0]]  # type: ignore[attr-defined]

    def _generation(self, choice: int) -> ChatGeneration:
        message = self.message(choice)
        return ChatGeneration(message, generation_info(message.response_metadata))

    def _metadata(self, choice: int) -> dict[str, Any]:
        """LangChain's `response_metadata` of a reply."""
        reply = self.reply
        metadata = {**reply.response_metadata(choice), "model_provider": self.request.provider_name}
        if reply.response_id:
            metadata["id"] = reply.response_id
        fields = reply.reasoning_fields.get(choice, ())
        return metadata | origin_of(self._host, fields, reply.tool_calls(choice), reply.origin)


def generation_chunk(chunk: AIMessageChunk) -> ChatGenerationChunk:
    """The argument `chunk` of `on_llm_new_token`."""
    metadata = chunk.response_metadata
    return ChatGenerationChunk(chunk, generation_info(metadata) if metadata else None)


def generation_info(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """LangChain's `generation_info`: the metadata without the keys that describe the whole response."""
    return {key: value for key, value in metadata.items() if key not in _OF_THE_RESPONSE}


def since(before: Mapping[str, Any], now: Any) -> Any:
    """The difference of two usages. Events send totals, but chunks are added up, so each chunk has its own share."""
    return {
        key: since(before.get(key, {}), count) if isinstance(count, dict) else count - before.get(key, 0)
        for key, count in now.items()
    }
