"""One run of a chat model over a wire format: the chunks and the message that its events make."""

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
from recorder.models.run import ErrorOf, Request, WireRun
from recorder.wire.chunks import fill
from recorder.wire.deltas import TEXT, Delta
from recorder.wire.reply import EARLIER, Translator
from recorder.wire.thoughts import ORIGIN, origin_of

__all__ = ["Call", "Request", "generation_chunk", "generation_info"]

_PLAIN = (TEXT, "0")
#: What a finish reason is called.
_REASONS = ("finish_reason", "stop_reason")
_OF_THE_RESPONSE = frozenset(
    ("id", "model_provider", "token_usage", "prompt_filter_results", "usage", "model", ORIGIN)
)


class Call(WireRun[AIMessageChunk]):
    """A run as far as it has come."""

    #: Whether a chunk of nothing but text is told as it is, and `_fill` is asked for all others only.
    _plain = True

    def __init__(
        self, request: Request, translator: Translator, error_of: ErrorOf, *, host: str | None = None
    ) -> None:
        super().__init__(request, translator, error_of)
        #: Where the request goes, for what has to go back there; None where nothing has to.
        self._host = host

    def rest(self) -> Iterator[AIMessageChunk]:
        """The chunk in what came after the last blank line, if there is one, and LangChain's empty last one.

        That one tells a sum of chunks that no more arguments follow: a call which was cut off is an invalid one.
        """
        yield from super().rest()
        last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
        self._count(last)
        self._tell_token("", ChatGenerationChunk(last))
        yield last

    def answer(self) -> AIMessage:
        """The final message of the first choice."""
        return self.message()

    def gathered(self, chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
        """The chunks added up."""
        return chunks[0] + chunks[1:]

    def message(self, choice: int = 0) -> AIMessage:
        """The final message of a choice."""
        message = self.reply.message(choice)
        message.response_metadata = self._metadata(choice)
        if not self.request.stream:
            message.response_metadata |= self.reply.whole_metadata()
        message.id = f"{self._chunk_id}-{choice}" if choice else self._chunk_id
        return message

    # -- inside -------------------------------------------------------------------------------------------------

    def _fill(self, chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
        """Put the deltas of one event into a chunk, in LangChain's shape for the provider; whether there were any."""
        return fill(chunk, deltas)

    def _say(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        chunk = self._chunk(deltas)
        if chunk is not None and self._wants_tokens:
            self._tell_token(chunk.text, generation_chunk(chunk))
        return chunk

    def _chunk(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        """The chunk of one event: of the first choice; also when it only opens, ends or counts."""
        reply = self.reply
        if self._plain and len(deltas) == 1 and deltas[0][1:] == _PLAIN:
            chunk = text_chunk(deltas[0][0], self._chunk_id)
            self._told = True
            if not reply.finish_reasons and reply.usage is self._seen_usage:
                return chunk
        else:
            chunk = AIMessageChunk("", id=self._chunk_id)
            if not self._fill(chunk, deltas) and not self._news():
                return None
        self._tell(chunk)
        return chunk

    def _tell(self, chunk: AIMessageChunk) -> None:
        self._told = True
        if (reasons := self._reasons()) != self._told_reasons:
            chunk.response_metadata = self._finish(reasons, self._told_reasons)
            self._told_reasons = reasons
        self._count(chunk)

    def _finish(self, reasons: tuple[str | None, ...], told: tuple[str | None, ...]) -> dict[str, Any]:
        """The metadata with the first finish reason; chunks add up, so later nothing but what changed."""
        said = self._metadata(0)
        if told == (None,):
            return said
        changed: dict[str, Any] = {name: reasons[0] for name in _REASONS if name in said}
        return changed | ({EARLIER: list(news)} if (news := reasons[len(told) :]) else {})

    def _count(self, chunk: AIMessageChunk) -> None:
        """Put what has come to the counts into a chunk."""
        usage = self.reply.usage
        if usage != self._seen_usage:
            chunk.usage_metadata = since(self._seen_usage or {}, usage)
            self._seen_usage = usage

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
        said = {**reply.response_metadata(choice), "model_provider": self.request.provider_name}
        if reply.response_id:
            said["id"] = reply.response_id
        fields = reply.reasoning_fields.get(choice, ())
        return said | origin_of(self._host, fields, reply.tool_calls(choice))


def generation_chunk(chunk: AIMessageChunk) -> ChatGenerationChunk:
    """What handlers get with a token."""
    return ChatGenerationChunk(chunk, generation_info(said) if (said := chunk.response_metadata) else None)


def generation_info(said: Mapping[str, Any]) -> dict[str, Any]:
    """What LangChain says of a generation: of the metadata, what is not of the whole response."""
    return {key: value for key, value in said.items() if key not in _OF_THE_RESPONSE}


def since(before: Mapping[str, Any], now: Any) -> Any:
    """What came to the counts, where each event counts all so far: chunks add up, so each has its own share."""
    return {
        key: since(before.get(key, {}), count) if isinstance(count, dict) else count - before.get(key, 0)
        for key, count in now.items()
    }
