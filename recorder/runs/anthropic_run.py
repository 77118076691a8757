"""One run of a chat model over Anthropic's wire format."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.messages import AIMessageChunk
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import ErrorOf, Request
from recorder.wire.anthropic.to_chunks import fill_blocks, fill_text, wants_blocks
from recorder.wire.deltas import Delta
from recorder.wire.reply import Translator


class AnthropicRun(ChatRun):
    """A run whose chunks have text; or lists of content blocks, if the request asks for more than text."""

    def __init__(self, request: Request, translator: Translator, error_of: ErrorOf) -> None:
        super().__init__(request, translator, error_of)
        self._plain = not wants_blocks(request.body)

    def _fill(self, chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
        return fill_text(chunk, deltas) if self._plain else fill_blocks(chunk, deltas)
