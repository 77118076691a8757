"""The listeners behind `Replay.stream` and `Replay.frames`: message chunks, or the provider's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.messages import AIMessageChunk, UsageMetadata, text_chunk
from recorder.replay.playback import BeginStep, EndStep, FramesStep, GapStep, TokensStep
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import COMPLETE, ERROR, INCOMPLETE, INTERRUPTED
from recorder.wire import usage
from recorder.wire.deltas import TEXT, Delta
from recorder.wire.formats import filler_of
from recorder.wire.recorded_run import ANTHROPIC, CHAT
from recorder.wire.usage import ESTIMATED_USAGE


class ChunkListener:
    """Message chunks of the first choice, one for each token. Their sum is the final message."""

    def __init__(self) -> None:
        self._id = ""
        self._filler = filler_of(None, None)

    def begin(self, begin: BeginStep) -> Sequence[AIMessageChunk]:
        run = begin.run
        self._id = f"run-{run.id}"
        self._filler = filler_of(run.wire, run.request)
        return ()

    def take(self, piece: TokensStep | FramesStep) -> Sequence[AIMessageChunk | None]:
        chunk_id, chunk = self._id, text_chunk
        if self._filler.plain:
            try:
                return [chunk(text, chunk_id) for _, text in piece.items]  # type: ignore[arg-type]
            except ValueError:
                pass  # some items have a kind, so they are not only text
        return [self._one(*item) for item in piece.items]

    def gap(self, gap: GapStep) -> Sequence[AIMessageChunk]:
        shown = {"seq": gap.seq, "count": gap.count, "reason": gap.reason}
        return (AIMessageChunk("", id=self._id, additional_kwargs={"gap": shown}),)

    def end(self, end: EndStep) -> Sequence[AIMessageChunk]:
        run = end.run
        about = AIMessageChunk("", id=self._id, response_metadata=response_metadata(run))
        about.usage_metadata = usage_metadata(run)
        last = AIMessageChunk("", id=self._id, chunk_position="last")
        if run.status in (COMPLETE, INCOMPLETE):
            return about, last
        # The application got this chunk too, if the provider had sent a finish reason or usage before the stream ended.
        # Anthropic's SDK gives usage only with the last event.
        counted = about.usage_metadata and (run.status == INTERRUPTED or run.wire != ANTHROPIC)
        received = (about,) if run.finish_reason or counted else ()
        if run.status == ERROR:
            return received
        last.response_metadata = {"status": run.status}
        return (*received, last)

    def chunk(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        """The chunk of one event; None if the event has nothing for the first choice."""
        chunk = AIMessageChunk("", id=self._id)
        return chunk if self._filler.fill(chunk, deltas) else None

    def _one(self, _at_us: int, text: str, kind: str = TEXT, idx: str = "0") -> AIMessageChunk | None:
        return self.chunk((Delta(text, kind, idx),))


class BytesListener:
    """The provider's events byte for byte. Gaps are not shown."""

    def begin(self, begin: BeginStep) -> Sequence[bytes]:
        return ()

    def take(self, piece: TokensStep | FramesStep) -> Sequence[bytes]:
        return [data for _, data in piece.items]

    def gap(self, gap: GapStep) -> Sequence[bytes]:
        return ()

    def end(self, end: EndStep) -> Sequence[bytes]:
        return ()


def response_metadata(run: RecordedRun) -> dict[str, Any]:
    """The `response_metadata` of a reply, as far as it is stored."""
    reason = "stop_reason" if run.wire == ANTHROPIC else "finish_reason"
    fields = {
        reason: run.finish_reason,
        "model_name": run.model,
        "id": run.response_id,
        "model_provider": run.provider_name,
    }
    return {name: value for name, value in fields.items() if value is not None}


def usage_metadata(run: RecordedRun) -> UsageMetadata | None:
    """The token counts in LangChain's shape; None if the provider sent none."""
    if run.usage and usage.is_counted(run.usage):
        if run.wire == CHAT:
            return usage.from_openai(run.usage)
        return usage.read(run.usage, anthropic=run.wire == ANTHROPIC, langchain=run.wire is None)
    if run.usage_source == ESTIMATED_USAGE or run.input_tokens is None or run.output_tokens is None:
        return None
    total = run.total_tokens if run.total_tokens is not None else run.input_tokens + run.output_tokens
    return UsageMetadata(input_tokens=run.input_tokens, output_tokens=run.output_tokens, total_tokens=total)
