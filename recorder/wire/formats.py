"""Finds, for the name of a wire format, its translator and the function that fills its chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from recorder.messages import AIMessageChunk
from recorder.wire.anthropic import stream as anthropic_stream
from recorder.wire.anthropic import to_chunks as anthropic_chunks
from recorder.wire.deltas import Delta
from recorder.wire.from_chunks import fill_own
from recorder.wire.gemini import stream as gemini_stream
from recorder.wire.ollama import stream as ollama_stream
from recorder.wire.openai import chat as openai_chat
from recorder.wire.openai import completions as openai_completions
from recorder.wire.openai import events as openai_events
from recorder.wire.openai import responses as openai_responses
from recorder.wire.openai.choices import requested_choices
from recorder.wire.reply import Translator
from recorder.wire.to_chunks import fill


class Filler(NamedTuple):
    """How a format's deltas are put into chunks."""

    #: Puts the deltas of one event into a chunk; returns whether there were any of the first choice.
    fill: Callable[[AIMessageChunk, Sequence[Delta]], bool]
    #: Whether the chunk's content is the text itself, so that a chunk with only text needs no `fill`.
    plain: bool


_TRANSLATORS: dict[str, Callable[[], Translator]] = {
    openai_chat.WIRE: openai_chat.OpenAIChat,
    openai_completions.WIRE: openai_completions.OpenAICompletions,
    openai_responses.WIRE: openai_responses.OpenAIResponses,
    anthropic_stream.WIRE: anthropic_stream.AnthropicMessages,
    gemini_stream.WIRE: gemini_stream.Gemini,
    ollama_stream.CHAT_WIRE: ollama_stream.OllamaChat,
    ollama_stream.GENERATE_WIRE: ollama_stream.OllamaGenerate,
}
#: The formats that can be decoded. Some of them can be encoded, too (`encode.WIRES`).
DECODED = tuple(_TRANSLATORS)


def translator_of(wire: str | None, request: Mapping[str, Any] | None = None) -> Translator | None:
    """A new translator for a wire format, given the request body if it is known; None for an unknown format."""
    make = _TRANSLATORS.get(wire or "")
    translator = make() if make is not None else None
    if isinstance(translator, openai_events.OpenAIEvents):
        translator.choices.requested_count = requested_choices(request)
    return translator


def filler_of(wire: str | None, request: Mapping[str, Any] | None) -> Filler:
    """The filler for a format's chunks, given the request body if it is known."""
    if wire is None:
        return Filler(fill_own, True)
    if wire != anthropic_stream.WIRE:
        return Filler(fill, True)
    if anthropic_chunks.wants_blocks(request or {}):
        return Filler(anthropic_chunks.fill_blocks, False)
    return Filler(anthropic_chunks.fill_text, True)
