"""One run of a chat model over a wire format: the chunks and the message that its events make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recorder.jsons import loads
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGeneration,
    ChatGenerationChunk,
    LLMResult,
)
from recorder.models.run import Request, Translator, WireRun
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.reply import merge_other

__all__ = ["Call", "Request", "Translator", "generation_chunk", "generation_info"]

_PLAIN = (TEXT, "0")
_OF_THE_RESPONSE = frozenset(
    ("id", "model_provider", "token_usage", "prompt_filter_results", "usage", "model")
)


class Call(WireRun[AIMessageChunk]):
    """A run as far as it has come."""

    #: Whether a chunk of nothing but text is told as it is, and `_fill` is asked for all others only.
    _plain = True

    def rest(self) -> Iterator[AIMessageChunk]:
        """The chunk in what came after the last blank line, if there is one, and LangChain's empty last one.

        That one tells a sum of chunks that no more arguments follow: a call which was cut off is an invalid one.
        """
        yield from super().rest()
        last = AIMessageChunk("", id=self._chunk_id, chunk_position="last")
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
        return _add_deltas(chunk, deltas)

    def _say(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        chunk = self._chunk(deltas)
        if chunk is not None and self._wants_tokens:
            self._tell_token(chunk.text, generation_chunk(chunk))
        return chunk

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

    def _tell(self, chunk: AIMessageChunk) -> None:
        reply = self.reply
        self._told = True
        if not self._told_finish and 0 in reply.finish_reasons:
            self._told_finish = True
            chunk.response_metadata = self._metadata(0)
        if reply.usage != self._seen_usage:
            chunk.usage_metadata = _since(self._seen_usage or {}, reply.usage)
            self._seen_usage = reply.usage

    def _generations(self) -> list[ChatGeneration]:
        return [self._generation(choice) for choice in self.reply.choices]

    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        return [generation.message for generation in result.generations[0]]  # type: ignore[attr-defined]

    def _generation(self, choice: int) -> ChatGeneration:
        message = self.message(choice)
        return ChatGeneration(message, generation_info(message.response_metadata))

    def _metadata(self, choice: int) -> dict[str, Any]:
        """LangChain's `response_metadata` of a reply."""
        said = {**self.reply.response_metadata(choice), "model_provider": self.request.provider_name}
        if self.reply.response_id:
            said["id"] = self.reply.response_id
        return said


def generation_chunk(chunk: AIMessageChunk) -> ChatGenerationChunk:
    """What handlers get with a token."""
    return ChatGenerationChunk(chunk, generation_info(said) if (said := chunk.response_metadata) else None)


def generation_info(said: Mapping[str, Any]) -> dict[str, Any]:
    """What LangChain says of a generation: of the metadata, what is not of the whole response."""
    return {key: value for key, value in said.items() if key not in _OF_THE_RESPONSE}


def _since(before: Mapping[str, Any], now: Any) -> Any:
    """What came to the counts, where a provider counts in every event: chunks add up, so each has its own share."""
    return {
        key: _since(before.get(key, {}), count) if isinstance(count, dict) else count - before.get(key, 0)
        for key, count in now.items()
    }


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
